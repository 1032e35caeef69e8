"""Damaged GGUF headers: never an exception, never long, never a tensor outside the file."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st
from raw_gguf import LLAMA, gguf, pair

from checker.checkpoint.gguf import parse_gguf

PAIRS = (*LLAMA, pair("x.flag", "bool", value=True), pair("tokenizer.ggml.tokens", "strings", ["a", "bc", ""]))
SOUND = gguf([("token_embd.weight", "GGUF_Q4_0", (8, 32)), ("n", "F32", (8,)), ("q", "GGUF_Q6_K", (2, 256))], PAIRS)
HEAD = SOUND.index(b"token_embd") + 200


def check(raw: bytes) -> None:
    began = time.monotonic()
    header = parse_gguf(lambda begin, end: raw[begin:end], len(raw), "model.gguf")
    assert time.monotonic() - began < 10
    for item in header.tensors.values():
        assert 0 <= item.begin <= item.end <= len(raw)
    assert header.tensors or header.problems


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_behind_the_magic(raw: bytes) -> None:
    check(b"GGUF" + raw)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(st.integers(0, HEAD), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 2000))
def test_a_sound_file_with_bytes_changed_and_cut(changes: list[tuple[int, int]], cut: int) -> None:
    raw = bytearray(SOUND)
    for place, value in changes:
        raw[place] = value
    check(bytes(raw[: len(raw) - cut]))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, HEAD), st.sampled_from([1 << 16, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]))
def test_huge_numbers_anywhere(place: int, value: int) -> None:
    check(SOUND[:place] + value.to_bytes(8, "little") + SOUND[place + 8 :])
