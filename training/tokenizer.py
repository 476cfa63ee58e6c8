"""Train the byte-level BPE with exactly Qwen2's normaliser and pre-tokeniser.

python -m training.tokenizer [--vocabulary 8192] [--sample 40000000] [--out FOLDER]
"""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from training.fetch import HERE

# llama.cpp and others know this rule by the name "qwen2": not a character may differ.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
END = "<|endoftext|>"
SPECIAL = [
    END,
    "<|im_start|>",
    "<|im_end|>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
]
SHARES = {"python": 0.46, "rust": 0.14, "typescript": 0.14, "c": 0.13, "go": 0.13}  # of bytes
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def end_id(vocabulary: int) -> int:
    """The id of END: the special tokens are the last ones of a vocabulary of this size."""
    return vocabulary - len(SPECIAL) + SPECIAL.index(END)


def blank() -> Tokenizer:
    """An untrained tokenizer with Qwen2's rules."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def texts(split: str, language: str) -> Iterator[str]:
    with (HERE / "work" / "corpus" / f"{split}-{language}.jsonl").open() as lines:
        for line in lines:
            yield json.loads(line)["text"]


def sample(size: int, seed: int = 0) -> Iterator[str]:
    """About `size` bytes of training files, languages in proportion to SHARES."""
    for language, share in SHARES.items():
        documents = list(texts("train", language))
        random.Random(seed).shuffle(documents)
        left = size * share
        for text in documents:
            if left <= 0:
                break
            left -= len(text)
            yield text


def write(tokenizer: Tokenizer, out: Path, context: int) -> None:
    """tokenizer.json, tokenizer_config.json and chat_template.jinja as Qwen2 has them."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    added = {
        str(tokenizer.token_to_id(token)): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for token in SPECIAL
    }
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": SPECIAL[1:],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": END,
        "errors": "replace",
        "model_max_length": context,
        "pad_token": END,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (out / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--sample", type=int, default=40_000_000)
    parser.add_argument("--out", type=Path, default=HERE / "work" / "tokenizer")
    args = parser.parse_args()
    tokenizer = blank()
    trainer = trainers.BpeTrainer(
        vocab_size=args.vocabulary - len(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=True,
    )
    tokenizer.train_from_iterator(sample(args.sample), trainer)
    # The special tokens come last, as Qwen2 has them, so that merges keep the low ids.
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    assert tokenizer.get_vocab_size() == args.vocabulary, tokenizer.get_vocab_size()
    write(tokenizer, args.out, context=2048)
    for language in SHARES:
        held_out = "".join(texts("held_out", language))[:2_000_000]
        count = len(tokenizer.encode(held_out, add_special_tokens=False).ids)
        print(f"{language}: {len(held_out.encode()) / count:.3f} bytes per token on held-out files")


if __name__ == "__main__":
    main()
