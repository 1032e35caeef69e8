"""Strict reader of GGUF headers: llama.cpp's format, where one file holds the weights and all that else is in JSON.

Written after ``gguf_init_from_file_impl`` in llama.cpp/ggml/src/gguf.cpp, which refuses what is refused here: counts
and strings that run past the end, unknown types, tensors that are not stored one after the other. Little is read and
nothing is allocated before it is known to be in the file; the vocabulary is stepped over.

Layout: "GGUF", version (u32), number of tensors and of metadata keys (u64), the keys with typed values, one entry a
tensor (name, dimensions with the fastest first, type, offset), then at a multiple of the alignment the data.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from checker.checkpoint.files import open_regular
from checker.checkpoint.gguf_cursor import Cursor, Fetch
from checker.checkpoint.gguf_types import BLOCKS, TYPES, dense_name, gguf_config
from checker.checkpoint.header import Header, TensorHeader
from checker.checkpoint.problem import Problem, Refused, Sayer, about, capped, quoted, shown
from checker.checkpoint.strict_json import Malformed
from checker.domain import Severity

__all__ = ["dense_name", "gguf_config", "parse_gguf", "read_gguf"]

MAGIC = b"GGUF"
VERSIONS = (2, 3)  # version 1 counted in 32 bits; no file of it is left
MOST_KEYS = 1 << 16  # real files have some dozens
MOST_TENSORS = 1 << 20  # real files have a few thousand
MOST_ITEMS = 1 << 23  # strings in all arrays together; the largest vocabularies have 262,144 words
LONGEST_NAME = 1 << 16  # bytes; llama.cpp takes keys of any length, tensor names of 63 bytes
LONGEST_TENSOR_NAME = 63  # GGML_MAX_NAME without its closing zero
LONGEST_KEPT = 1 << 10  # bytes of a string value that is kept
MOST_DIMENSIONS = 4
ALIGNMENT = 32  # bytes, unless general.alignment says otherwise
AGAIN = "convert and quantize the model again, or download the file again"

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class _Entry:
    """One tensor as its entry declares it; the offset counts from the beginning of the data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


def read_gguf(path: Path, name: str | None = None) -> Header:
    """The header of a GGUF file, called ``name`` (its relative path) in problems. Never raises for the file."""
    name = path.name if name is None else name
    try:
        with open_regular(path, name) as (stream, size):

            def fetch(begin: int, end: int) -> bytes:
                stream.seek(begin)
                return stream.read(end - begin)

            return parse_gguf(fetch, size, name)
    except Refused as refused:
        return Header(tensors={}, metadata={}, problems=(refused.problem,))


def parse_gguf(fetch: Fetch, size: int, name: str) -> Header:
    """The header of a GGUF file of ``size`` bytes, of which ``fetch(begin, end)`` reads some.

    ``tensors`` have llama.cpp's names; their dtype is a safetensors code, or ``GGUF_`` and the block type
    (``GGUF_Q4_K``); their shape has the fastest dimension last, as everywhere else. ``metadata``: the scalar values,
    as text.
    """
    say = about(name)
    cursor = Cursor(fetch, size)
    metadata: dict[str, str] = {}
    problems: list[Problem] = []
    try:
        tensor_count, key_count = _counts(cursor)
        metadata = _metadata(cursor, key_count, problems, say)
        entries, wrong = _entries(cursor, tensor_count, say)
        start = _data_start(cursor.position, metadata)
    except Malformed as error:
        return Header(tensors={}, metadata=metadata, problems=(*problems, say(f"the file {error}", hint=AGAIN)))
    problems += capped(wrong)
    if not wrong:  # the place of a tensor of unknown size would read as a hole
        problems += capped(_layout(entries, start, size, _alignment(metadata), say))
    problems += _remarks(entries, metadata, say)
    tensors = {
        item.name: TensorHeader(
            name=item.name,
            dtype=item.dtype,
            shape=item.shape,
            begin=start + item.offset,
            end=start + item.offset + item.nbytes,
            file=name,
        )
        for item in entries
        if start + item.offset + item.nbytes <= size
    }
    return Header(tensors=tensors, metadata=metadata, problems=tuple(problems))


def _counts(cursor: Cursor) -> tuple[int, int]:
    """The numbers of tensors and of metadata keys.

    Raises:
        Malformed: this is no GGUF file of a version that is still in use, or the counts are beyond any real file.
    """
    if cursor.take(4, "the magic bytes") != MAGIC:
        raise Malformed("does not begin with GGUF; it is of another format")
    (version,) = struct.unpack("<I", cursor.take(4, "the version"))
    if version not in VERSIONS:
        if int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS:
            raise Malformed("is a big-endian GGUF file, which no little-endian machine loads")
        raise Malformed(f"is GGUF version {version}; versions 2 and 3 are in use")
    tensors, keys = struct.unpack("<QQ", cursor.take(16, "the counts"))
    if tensors > MOST_TENSORS:
        raise Malformed(f"declares {tensors:,} tensors; at most {MOST_TENSORS:,} are read")
    if keys > MOST_KEYS:
        raise Malformed(f"declares {keys:,} metadata keys; at most {MOST_KEYS:,} are read")
    return tensors, keys


def _metadata(cursor: Cursor, count: int, problems: list[Problem], say: Sayer) -> dict[str, str]:
    """Scalar values and short strings by key, as text; the values of arrays are stepped over."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    budget = [MOST_ITEMS]
    for number in range(count):
        key = _string(cursor, f"the name of metadata key {number + 1:,}")
        (kind,) = struct.unpack("<I", cursor.take(4, f"the type of {quoted(key)}"))
        value = _value(cursor, kind, key, budget)
        if key in seen:
            problems.append(say(f"the metadata key {quoted(key)} stands there twice", where=key, hint=AGAIN))
        seen.add(key)
        if value is not None and key.isprintable():
            found[key] = value
    return found


def _value(cursor: Cursor, kind: int, key: str, budget: list[int]) -> str | None:
    """One value as text, None for an array or a long string.

    Raises:
        Malformed: an unknown type, or more of it than the file holds.
    """
    what = f"the value of {quoted(key)}"
    if kind in _SCALARS:
        code = "<" + _SCALARS[kind]
        value = struct.unpack(code, cursor.take(struct.calcsize(code), what))[0]
        return str(value).lower() if isinstance(value, bool) else str(value)
    if kind == _STRING:
        (length,) = struct.unpack("<Q", cursor.take(8, what))
        if length > LONGEST_KEPT:
            cursor.skip(length, what)
            return None
        return cursor.take(length, what).decode("utf-8", "replace")
    if kind != _ARRAY:
        raise Malformed(f"gives {quoted(key)} the unknown type {kind}")
    item, count = struct.unpack("<IQ", cursor.take(12, what))
    if item in _SCALARS:
        cursor.skip(count * struct.calcsize("<" + _SCALARS[item]), what)
    elif item == _STRING:
        budget[0] -= count
        if budget[0] < 0:
            raise Malformed(f"holds more than {MOST_ITEMS:,} strings in its metadata")
        cursor.skip_strings(count, what)
    else:
        raise Malformed(f"makes {quoted(key)} an array of the type {item}, which arrays cannot hold")
    return None


def _string(cursor: Cursor, what: str) -> str:
    (length,) = struct.unpack("<Q", cursor.take(8, what))
    if length > LONGEST_NAME:
        raise Malformed(f"gives {what} {length:,} bytes; at most {LONGEST_NAME:,} are read")
    try:
        return cursor.take(length, what).decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed(f"holds {what}, which is not UTF-8") from None


def _entries(cursor: Cursor, count: int, say: Sayer) -> tuple[list[_Entry], list[Problem]]:
    """The tensors that are sound by themselves, and what is wrong with the others."""
    found: list[_Entry] = []
    wrong: list[Problem] = []
    seen: set[str] = set()
    for number in range(count):
        what = f"the entry of tensor {number + 1:,}"
        name = _string(cursor, what)
        (dimensions,) = struct.unpack("<I", cursor.take(4, what))
        if dimensions > MOST_DIMENSIONS:
            raise Malformed(f"gives tensor {quoted(name)} {dimensions:,} dimensions; ggml has {MOST_DIMENSIONS}")
        shape = struct.unpack(f"<{dimensions}Q", cursor.take(8 * dimensions, what))[::-1]
        kind, offset = struct.unpack("<IQ", cursor.take(12, what))
        try:
            if name in seen:
                raise Malformed("stands there twice")
            seen.add(name)
            dtype, nbytes = _stored(kind, shape)
            found.append(_Entry(name, dtype, shape, offset, nbytes))
        except Malformed as error:
            wrong.append(say(f"tensor {quoted(name)}: {error}", where=name, hint=AGAIN))
    return found, wrong


def _stored(kind: int, shape: tuple[int, ...]) -> tuple[str, int]:
    """The dtype and the bytes of a tensor.

    Raises:
        Malformed: its type is not known, or its rows are no whole number of blocks.
    """
    if kind not in TYPES:
        raise Malformed(f"ggml type {kind} is not known")
    dtype = TYPES[kind]
    values, nbytes = BLOCKS[dtype]
    if shape and shape[-1] % values:
        raise Malformed(f"rows of {shape[-1]:,} values are no whole number of {dtype} blocks of {values}")
    if math.prod(length or 1 for length in shape) * nbytes >= 1 << 63:
        raise Malformed("its shape is larger than any memory")
    return dtype, math.prod(shape) // values * nbytes if values > 1 else math.prod(shape) * nbytes


def _alignment(metadata: Mapping[str, str]) -> int:
    """The alignment of the data, in bytes.

    Raises:
        Malformed: it is no power of two.
    """
    text = metadata.get("general.alignment", str(ALIGNMENT))
    value = int(text) if text.isdecimal() else 0
    if not 0 < value < 1 << 32 or value & (value - 1):
        raise Malformed(f"declares an alignment of {shown(text)}; it must be a power of two")
    return value


def _data_start(reached: int, metadata: Mapping[str, str]) -> int:
    return _padded(reached, _alignment(metadata))


def _padded(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def _layout(entries: list[_Entry], start: int, size: int, alignment: int, say: Sayer) -> Iterator[Problem]:
    """Tensors follow each other in the order of their entries, each at the next multiple of the alignment."""
    reached = 0
    before = ""
    for item in entries:
        if item.offset < reached:
            both = f"{quoted(before)} and {quoted(item.name)}" if before else quoted(item.name)
            yield say(f"tensors {both} overlap at byte {start + item.offset:,}", where=item.name, hint=AGAIN)
        elif item.offset > reached:
            message = f"{item.offset - reached:,} unused bytes before tensor {quoted(item.name)}"
            yield say(message, where=item.name, hint=AGAIN)
        before = item.name
        reached = max(reached, _padded(item.offset + item.nbytes, alignment))
    end = max((item.offset + item.nbytes for item in entries), default=0)
    if start + end > size:
        cut = next(item for item in entries if start + item.offset + item.nbytes > size)
        missing = start + end - size
        message = f"the file is cut short: {missing:,} bytes are missing, first in tensor {quoted(cut.name)}"
        yield say(message, where=cut.name, hint="download or copy the file again")
    elif entries and start + reached < size:
        message = f"{size - start - reached:,} bytes follow the last tensor; llama.cpp does not look at them"
        yield say(message, severity=Severity.WARN, hint=AGAIN)


def _remarks(entries: list[_Entry], metadata: Mapping[str, str], say: Sayer) -> Iterator[Problem]:
    """What is wrong besides layout: no architecture, no tensors, odd names."""
    if "general.architecture" not in metadata:
        yield say("the metadata name no architecture", where="general.architecture", hint=AGAIN)
    if not entries:
        yield say("the file holds no tensor", hint="name the file that holds the weights, not a vocabulary")
    yield from capped(_odd_names(entries, say))
    hollow = [item.name for item in entries if not item.nbytes]
    if hollow:
        message = f"{len(hollow):,} tensors have no elements, first {quoted(hollow[0])}"
        yield say(message, where=hollow[0], severity=Severity.WARN, hint=AGAIN)


def _odd_names(entries: list[_Entry], say: Sayer) -> Iterator[Problem]:
    for item in entries:
        if len(item.name.encode()) > LONGEST_TENSOR_NAME:
            message = f"the name {quoted(item.name)} is longer than llama.cpp takes ({LONGEST_TENSOR_NAME} bytes)"
            yield say(message, where=item.name, hint=AGAIN)
        if not item.name:
            yield say("a tensor has an empty name", hint=AGAIN)
        elif not item.name.isprintable() or "::" in item.name or "##[" in item.name:
            message = f"tensor name {quoted(item.name)} holds control characters or a workflow command"
            yield say(message, where=item.name, hint="no parameter of a model has such a name; do not trust this file")
