"""Strict reader of safetensors headers: it accepts nothing that the safetensors library refuses, and less than that.

What it refuses beyond the library (duplicate names, bytes before the ``{``, control characters in names, a file
without tensors) is against the format's prose or has been used to show a checker one thing and a loader another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from checker.checkpoint.files import Stream, open_regular
from checker.checkpoint.problem import Problem, Refused, Sayer, about, capped, quoted, shown
from checker.checkpoint.strict_json import Malformed, Repeated, parse, walk
from checker.domain import Json, Severity

BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
LARGEST_HEADER = 100_000_000  # bytes, as in the library; not MiB
MOST_DIMENSIONS = 32  # numpy 1's limit; real tensors have at most six
DEEPEST = 100  # of an unknown key's value; serde_json stops at 127
AGAIN = "write the file again with safetensors.save_file"

_KEYS = {"dtype", "shape", "data_offsets"}
_ENTRY = "its entry does not hold dtype, shape and data_offsets"
_SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file it points to", "run 'git lfs pull'"),
    (b"<!doctype html", "an HTML page", "download the file itself, not the page that shows it"),
    (b"<html", "an HTML page", "download the file itself, not the page that shows it"),
    (b"<?xml", "an XML document", "the server answered with an error; download the file again"),
    (b"PK\x03\x04", "a ZIP archive (perhaps a PyTorch pickle)", "convert the weights to safetensors"),
    (b"GGUF", "a GGUF file", "GGUF is not read here; convert the weights to safetensors"),
    (b"\x80\x02", "a pickle", "convert the weights to safetensors"),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"{", "a JSON text without the eight length bytes", AGAIN),
)


class TensorHeader(NamedTuple):
    """One stored tensor: its declared type and shape, and where its bytes are. Checked against the file's size.

    A named tuple, for there may be a hundred thousand of them: a frozen dataclass takes four times as long to make.
    """

    name: str
    dtype: str  # the safetensors code: "BF16", "F8_E4M3", "U8", …
    shape: tuple[int, ...]
    begin: int  # absolute offsets in the file
    end: int
    file: str  # relative to the checkpoint

    @property
    def nbytes(self) -> int:
        """Stored bytes."""
        return self.end - self.begin

    @property
    def numel(self) -> int:
        """Number of elements; 1 for a scalar."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What one file declares. ``tensors`` holds only those that are sound by themselves and wholly in the file."""

    tensors: dict[str, TensorHeader]
    metadata: dict[str, str]
    problems: tuple[Problem, ...]


def read_header(path: Path, name: str | None = None) -> Header:
    """The header of a safetensors file, called ``name`` (its relative path) in problems. Never raises for the file."""
    name = path.name if name is None else name
    return read_opened(open_regular(path, name), name)


def read_opened(opened: AbstractContextManager[tuple[Stream, int]], name: str) -> Header:
    """As ``read_header``, of a file wherever it is, opened on entry."""
    say = about(name)
    try:
        with opened as (stream, size):
            raw = _header_bytes(stream, size, say)
        document = _document(raw, say)
    except Refused as refused:
        return Header(tensors={}, metadata={}, problems=(refused.problem,))
    metadata, problems = _metadata(document, say)
    start = 8 + len(raw)
    tensors, wrong = _tensors(document, name, start)
    problems += wrong
    if not wrong:  # the place of a tensor with an entry that makes no sense would read as a hole
        problems += capped(_layout(tensors, start, size, say))
    problems += _remarks(document, tensors, say)
    inside = {item.name: item for item in tensors if item.end <= size}
    return Header(tensors=inside, metadata=metadata, problems=tuple(problems))


def _header_bytes(stream: Stream, size: int, say: Sayer) -> bytes:
    if size < 8:  # noqa: PLR2004 -- the length prefix
        what = "is empty" if size == 0 else f"has only {size} bytes"
        raise Refused(say(f"the file {what}; a safetensors file begins with eight length bytes", hint=AGAIN))
    prefix = stream.read(8)
    length = int.from_bytes(prefix, "little")
    if length > min(LARGEST_HEADER, size - 8):
        _name_the_impostor(prefix + stream.read(64), say)
        limit = f"the file has {size:,}" if length <= LARGEST_HEADER else f"at most {LARGEST_HEADER:,} are allowed"
        raise Refused(say(f"the file declares a header of {length:,} bytes; {limit}", hint=AGAIN))
    raw = stream.read(length)
    if len(raw) < length:
        raise Refused(say("the file became shorter while it was read", hint="wait until it is written completely"))
    if not raw.startswith(b"{"):
        _name_the_impostor(raw[:64], say)
        what = "a byte-order mark" if raw.startswith(b"\xef\xbb\xbf") else repr(raw[:1].decode("latin-1"))
        what = f"begins with {what}, not with '{{'" if raw else "has no bytes"
        raise Refused(say(f"the header {what}", hint=AGAIN))
    return raw


def _name_the_impostor(head: bytes, say: Sayer) -> None:
    """Say what a file that is no safetensors file is, when its first bytes tell."""
    lowered = head.lstrip().lower()
    for signature, kind, hint in _SIGNATURES:
        if head.startswith(signature) or (signature.startswith(b"<") and lowered.startswith(signature)):
            raise Refused(say(f"the file is {kind}", hint=hint))


def _document(raw: bytes, say: Sayer) -> dict[str, Json]:
    try:
        document = parse(raw, finite=True)
    except Malformed as error:
        raise Refused(say(f"the header {error}", hint=AGAIN)) from None
    assert isinstance(document, dict)  # it begins with a brace
    return document


def _metadata(document: dict[str, Json], say: Sayer) -> tuple[dict[str, str], list[Problem]]:
    metadata = document.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        return {}, [say("__metadata__ is not an object", where="__metadata__", hint=AGAIN)]
    problems = []
    if isinstance(metadata, Repeated):
        message = f"__metadata__ holds the key {quoted(metadata.key)} twice"
        problems.append(say(message, where=metadata.key, hint=AGAIN))
    for key, value in metadata.items():
        if not isinstance(value, str):
            message = f"the metadata value of {quoted(key)} is not a string"
            problems.append(say(message, where=key, hint="metadata maps strings to strings"))
    return {key: value for key, value in metadata.items() if isinstance(value, str)}, problems


def _tensors(document: dict[str, Json], file: str, start: int) -> tuple[list[TensorHeader], list[Problem]]:
    say = about(file)
    tensors = []
    wrong = []
    for name, entry in document.items():
        try:
            dtype, shape, begin, end = _entry(entry)
        except Malformed as error:
            wrong.append(say(f"tensor {quoted(name)}: {error}", where=name, hint=AGAIN))
            continue
        tensors.append(TensorHeader(name, dtype, shape, start + begin, start + end, file))
    return tensors, list(capped(wrong))


def _entry(entry: Json) -> tuple[str, tuple[int, ...], int, int]:
    """The fields of one tensor's entry.

    Raises:
        Malformed: with what is wrong in it.
    """
    try:
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, IndexError):  # no object, or one without these keys
        raise Malformed(_ENTRY) from None
    if isinstance(entry, Repeated):
        raise Malformed(f"its entry holds the key {quoted(entry.key)} twice")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise Malformed(f"unknown dtype {quoted(str(dtype)[:40])}")
    if not _unsigned(shape):
        raise Malformed("its shape is not a list of unsigned 64-bit integers")
    if not _unsigned(offsets) or len(offsets) != 2:  # noqa: PLR2004
        raise Malformed("its data_offsets are not two unsigned 64-bit integers")
    if len(shape) > MOST_DIMENSIONS:
        raise Malformed(f"its shape has {len(shape):,} dimensions")
    begin, end = offsets
    if begin > end:
        raise Malformed(f"its data begin at {begin:,}, after their end at {end:,}")
    dimensions = tuple(shape)
    expected = _stored_size(dtype, dimensions)
    if expected != end - begin:
        message = f"{dtype} of shape {shape} needs {expected:,} bytes, its data_offsets span {end - begin:,}"
        raise Malformed(message)
    return dtype, dimensions, begin, end


@lru_cache(maxsize=4096)  # a model has few distinct shapes
def _stored_size(dtype: str, shape: tuple[int, ...]) -> int:
    """The bytes that type and shape imply.

    Raises:
        Malformed: there is no such size.
    """
    bits = BITS[dtype]
    size = math.prod(shape) * bits
    largest = size or math.prod(length or 1 for length in shape) * bits  # zeros left out: [0, 2^62] is no shape either
    if largest >= 1 << 63:
        raise Malformed("its shape is larger than any memory")
    expected, rest = divmod(size, 8)
    if rest:
        raise Malformed(f"its {math.prod(shape):,} elements of {bits} bits do not fill whole bytes")
    return expected


def _unsigned(value: Json) -> bool:
    if not isinstance(value, list):
        return False
    for item in value:  # noqa: SIM110 -- runs twice per tensor; all() with a generator takes twice the time
        if type(item) is not int or not 0 <= item < 1 << 64:
            return False
    return True


def _layout(tensors: list[TensorHeader], start: int, size: int, say: Sayer) -> Iterator[Problem]:
    """Tensors must fill the file from the header to its last byte, in any order, without hole or overlap."""
    reached, before = start, None
    for item in sorted(tensors, key=attrgetter("begin", "end")):
        if item.begin < reached and before is not None:
            both = f"{quoted(before.name)} and {quoted(item.name)}"
            yield say(f"tensors {both} overlap at byte {item.begin:,} of the file", where=item.name, hint=AGAIN)
        elif item.begin > reached:
            message = f"{item.begin - reached:,} unused bytes before tensor {quoted(item.name)}"
            yield say(message, where=item.name, hint=AGAIN)
        if item.end >= reached:
            reached, before = item.end, item
    if reached > size:
        cut = next(item for item in tensors if item.end > size)
        message = f"the file is cut short: {reached - size:,} bytes are missing, first in tensor {quoted(cut.name)}"
        yield say(message, where=cut.name, hint="download or copy the file again")
    elif reached < size:
        message = f"{size - reached:,} bytes follow the last tensor; another format may hide there"
        yield say(message, hint=AGAIN)


def _remarks(document: dict[str, Json], tensors: list[TensorHeader], say: Sayer) -> Iterator[Problem]:
    """What is wrong besides layout: names, unknown keys, a file with nothing in it, tensors with nothing in them."""
    if isinstance(document, Repeated):
        message = f"the header holds {quoted(document.key)} twice; which one is loaded depends on the reader"
        yield say(message, where=document.key, hint=AGAIN)
    if not document:
        yield say("the file holds no tensor", hint=AGAIN)
    yield from capped(_odd_names(document, say))
    yield from capped(_odd_entries(document, say))
    hollow = [item.name for item in tensors if not item.nbytes]
    if hollow:
        message = f"{len(hollow):,} tensors without elements share an offset with others, first {quoted(hollow[0])}"
        yield say(message, where=hollow[0], severity=Severity.WARN, hint="leave empty tensors out of the file")


def _odd_names(document: dict[str, Json], say: Sayer) -> Iterator[Problem]:
    for name in document:
        if not name:
            yield say("a tensor has an empty name", hint=AGAIN)
        elif not name.isprintable() or "::" in name or "##[" in name:
            message = f"tensor name {quoted(name)} holds control characters or a workflow command"
            yield say(message, where=name, hint="no parameter of a model has such a name; do not trust this file")


def _odd_entries(document: dict[str, Json], say: Sayer) -> Iterator[Problem]:
    for name, entry in document.items():
        if isinstance(entry, dict) and len(entry) > len(_KEYS):
            unknown = ", ".join(sorted(shown(key) for key in entry if key not in _KEYS)[:5])
            deep = any(depth > DEEPEST for _, depth, _ in walk(entry))
            message = f"tensor {quoted(name)}: unknown keys in its entry: {unknown}"
            if deep:
                message = f"tensor {quoted(name)}: its entry is nested too deeply"
            yield say(message, where=name, severity=Severity.FAIL if deep else Severity.WARN, hint=AGAIN)
