"""Differential fuzz: no mutated file is accepted here that the safetensors library refuses."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_files import container, entry, library_refusal, packed

from checker.checkpoint import read_header
from checker.checkpoint.header import BITS
from checker.domain import Severity

BOUNDED = settings(
    max_examples=200,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
BASE = {
    "__metadata__": {"format": "pt"},
    **packed({"a.weight": ("F16", [2, 3]), "b.weight": ("F4", [4]), "c.bias": ("I64", []), "d": ("BF16", [0])}),
}
DATA = bytes(12 + 2 + 8)
SCRAPS = [
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u0000", b"\\ud800", b"\\ud83d\\ude00", b"\xff", b"\0", b" "),
    *(
        b"-0",
        b"-1",
        b"1.0",
        b"1e3",
        b"1E400",
        b"00",
        b"01",
        b"NaN",
        b"Infinity",
        b"true",
        b"null",
        b"18446744073709551616",
    ),
    *(b'"dtype":"U8",', b'"x":1,', b'"__metadata__":{},', b'"a.weight":', b"[0,12]", b"\xef\xbb\xbf", b"\n", b"\x0b"),
]
NUMBERS = st.one_of(
    st.integers(0, 30),
    st.sampled_from([-1, 2**31, 2**32, 2**62, 2**63, 2**64 - 1, 2**64, 2**70, 1.0, 1.5, True, None, "4"]),
)


def accepts(path) -> bool:
    return not any(problem.severity is Severity.FAIL for problem in read_header(path).problems)


def assert_not_laxer(raw: bytes, folder) -> None:
    path = folder / "model.safetensors"
    refusal = library_refusal(raw, path)
    assert refusal is None or not accepts(path), f"accepted, but the library says: {refusal}"


@st.composite
def edited_bytes(draw) -> bytes:
    """A sound file in which a few bytes were replaced, inserted or removed; the length prefix follows, mostly."""
    raw = bytearray(json.dumps(BASE, separators=(",", ":")).encode())
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(raw)))
        width = draw(st.integers(0, 4))
        raw[place : place + width] = draw(st.one_of(st.sampled_from(SCRAPS), st.binary(max_size=2)))
    length = draw(st.sampled_from([None] * 8 + [0, len(raw) - 1, len(raw) + 1]))
    cut = draw(st.sampled_from([0] * 8 + [1, 22]))
    return container(bytes(raw), DATA[cut:] + draw(st.sampled_from([b""] * 8 + [b"PK"])), length=length)


@st.composite
def edited_fields(draw) -> bytes:
    """A valid JSON header whose fields make no sense together."""
    header: dict[str, object] = {}
    for name in draw(st.lists(st.sampled_from(["a", "b", "c", "__metadata__", ""]), max_size=4, unique=True)):
        shape = draw(st.lists(NUMBERS, max_size=3))
        dtype = draw(st.sampled_from([*BITS, "F31", "u8"]))
        more = draw(st.sampled_from([{}, {}, {"x": [[]]}]))
        header[name] = entry(dtype, shape, draw(NUMBERS), draw(NUMBERS), **more)
    return container(header, bytes(draw(st.integers(0, 40))))


@st.composite
def arranged(draw) -> bytes:
    """Tensors that fill the file, of which one may be moved, stretched or retyped."""
    shapes = draw(st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=4))
    header = packed({f"t{i}": (draw(st.sampled_from([*BITS])), shape) for i, shape in enumerate(shapes)})
    size = max(item["data_offsets"][1] for item in header.values())
    victim = header[draw(st.sampled_from([*header]))]
    change = draw(st.integers(-2, 2))
    match draw(st.sampled_from(["none", "begin", "end", "both", "dtype"])):
        case "begin":
            victim["data_offsets"][0] += change
        case "end":
            victim["data_offsets"][1] += change
        case "both":
            victim["data_offsets"] = [offset + change for offset in victim["data_offsets"]]
        case "dtype":
            victim["dtype"] = draw(st.sampled_from([*BITS]))
    items = draw(st.permutations([*header.items()]))
    return container(dict(items), bytes(max(0, size + draw(st.sampled_from([0, 0, 0, -1, 1])))))


@pytest.mark.exact
@BOUNDED
@given(raw=edited_bytes())
def test_edited_bytes(raw, tmp_path):
    assert_not_laxer(raw, tmp_path)


@BOUNDED
@given(raw=edited_fields())
def test_edited_fields(raw, tmp_path):
    assert_not_laxer(raw, tmp_path)


@pytest.mark.exact
@BOUNDED
@given(raw=arranged())
def test_arranged_tensors(raw, tmp_path):
    assert_not_laxer(raw, tmp_path)


@BOUNDED
@given(raw=st.binary(max_size=64))
def test_any_bytes(raw, tmp_path):
    assert_not_laxer(raw, tmp_path)
