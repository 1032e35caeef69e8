"""The GGUF reader: what it reads of llama.cpp's files, and what it refuses as llama.cpp does."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from raw_gguf import LLAMA, entry, gguf, pair, string

from checker.checkpoint.gguf import dense_name, gguf_config, parse_gguf, read_gguf
from checker.checkpoint.gguf_types import BLOCKS, TYPES
from checker.checkpoint.header import Header
from checker.domain import Severity

FIXTURES = Path(__file__).parents[1] / "fixtures" / "checkpoints" / "gguf"
TENSORS: list[tuple[str, str, tuple[int, ...]]] = [
    ("token_embd.weight", "GGUF_Q8_0", (64, 32)),
    ("blk.0.attn_norm.weight", "F32", (32,)),
    ("blk.0.attn_q.weight", "GGUF_Q4_K", (16, 256)),
    ("blk.0.ffn_down_exps.weight", "GGUF_Q4_0", (4, 8, 32)),
]


def parse(raw: bytes) -> Header:
    return parse_gguf(lambda begin, end: raw[begin:end], len(raw), "model.gguf")


def messages(raw: bytes) -> str:
    return "\n".join(problem.message for problem in parse(raw).problems)


def test_a_sound_file_has_no_problems():
    header = parse(gguf(TENSORS))
    assert not header.problems
    assert [(name, item.dtype, item.shape) for name, item in header.tensors.items()] == TENSORS
    assert [item.nbytes for item in header.tensors.values()] == [64 * 34, 128, 16 * 144, 4 * 8 * 18]
    assert header.metadata == {"general.architecture": "llama", "general.file_type": "7"}


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*/*.gguf")), ids=lambda path: path.parent.name)
def test_files_of_llama_cpp_are_read_wholly(path: Path):
    header = read_gguf(path)
    assert not header.problems
    last = max(item.end for item in header.tensors.values())
    assert 0 <= path.stat().st_size - last < 32
    recipe = gguf_config(header.metadata, path.name)["quantization_config"]
    assert isinstance(recipe, dict)
    assert recipe["file_type"] == path.stem.removeprefix("model-")


def test_every_block_has_a_whole_number_of_bytes_as_in_ggml():
    """``GGML_QUANT_SIZES``: bits a value of some types, from the block structures in ggml-common.h."""
    rates = {"Q4_0": 4.5, "Q4_1": 5, "Q5_0": 5.5, "Q5_1": 6, "Q8_0": 8.5, "Q2_K": 2.625, "Q3_K": 3.4375, "Q4_K": 4.5,
             "Q5_K": 5.5, "Q6_K": 6.5625, "IQ4_NL": 4.5, "IQ4_XS": 4.25, "IQ1_S": 1.5625, "IQ2_XXS": 2.0625,
             "IQ3_S": 3.4375, "TQ1_0": 1.6875, "TQ2_0": 2.0625, "MXFP4": 4.25, "NVFP4": 4.5}  # fmt: skip
    for name, rate in rates.items():
        values, nbytes = BLOCKS[f"GGUF_{name}"]
        assert nbytes * 8 / values == rate, name
    assert set(TYPES.values()) == set(BLOCKS)


@pytest.mark.parametrize("version", [2, 3])
def test_both_versions_in_use_are_read(version: int):
    assert not parse(gguf(TENSORS, version=version)).problems


def test_another_alignment_is_obeyed():
    pairs = (*LLAMA, pair("general.alignment", "u32", 4096))
    header = parse(gguf(TENSORS, pairs, alignment=4096))
    assert not header.problems
    assert all(item.begin % 4096 == 0 for item in header.tensors.values())


def test_a_vocabulary_is_stepped_over():
    words = ["word" * (number % 50) for number in range(200_000)]
    header = parse(gguf(TENSORS, (*LLAMA, pair("tokenizer.ggml.tokens", "strings", words))))
    assert not header.problems
    assert "tokenizer.ggml.tokens" not in header.metadata


def test_long_texts_are_not_kept():
    assert "chat" not in parse(gguf(TENSORS, (*LLAMA, pair("chat", "string", "x" * 5000)))).metadata


def head(version: int = 3, tensors: int = 0, keys: int = 0, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + rest


HUGE = 1 << 63
SOUND = gguf(TENSORS)
REFUSED = {
    "empty": (b"", "ends in the magic bytes"),
    "another format": (b"\x80\x02" + bytes(40), "does not begin with GGUF"),
    "version 1": (head(1), "version 1"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "no counts": (head()[:12], "ends in the counts"),
    "hostile tensor count": (head(tensors=HUGE), "declares 9,223,372,036,854,775,808 tensors"),
    "hostile key count": (head(keys=HUGE), "metadata keys; at most"),
    "keys beyond the end": (head(keys=60_000), "ends in the name of metadata key 1"),
    "hostile key length": (head(keys=1, rest=string("a", HUGE)), "at most 65,536"),
    "key beyond the end": (head(keys=1, rest=string("a", 1000)), "1,000 bytes are announced"),
    "key no text": (head(keys=1, rest=string(b"\xff\xfe")), "not UTF-8"),
    "unknown value type": (head(keys=1, rest=string("a") + struct.pack("<I", 99)), "unknown type 99"),
    "value beyond the end": (head(keys=1, rest=string("a") + struct.pack("<I", 10)), "ends in the value of 'a'"),
    "hostile array": (head(keys=1, rest=string("a") + struct.pack("<IIQ", 9, 4, HUGE)), "ends in the value of 'a'"),
    "hostile strings": (head(keys=1, rest=string("a") + struct.pack("<IIQ", 9, 8, HUGE)), "more than 8,388,608"),
    "string lengths": (
        head(keys=1, rest=string("a") + struct.pack("<IIQ", 9, 8, 2) + string("x", HUGE) + bytes(16)),
        "ends in the value of 'a'",
    ),
    "array of arrays": (head(keys=1, rest=string("a") + struct.pack("<IIQ", 9, 9, 1) + bytes(99)), "cannot hold"),
    "dimensions": (head(tensors=1, rest=string("t") + struct.pack("<I", 5) + bytes(99)), "5 dimensions"),
    "hostile dimensions": (head(tensors=1, rest=string("t") + struct.pack("<I", (1 << 32) - 1)), "dimensions"),
    "entries beyond the end": (head(tensors=100_000), "ends in the entry of tensor 1"),
    "alignment of 0": (gguf(TENSORS, (pair("general.alignment", "u32", 0),)), "alignment of 0"),
    "alignment of 24": (gguf(TENSORS, (pair("general.alignment", "u32", 24),)), "alignment of 24"),
    "alignment no number": (gguf(TENSORS, (pair("general.alignment", "string", "x"),)), "alignment of x"),
}


@pytest.mark.parametrize(("raw", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_broken_head_is_refused_in_one_sentence(raw: bytes, message: str):
    header = parse(raw)
    assert not header.tensors
    assert message in header.problems[-1].message
    assert header.problems[-1].severity is Severity.FAIL


def one(name: str = "t.weight", shape: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    """A file of one entry, followed by 256 bytes of data."""
    raw = head(tensors=1, keys=1, rest=LLAMA[0] + entry(name, shape, kind, offset))
    return raw + bytes(-len(raw) % 32) + bytes(256)


WRONG = {
    "unknown type": (one(kind=57), "ggml type 57 is not known"),
    "removed type": (one(kind=31), "ggml type 31 is not known"),
    "no whole blocks": (one(shape=(8, 200), kind=2), "no whole number of GGUF_Q4_0 blocks of 32"),
    "hostile shape": (one(shape=(1 << 40, 1 << 40)), "larger than any memory"),
    "hostile shape of nothing": (one(shape=(1 << 62, 0, 1 << 62)), "larger than any memory"),
    "twice": (gguf([TENSORS[0], TENSORS[0]]), "stands there twice"),
    "hole": (one(offset=64), "64 unused bytes before tensor 't.weight'"),
    "beyond the end": (one(shape=(4096,)), "the file is cut short"),
    "hostile offset": (one(offset=(1 << 64) - 1), "the file is cut short"),
    "no name": (one(name=""), "empty name"),
    "long name": (one(name="x" * 64), "longer than llama.cpp takes"),
    "odd name": (one(name="a\nb"), "control characters"),
    "no architecture": (gguf(TENSORS, ()), "name no architecture"),
    "no tensors": (gguf([]), "holds no tensor"),
    "key twice": (gguf(TENSORS, (*LLAMA, LLAMA[0])), "'general.architecture' stands there twice"),
}


@pytest.mark.parametrize(("raw", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_broken_entry_is_reported(raw: bytes, message: str):
    found = [problem for problem in parse(raw).problems if message in problem.message]
    assert found, messages(raw)
    assert found[0].severity is Severity.FAIL


def test_overlapping_tensors_are_reported():
    raw = head(tensors=2, keys=1, rest=LLAMA[0] + entry("a", (64,), 0, 0) + entry("b", (32,), 0, 128))
    assert "tensors 'a' and 'b' overlap" in messages(raw + bytes(-len(raw) % 32) + bytes(256))


def test_a_file_cut_short_keeps_the_tensors_that_are_whole():
    header = parse(SOUND[:-1000])
    assert "bytes are missing, first in tensor 'blk.0.attn_q.weight'" in header.problems[0].message
    assert list(header.tensors) == ["token_embd.weight", "blk.0.attn_norm.weight"]


def test_bytes_behind_the_last_tensor_are_a_warning():
    (problem,) = parse(SOUND + bytes(64)).problems
    assert problem.severity is Severity.WARN
    assert "64 bytes follow the last tensor" in problem.message


def test_a_missing_file_is_a_problem(tmp_path: Path):
    assert "is missing" in read_gguf(tmp_path / "model.gguf").problems[0].message


@pytest.mark.parametrize(
    ("name", "dense"),
    [
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("output.weight", "lm_head.weight"),
        ("blk.12.attn_q.weight", "model.layers.12.self_attn.q_proj.weight"),
        ("blk.0.attn_output.weight", "model.layers.0.self_attn.o_proj.weight"),
        ("blk.0.ffn_down.weight", "model.layers.0.mlp.down_proj.weight"),
        ("blk.0.ffn_gate_inp.weight", "model.layers.0.mlp.gate.weight"),
        ("blk.0.ffn_down_exps.weight", None),  # llama.cpp stacks the experts
        ("blk.0.attn_qkv.weight", None),
        ("rope_freqs.weight", None),
    ],
)
def test_names_of_an_ordinary_decoder_are_known(name: str, dense: str | None):
    assert dense_name(name) == dense


def test_a_config_says_what_the_file_says_of_itself():
    config = gguf_config({"general.architecture": "qwen3moe", "general.file_type": "15"}, "m.gguf")
    assert config["quantization_config"] == {"quant_method": "gguf", "gguf_file": "m.gguf", "file_type": "Q4_K_M"}
    assert config["architectures"] == ["GGUF qwen3moe"]
    assert "file_type" not in str(gguf_config({"general.file_type": "999"}, "m.gguf"))
    assert gguf_config({"general.quantized_by": "x"}, "m")["quantization_config"]["quantized_by"] == "x"  # type: ignore[index,call-overload]
