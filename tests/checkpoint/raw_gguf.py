"""GGUF files made byte by byte, for what llama.cpp would not write."""

from __future__ import annotations

import math
import struct
from typing import Any

from checker.checkpoint.gguf_types import BLOCKS, TYPES

KINDS = {name: number for number, name in TYPES.items()}
SCALARS = {"u8": (0, "B"), "i8": (1, "b"), "u32": (4, "I"), "f32": (6, "f"), "bool": (7, "?"), "u64": (10, "Q")}


def string(text: str | bytes, length: int | None = None) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def pair(key: str, kind: str, value: Any) -> bytes:
    """A metadata key with its value; ``kind`` of ``SCALARS``, "string", or "strings" for a vocabulary."""
    if kind == "string":
        return string(key) + struct.pack("<I", 8) + string(value)
    if kind == "strings":
        return string(key) + struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(string, value))
    number, code = SCALARS[kind]
    return string(key) + struct.pack(f"<I{code}", number, value)


def entry(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
    return string(name) + dimensions + struct.pack("<IQ", kind, offset)


LLAMA = (pair("general.architecture", "string", "llama"), pair("general.file_type", "u32", 7))


def gguf(
    tensors: list[tuple[str, str, tuple[int, ...]]],
    pairs: tuple[bytes, ...] = LLAMA,
    *,
    version: int = 3,
    alignment: int = 32,
    data: bool = True,
) -> bytes:
    """A sound file of tensors (name, dtype, shape), one after the other, their bytes all zero."""
    entries, reached = [], 0
    for name, dtype, shape in tensors:
        entries.append(entry(name, shape, KINDS[dtype], reached))
        values, nbytes = BLOCKS[dtype]
        size = math.prod(shape) // values * nbytes
        reached += size + -size % alignment
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs) + b"".join(entries)
    return head + bytes(-len(head) % alignment) + (bytes(reached) if data else b"")
