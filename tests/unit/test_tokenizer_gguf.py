"""Tokenizers from GGUF vocabularies: against llama.cpp, transformers and SentencePiece."""

from __future__ import annotations

import json
import unicodedata
from functools import cache
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.errors import ModelError
from atlasd.models.gguf_file import read_gguf
from atlasd.models.locate import gguf_model
from atlasd.models.tokenizer import Tokenizer

VOCABULARIES = Path(__file__).resolve().parents[3] / "shared" / "data"
EXPECTED = json.loads((Path(__file__).parent / "data" / "llama_cpp_tokens.json").read_text())
"""Ids by llama.cpp's test-tokenizer-0 (Debian 1:0.7.0) for each text."""


def vocabulary(name: str) -> Path:
    file = VOCABULARIES / f"ggml-vocab-{name}.gguf"
    if not file.is_file():
        pytest.skip(f"the vocabulary {file.name} is not beside this checkout")
    return file


@cache
def loaded(name: str) -> Tokenizer:
    return Tokenizer.load(gguf_model(vocabulary(name)))


@pytest.mark.parametrize("name", EXPECTED["vocabularies"])
def test_ids_are_those_of_llama_cpp(name: str) -> None:
    tokenizer = loaded(name)
    for text, expected in zip(EXPECTED["texts"], EXPECTED["vocabularies"][name], strict=True):
        assert tokenizer.encode(text) == expected, text
        assert tokenizer.decode(expected) == text


@pytest.mark.parametrize("name", ["qwen2", "deepseek-coder"])
@settings(max_examples=100, deadline=None)
@given(text=st.text())
def test_every_text_comes_back(name: str, text: str) -> None:
    tokenizer = loaded(name)
    # Qwen's tokenizer composes characters first, here as in transformers.
    expected = unicodedata.normalize("NFC", text) if name == "qwen2" else text
    assert tokenizer.decode(tokenizer.encode(text)) == expected


def test_fill_in_the_middle_tokens_are_found_and_never_read_from_text() -> None:
    tokenizer = loaded("starcoder")
    id = tokenizer.token_id("<fim_prefix>")
    assert id is not None
    assert tokenizer.encode("<fim_prefix>", special=True) == [id]
    assert id not in tokenizer.encode("<fim_prefix>")
    assert tokenizer.eos_ids == [0]


def test_every_kind_of_value_is_read_as_the_gguf_package_reads_it(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    values = {
        "uint8": 200,
        "int8": -3,
        "uint16": 60_000,
        "int16": -300,
        "uint32": 4_000_000_000,
        "int32": -70_000,
        "float32": 0.5,
        "uint64": 1 << 60,
        "int64": -(1 << 60),
        "float64": 0.1,
        "bool": True,
        "string": "größer 🙂",
    }
    for kind, value in values.items():
        getattr(writer, f"add_{kind}")(f"test.{kind}", value)
    writer.add_array("test.numbers", [1, 2, 3])
    writer.add_array("test.fractions", [0.5, 0.25])
    writer.add_array("test.words", ["a", "", "ü"])
    writer.add_tensor("blk.0.weight", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("blk.1.weight", np.ones(5, np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ours = read_gguf(tmp_path / "model.gguf")
    theirs = gguf.GGUFReader(tmp_path / "model.gguf")
    expected = {
        name: field.contents()
        for name, field in theirs.fields.items()
        if not name.startswith("GGUF.")
    }
    assert ours.metadata == expected
    for tensor in theirs.tensors:
        found = ours.tensors[tensor.name]
        assert found.shape == tuple(reversed(tensor.shape.tolist()))
        assert (found.type, found.offset) == (tensor.tensor_type, tensor.data_offset)


def test_a_prefix_token_is_known_where_the_file_asks_for_it() -> None:
    assert loaded("deepseek-coder").prefix_ids == [32013]
    assert loaded("qwen2").prefix_ids == []


def write(path: Path, **values: object) -> Path:
    """A GGUF file of metadata only."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(str(values.get("model", "gpt2")))
    writer.add_tokenizer_pre(str(values.get("pre", "default")))
    writer.add_token_list(values.get("tokens", ["a", "b", "ab"]))
    writer.add_token_merges(["a b"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"pre": "something-new"}, "something-new"),
        ({"model": "t5"}, "t5"),
    ],
)
def test_unknown_vocabularies_are_refused_with_what_works(
    values: dict[str, str], said: str, tmp_path: Path
) -> None:
    file = write(tmp_path / "model.gguf", **values)
    with pytest.raises(ModelError) as caught:
        Tokenizer.load(gguf_model(file))
    assert said in caught.value.message
    assert "are read" in caught.value.hint


@pytest.mark.parametrize(
    "content", [b"", b"GGUF", b"GGUF\x03\x00\x00\x00" + b"\xff" * 16, b"hello"]
)
def test_what_is_not_gguf_is_an_error(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    with pytest.raises(ModelError, match="not a readable GGUF file"):
        read_gguf(file)


def test_a_sentencepiece_vocabulary_gives_what_sentencepiece_gives(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece", reason="trains the reference vocabulary")
    lines = [line for text in EXPECTED["texts"] for line in text.splitlines() if line.strip()]
    (tmp_path / "corpus.txt").write_text("\n".join(lines * 3))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "corpus.txt"),
        model_prefix=str(tmp_path / "spm"),
        vocab_size=500,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    reference = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spm.model"))
    count = reference.get_piece_size()
    kinds = {2: reference.is_unknown, 3: reference.is_control, 6: reference.is_byte}
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([reference.id_to_piece(id) for id in range(count)])
    writer.add_token_scores([reference.get_score(id) for id in range(count)])
    writer.add_token_types(
        [next((kind for kind, test in kinds.items() if test(id)), 1) for id in range(count)]
    )
    writer.add_bos_token_id(reference.bos_id())
    writer.add_eos_token_id(reference.eos_id())
    writer.add_unk_token_id(reference.unk_id())
    writer.add_add_bos_token(True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tokenizer = Tokenizer.load(gguf_model(tmp_path / "model.gguf"))
    assert tokenizer.prefix_ids == [reference.bos_id()]
    for text in (line for line in lines if "\x00" not in line and "▁" not in line):
        assert tokenizer.encode(text) == reference.encode(text), text
        # SentencePiece puts a space before a text and takes it off again.
        assert tokenizer.decode(tokenizer.encode(text)) == " " + text
