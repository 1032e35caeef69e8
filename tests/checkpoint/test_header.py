"""The header reader against the corpus of malformed containers (rows S01 to S35)."""

from __future__ import annotations

import errno
import json
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from raw_files import container, entry, healthy, library_refusal, packed

from checker.checkpoint import Header, header, read_header, strict_json
from checker.checkpoint.header import BITS
from checker.domain import Severity

A = entry("U8", [4], 0, 4)
B = entry("U8", [4], 4, 8)
DEEP = b"[" * 100_000 + b"]" * 100_000
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n"
HTML = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"


def raw_entry(field: str, value: bytes) -> bytes:
    """A header of one tensor ``a`` in which one field is given as raw JSON text."""
    fields = {"dtype": b'"U8"', "shape": b"[4]", "data_offsets": b"[0,4]", field: value}
    text = b",".join(b'"%s":%s' % (key.encode(), item) for key, item in fields.items())
    return container(b'{"a":{%s}}' % text, bytes(4))


@dataclass(frozen=True)
class Row:
    raw: bytes
    says: str
    where: str = ""
    severity: Severity = Severity.FAIL
    stricter: bool = False  # the library accepts it


ROWS = {
    "S01-empty-file": Row(b"", "is empty"),
    "S02-three-bytes": Row(b"abc", "only 3 bytes"),
    "S03-header-length-0": Row(container(b"", b"1234"), "no bytes"),
    "S04-header-longer-than-file": Row(container({"a": A}, b"1234", length=5_000), "declares a header of 5,000 bytes"),
    "S05-header-over-the-cap": Row(container({}, length=100_000_001), "at most 100,000,000"),
    "S06-header-length-2^64-1": Row(container({}, length=2**64 - 1), "declares a header of"),
    "S07-not-utf8": Row(container(b'{"\xff":{}}'), "not UTF-8"),
    "S08-html": Row(HTML, "an HTML page"),
    "S08-html-as-header": Row(container(HTML), "an HTML page"),
    "S08-lfs-pointer": Row(LFS, "a Git LFS pointer"),
    "S08-text": Row(b"Entry not found", "declares a header of"),
    "S08-json-error": Row(b'{"error":"Repository not found"}', "JSON text without the eight length bytes"),
    "S08-zip-pickle": Row(b"PK\x03\x04" + bytes(60), "ZIP"),
    "S08-gguf": Row(b"GGUF\x03\x00\x00\x00" + bytes(60), "GGUF"),
    "S08-gzip": Row(b"\x1f\x8b\x08\x08\xff\xff\xff\xff" + bytes(9), "gzip"),
    "S09-array": Row(container([1, 2]), "begins with '['"),
    "S10-byte-order-mark": Row(container(b"\xef\xbb\xbf{}"), "byte-order mark"),
    "S11-leading-spaces": Row(container(b"  " + json.dumps({"a": A}).encode(), bytes(4)), "' '", stricter=True),
    "S12-duplicate-tensor": Row(
        container(b'{"a":%s,"a":%s}' % (json.dumps(A).encode(), json.dumps(B).encode()), bytes(8)), "'a' twice", "a"
    ),
    "S12-duplicate-tensor-same": Row(
        container(b'{"a":%s,"a":%s}' % (2 * (json.dumps(A).encode(),)), bytes(4)), "'a' twice", "a", stricter=True
    ),
    "S13-duplicate-dtype": Row(raw_entry('dtype":"F32","dtype', b'"U8"'), "'dtype' twice", "a"),
    "S14-duplicate-metadata": Row(
        container(b'{"__metadata__":{"k":"1","k":"2"},"a":%s}' % json.dumps(A).encode(), bytes(4)),
        "'k' twice",
        "k",
        stricter=True,
    ),
    "S14-metadata-twice": Row(
        container(b'{"__metadata__":{},"__metadata__":{},"a":%s}' % json.dumps(A).encode(), bytes(4)),
        "twice",
        "__metadata__",
    ),
    "S15-number-in-metadata": Row(
        container({"__metadata__": {"k": 1}, "a": A}, bytes(4)), "value of 'k' is not a string", "k"
    ),
    "S15-metadata-is-a-list": Row(container({"__metadata__": [], "a": A}, bytes(4)), "not an object", "__metadata__"),
    "S16-unknown-key": Row(
        container({"a": {**A, "extra": 1}}, bytes(4)), "unknown keys", "a", severity=Severity.WARN, stricter=True
    ),
    "S17-unknown-dtype": Row(raw_entry("dtype", b'"F31"'), "unknown dtype 'F31'", "a"),
    "S17-lower-case-dtype": Row(raw_entry("dtype", b'"u8"'), "unknown dtype 'u8'", "a"),
    "S17-dtype-a-list": Row(raw_entry("dtype", b'["U8"]'), "unknown dtype", "a"),
    "S17-no-dtype": Row(container({"a": {"shape": [4], "data_offsets": [0, 4]}}, bytes(4)), "does not hold", "a"),
    "S17-entry-a-list": Row(container({"a": ["U8", [4], [0, 4]]}, bytes(4)), "does not hold", "a", stricter=True),
    "S18-negative-offset": Row(raw_entry("data_offsets", b"[-4,0]"), "unsigned", "a"),
    "S18-minus-zero": Row(raw_entry("data_offsets", b"[-0,4]"), "unsigned", "a"),
    "S19-float-offset": Row(raw_entry("data_offsets", b"[0.0,4.0]"), "unsigned", "a"),
    "S19-boolean-in-shape": Row(raw_entry("shape", b"[4,true]"), "unsigned", "a"),
    "S20-offset-2^70": Row(raw_entry("data_offsets", b"[0,1180591620717411303424]"), "unsigned", "a"),
    "S19-shape-a-string": Row(raw_entry("shape", b'"4"'), "unsigned", "a"),
    "S20-three-offsets": Row(raw_entry("data_offsets", b"[0,4,8]"), "not two", "a"),
    "S20-5000-digits": Row(raw_entry("data_offsets", b"[0,%s]" % (b"9" * 5_000)), "5,000 digits"),
    "S21-same-range": Row(container({"a": A, "b": A}, bytes(4)), "'a' and 'b' overlap", "b"),
    "S22-partial-overlap": Row(container({"a": A, "b": entry("U8", [4], 2, 6)}, bytes(6)), "'a' and 'b' overlap", "b"),
    "S23-hole-between": Row(container({"a": A, "b": entry("U8", [4], 6, 10)}, bytes(10)), "2 unused bytes before", "b"),
    "S23-hole-at-start": Row(container({"a": entry("U8", [4], 3, 7)}, bytes(7)), "3 unused bytes before", "a"),
    "S24-zip-at-the-end": Row(healthy("a") + b"PK\x05\x06" + bytes(18), "22 bytes follow"),
    "S25-data-cut": Row(healthy("a", "b")[:-3], "3 bytes are missing, first in tensor 'b'", "b"),
    "S26-begin-after-end": Row(raw_entry("data_offsets", b"[4,0]"), "after their end", "a"),
    "S27-shape-too-large": Row(raw_entry("shape", b"[5]"), "needs 5 bytes, its data_offsets span 4", "a"),
    "S28-shape-overflow": Row(raw_entry("shape", b"[4294967296,4294967296,4]"), "larger than any memory", "a"),
    "S28-overflow-hidden-by-0": Row(
        container({"a": entry("F32", [0, 2**62], 0, 0)}), "larger than any memory", "a", stricter=True
    ),
    "S28-1000-dimensions": Row(
        raw_entry("shape", json.dumps([1] * 999 + [4]).encode()), "1,000 dimensions", "a", stricter=True
    ),
    "S30-empty-tensor": Row(
        container({"a": A, "e": entry("F32", [0, 8], 4, 4), "b": B}, bytes(8)),
        "without elements",
        "e",
        severity=Severity.WARN,
        stricter=True,
    ),
    "S30-empty-tensor-inside": Row(container({"a": A, "e": entry("U8", [0], 2, 2)}, bytes(4)), "overlap", "e"),
    "S31-odd-4-bit": Row(container({"a": entry("F4", [3], 0, 2)}, bytes(2)), "whole bytes", "a"),
    "S31-odd-6-bit": Row(container({"a": entry("F6_E3M2", [2], 0, 2)}, bytes(2)), "whole bytes", "a"),
    "S32-deep": Row(container(b'{"a":%s}' % DEEP), "nested too deeply"),
    "S32-deep-in-unknown-key": Row(raw_entry("x", b"[" * 300 + b"]" * 300), "nested too deeply", "a"),
    "S33-no-tensor": Row(container({}), "no tensor", stricter=True),
    "S33-only-metadata": Row(container({"__metadata__": {"format": "pt"}}), "no tensor", stricter=True),
    "S34-nul": Row(healthy("a\0b"), "'a\\x00b'", "a\\x00b", stricter=True),
    "S34-escape": Row(healthy("\x1b[31m"), "\\x1b", "\\x1b[31m", stricter=True),
    "S34-newline": Row(healthy("a\n::error::x"), "a\\n::error::x", "a\\n::error::x", stricter=True),
    "S34-command": Row(healthy("##[error]x"), "workflow command", "##[error]x", stricter=True),
    "S34-right-to-left": Row(healthy("a\u202eb"), "\\u202e", "a\\u202eb", stricter=True),
    "S35-empty-name": Row(healthy(""), "empty name", stricter=True),
    "S39-long-fraction": Row(raw_entry("x", b"0.%s" % (b"1" * 5_000)), "5,002 digits", stricter=True),
    "S39-nan-literal": Row(raw_entry("x", b"NaN"), "not finite"),
    "S39-infinite-float": Row(raw_entry("x", b"1e999"), "not finite"),
    "S39-lone-surrogate": Row(container(b'{"\\ud800":{}}'), "surrogate"),
    "S39-lone-surrogate-in-key": Row(raw_entry("\\ud800", b"1"), "surrogate"),
    "S39-text-after-object": Row(container(b"{}x"), "not valid JSON"),
    "S39-control-character": Row(container(b'{"a\x01":{}}'), "not valid JSON"),
    "S40-memory-bomb": Row(container(b'{"a":[%s[]]}' % (b"[]," * 2_000_001)), "more than 2,000,000 values"),
}


def read(raw: bytes, tmp_path: Any) -> Header:
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw)
    return read_header(path)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_a_malformed_file_is_a_problem_that_names_it(row, tmp_path):
    problems = read(row.raw, tmp_path).problems

    [problem] = [problem for problem in problems if row.says in problem.message]
    assert problem.severity is row.severity
    assert problem.file == "model.safetensors"
    assert problem.where == row.where
    assert problem.hint
    assert problem.message.isprintable()
    assert max(len(problem.message), len(problem.where)) < 500


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_the_library_accepts_only_what_is_marked_as_stricter(row, tmp_path):
    assert (library_refusal(row.raw, tmp_path / "x.safetensors") is None) == row.stricter


@pytest.mark.exact
def test_every_type_of_the_library_is_read_without_a_problem(tmp_path):
    header = packed({f"layer.{code}": (code, [2, 4]) for code in BITS} | {"scalar": ("F32", [])})
    raw = container({"__metadata__": {"format": "pt"}, **header}, bytes(sum(BITS.values()) + 4))

    assert library_refusal(raw, tmp_path / "x.safetensors") is None
    read_back = read(raw, tmp_path)
    assert read_back.problems == ()
    assert read_back.metadata == {"format": "pt"}
    assert {item.name: item.dtype for item in read_back.tensors.values()} == {
        **{f"layer.{code}": code for code in BITS},
        "scalar": "F32",
    }
    assert all(item.nbytes * 8 == item.numel * BITS[item.dtype] for item in read_back.tensors.values())
    assert read_back.tensors["scalar"].numel == 1


@pytest.mark.parametrize(
    "raw",
    [
        container(json.dumps({"a": A}).encode() + b" \n", bytes(4)),
        container({"b": B, "a": A}, bytes(8)),
        container({"\N{GRINNING FACE} é 層.weight": A}, bytes(4)),
        container(b'{"\\ud83d\\ude00 \\u00e9":%s}' % json.dumps(A).encode(), bytes(4)),
    ],
    ids=["padded-header", "names-not-in-file-order", "names-beyond-ascii", "escaped-surrogate-pair"],
)
def test_unusual_but_sound_files_have_no_problem(raw, tmp_path):
    assert library_refusal(raw, tmp_path / "x.safetensors") is None
    assert read(raw, tmp_path).problems == ()


def test_sound_tensors_of_a_broken_file_are_still_known(tmp_path):
    found = read(
        container({"a": A, "bad": entry("F31", [4], 4, 8), "cut": entry("U8", [99], 8, 107)}, bytes(8)), tmp_path
    )

    assert [*found.tensors] == ["a"]
    assert {problem.where for problem in found.problems} == {"bad"}


def test_a_thousand_faults_are_counted_and_not_listed(tmp_path):
    found = read(container({f"t{i}": entry("F31", [4], 0, 4) for i in range(1_000)}, bytes(4)), tmp_path)

    assert len(found.problems) == 21
    assert found.problems[-1].message.startswith("980 more problems")


def test_a_name_without_end_is_shown_in_part(tmp_path):
    [problem] = read(healthy("\n" * 50_000), tmp_path).problems

    assert len(problem.message) < 1_000


@pytest.mark.parametrize("size", [0, 11], ids=["before-the-header", "within-the-header"])
def test_a_file_cut_while_it_is_read(size, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    path.write_bytes(healthy("a"))
    length = path.stat().st_size

    @contextmanager
    def opened(path, name):
        os.truncate(path, size)
        with path.open("rb") as stream:
            yield stream, length

    monkeypatch.setattr(header, "open_regular", opened)
    [problem] = read_header(path).problems
    assert problem.severity is Severity.FAIL


def test_a_disk_that_fails_while_it_is_read(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(header, "_header_bytes", fail)
    [problem] = read(healthy("a"), tmp_path).problems
    assert "cannot be read: input/output error" in problem.message


def test_text_beyond_ascii_is_bounded_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(strict_json, "LARGEST_BEYOND_ASCII", 1_000)

    assert read(healthy("a" * 1_000), tmp_path).problems == ()
    [problem] = read(container(b'{"%s":1}' % ("é".encode() * 1_000)), tmp_path).problems
    assert "must be ASCII" in problem.message


def test_time_is_linear_in_the_number_of_tensors(tmp_path):
    def seconds(count: int) -> float:
        path = tmp_path / f"{count}.safetensors"
        names = (f"model.layers.{i // 14}.mlp.experts.{i % 14}.down_proj.weight" for i in range(count))
        path.write_bytes(container(packed(dict.fromkeys(names, ("U8", [4, 1]))), bytes(4 * count)))
        best = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            assert len(read_header(path).tensors) == count
            best = min(best, time.perf_counter() - start)
        return best

    assert seconds(90_000) < 45 * 4 * max(seconds(2_000), 0.002)  # 45 times the tensors; 4 for caches and neighbours
