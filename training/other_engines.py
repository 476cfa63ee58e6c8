"""Do other engines read the shipped folder and say the same? GGUF conversion and llama.cpp, greedy.

    python -m training.other_engines --convert CONVERTER --source TREE --root CHROOT

CONVERTER is a script `CONVERTER TREE MODEL --outfile F --outtype f32` around llama.cpp's
convert_hf_to_gguf.py that takes a locally trained vocabulary for `qwen2`; CHROOT a folder with a
Debian that has llama.cpp's tools. Both come from outside of this repository.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from training.evaluate import Subject
from training.fetch import HERE
from training.generate import continue_greedily

PROMPTS = (
    "def fibonacci(n):\n    ",
    "import os\n\n\ndef read_lines(path):\n    with open(path) as f:\n",
    "fn main() {\n    let mut total = 0;\n    for i in 0..",
    "#include <stdio.h>\n\nint main(int argc, char **argv)\n{\n    for (int i = 0; i <",
    "export function isEmpty(value: unknown): boolean {\n  ",
    "func (s *Server) Close() error {\n\t",
)


def llama_continues(root: Path, gguf: str, prompt: str, count: int) -> str:
    """What llama.cpp adds to the prompt with greedy decoding."""
    arguments = ["-m", gguf, "-p", prompt, "-n", str(count), "--temp", "0", "-t", "1", "-no-cnv"]
    # By itself it attends in f16, which tells tokens 0.001 nats apart the wrong way round.
    exact = ["-fa", "off", "-ctk", "f32", "-ctv", "f32"]
    quiet = ["--no-display-prompt", "--no-warmup", "--simple-io"]
    done = subprocess.run(
        ["chroot", str(root), "/usr/bin/llama-completion", *arguments, *exact, *quiet],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
        check=True,
    )
    # llama-completion writes this where the model has ended the text.
    return done.stdout.decode(errors="replace").replace(" [end of text]", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=HERE.parent / "atlasd/models/bundled/target")
    parser.add_argument("--convert", type=Path, required=True)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=40)
    args = parser.parse_args()
    inside = "/tmp/atlasd-target.gguf"
    outfile = args.root / inside.lstrip("/")
    outfile.parent.mkdir(exist_ok=True)
    # The wrapper script takes the tree first; the rest is convert_hf_to_gguf.py's own.
    convert = [sys.executable, str(args.convert), str(args.source), str(args.model)]
    subprocess.run([*convert, "--outfile", str(outfile), "--outtype", "f32"], check=True)
    subject = Subject(args.model)
    same = 0
    for prompt in PROMPTS:
        made = continue_greedily(subject.model, subject.encode(prompt), args.tokens, subject.end)
        ours = subject.tokenizer.decode(made)
        # llama-completion may end before it printed its last token: ask for more than is compared.
        theirs = llama_continues(args.root, inside, prompt, args.tokens + 8)
        agree = theirs.startswith(ours)
        same += agree
        print("same" if agree else f"different\n  ours   {ours!r}\n  theirs {theirs!r}")
    print(f"{same} of {len(PROMPTS)} continuations are the same")


if __name__ == "__main__":
    main()
