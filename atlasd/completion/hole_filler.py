"""Completion with a chat model that was never trained to fill in the middle.

The conversation shows the file with a mark at the cursor, and the assistant's turn is begun for
it: a code block that already holds the lines before the cursor. What it writes next is the
completion; the end of the code block ends it.
"""

from __future__ import annotations

from atlasd.completion.chat import ChatTemplate
from atlasd.completion.healing import take_back
from atlasd.completion.ports import TextTokenizer
from atlasd.completion.templates import Part, Prompt, Surroundings, comments
from atlasd.errors import RequestError

MARK = "<CURSOR>"
TASK = (
    "You are the code completion of an editor. You are shown a file with the mark "
    f"{MARK} where the cursor stands. Write the code that belongs there, in the style of the file, "
    "as short as it can be. Repeat neither what stands before the mark nor what stands after it."
)
BEGUN_LINES = 8
BEGUN_CHARACTERS = 600


class HoleFiller:
    """See ``templates.Template``."""

    name = "chat hole filler"
    uses_suffix = True
    markers: tuple[str, ...] = (MARK,)

    def __init__(self, tokenizer: TextTokenizer, chat: ChatTemplate) -> None:
        self._tokenizer = tokenizer
        self._chat = chat
        self.stop_tokens = tuple(tokenizer.eos_ids)
        self.stop = ("\n```", *chat.stop)

    def prompt(self, around: Surroundings) -> Prompt:
        shown = f"{comments(around)}{around.prefix}{MARK}{around.suffix}"
        fence = f"```{around.language.id}\n"
        asked = self._conversation(f"{fence}{shown}\n```")
        begun = fence + _last_lines(around.prefix)
        kept, taken = take_back(self._tokenizer, self._tokenizer.encode(begun))
        parts = (Part("conversation", tuple(asked)), Part("answer begun", kept))
        return Prompt(parts, self.stop_tokens, self.stop, taken)

    def _conversation(self, code: str) -> list[int]:
        messages = [{"role": "system", "content": TASK}, {"role": "user", "content": code}]
        try:
            return self._chat.tokens(self._tokenizer, messages, enable_thinking=False)
        except RequestError:
            # Some templates (Gemma's) know no system role.
            together = [{"role": "user", "content": f"{TASK}\n\n{code}"}]
            return self._chat.tokens(self._tokenizer, together, enable_thinking=False)


def _last_lines(prefix: str) -> str:
    lines = prefix[-BEGUN_CHARACTERS:].split("\n")
    if len(prefix) > BEGUN_CHARACTERS and len(lines) > 1:
        lines = lines[1:]
    return "\n".join(lines[-BEGUN_LINES:])
