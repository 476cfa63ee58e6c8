"""Tokenizers from tokenizer.json: against transformers, and streaming against decoding at once."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers

from atlasd.errors import ModelError
from atlasd.models.detokenize import Detokenizer
from atlasd.models.locate import ModelFiles, bundled_model
from atlasd.models.tokenizer import Tokenizer

CORPUS = [
    "def add(first, second):\n    return first + second\n",
    "for (let i = 0; i < items.length; i++) {\n\tconsole.log(items[i]);\n}\n",
    "Ünïcödé, 你好世界, здравствуй мир, 🙂🚀 and the rest\n",
]
MARKED = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
UNMARKED = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<tool_call>"]
ODD = json.loads((Path(__file__).parent / "data" / "llama_cpp_tokens.json").read_text())["texts"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE with added tokens as Qwen2.5-Coder has them, marked special and not."""
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(CORPUS, trainer)
    inner.add_special_tokens([AddedToken(token, special=True) for token in MARKED])
    inner.add_tokens([AddedToken(token, normalized=False) for token in UNMARKED])
    target = tmp_path_factory.mktemp("model")
    inner.save(str(target / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "chat_template": "{{ messages }}",
    }
    (target / "tokenizer_config.json").write_text(json.dumps(settings))
    return target


def files(folder: Path, **config: object) -> ModelFiles:
    return ModelFiles("model", "folder", folder, config)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(files(folder))


@pytest.mark.parametrize("text", [*ODD, "a<|im_start|>user\n<|fim_prefix|>b<|endoftext|>"])
def test_ids_and_text_are_those_of_transformers(
    folder: Path, tokenizer: Tokenizer, text: str
) -> None:
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(folder)
    ids = reference(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.encode(text, special=True) == ids
    assert tokenizer.decode(ids) == reference.decode(ids, skip_special_tokens=True)


def test_control_tokens_in_a_text_are_text(tokenizer: Tokenizer) -> None:
    for token in (*MARKED, *UNMARKED):
        id = tokenizer.token_id(token)
        assert id is not None
        assert tokenizer.encode(token, special=True) == [id]
        ids = tokenizer.encode(f"x = '{token}'")
        assert id not in ids
        assert tokenizer.decode(ids) == f"x = '{token}'"


def test_a_batch_is_what_its_texts_are(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode_batch(ODD) == [tokenizer.encode(text) for text in ODD]


def test_a_long_text_is_tokenised_as_a_short_one_and_lets_other_threads_run() -> None:
    tokenizer = Tokenizer.load(bundled_model())
    text = "x = 1\n" * 20_000 + "é漢\t\tdef f():\n"
    lines = tokenizer.encode("x = 1\n") * 20_000 + tokenizer.encode("é漢\t\tdef f():\n")
    began, longest, last, found = time.monotonic(), 0.0, time.monotonic(), []
    thread = threading.Thread(target=lambda: found.extend(tokenizer.encode(text)))
    thread.start()
    while thread.is_alive():
        time.sleep(0.001)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    assert found == lines
    assert longest < (time.monotonic() - began) / 2


def test_what_a_model_says_about_itself(folder: Path, tokenizer: Tokenizer) -> None:
    end = [tokenizer.token_id("<|endoftext|>"), tokenizer.token_id("<|im_end|>")]
    assert tokenizer.eos_ids == end
    assert Tokenizer.load(files(folder, eos_token_id=[7, end[1]])).eos_ids == [7, end[1], end[0]]
    assert tokenizer.chat_template == "{{ messages }}"
    assert tokenizer.prefix_ids == []
    assert (
        tokenizer.vocab_size
        == max(tokenizer.token_id(token) or 0 for token in (*MARKED, *UNMARKED)) + 1
    )
    assert tokenizer.token_id("no such token") is None
    assert tokenizer.token_bytes(tokenizer.vocab_size + 5) == b""


def test_the_fingerprint_tells_vocabularies_apart(folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    same = Tokenizer.load(files(folder)).fingerprint
    (tmp_path / "tokenizer.json").write_text(json.dumps(content, indent=4))
    assert Tokenizer.load(files(tmp_path)).fingerprint == same
    content["model"]["merges"] = content["model"]["merges"][:-1]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert Tokenizer.load(files(tmp_path)).fingerprint != same


def test_a_beginning_of_sequence_token_is_known(folder: Path, tmp_path: Path) -> None:
    inner = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    id = inner.token_to_id("<|im_start|>")
    inner.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", id)]
    )
    inner.save(str(tmp_path / "tokenizer.json"))
    loaded = Tokenizer.load(files(tmp_path))
    assert loaded.prefix_ids == [id]
    assert loaded.encode("a") == inner.encode("a", add_special_tokens=False).ids


def test_a_template_in_a_file_of_its_own_is_found(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{{ 'own' }}")
    assert Tokenizer.load(files(tmp_path)).chat_template == "{{ 'own' }}"
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert Tokenizer.load(files(tmp_path)).chat_template == "d"


def test_a_missing_or_broken_tokenizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        Tokenizer.load(files(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be read"):
        Tokenizer.load(files(tmp_path))


@settings(max_examples=200, deadline=None)
@given(text=st.text(), cuts=st.lists(st.integers(1, 5), max_size=50))
def test_streamed_text_is_the_text(tokenizer: Tokenizer, text: str, cuts: list[int]) -> None:
    ids = tokenizer.encode(text)
    stream, said = Detokenizer(tokenizer), []
    at = 0
    for cut in cuts:
        said.append(stream.feed(ids[at : at + cut]))
        at += cut
        # What has been said is a prefix of the text: no half characters.
        assert text.startswith("".join(said))
    said += [stream.feed(ids[at:]), stream.flush()]
    assert "".join(said) == text
    assert tokenizer.decode(ids) == text


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_tokens_stream_to_what_the_library_decodes(
    folder: Path, tokenizer: Tokenizer, data: st.DataObject
) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=40))
    stream = Detokenizer(tokenizer)
    said = "".join(stream.feed([id]) for id in ids) + stream.flush()
    assert said == tokenizer.decode(ids)
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    known = [id for id in ids if tokenizer.token_bytes(id) and id < library.get_vocab_size(False)]
    assert tokenizer.decode(known) == library.decode(known, skip_special_tokens=False)


def test_tokens_that_end_a_line_are_those_with_a_newline(tokenizer: Tokenizer) -> None:
    expected = [id for id in range(tokenizer.vocab_size) if b"\n" in tokenizer.token_bytes(id)]
    assert expected
    assert tokenizer.line_ends == expected
