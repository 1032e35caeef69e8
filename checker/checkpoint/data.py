"""Bytes of stored tensors as numpy arrays: memory-mapped, and converted by the slice, so that a 70B model fits."""

from __future__ import annotations

import mmap
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from checker.checkpoint.files import open_regular
from checker.checkpoint.problem import Refused, shown
from checker.errors import NotApplicable, Unavailable

Array: TypeAlias = npt.NDArray[Any]
Bytes: TypeAlias = npt.NDArray[np.uint8]
Floats: TypeAlias = npt.NDArray[np.float32]

_NUMPY = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "U32": "<u4",
    "I32": "<i4",
    "U64": "<u8",
    "I64": "<i8",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "C64": "<c8",
}
_ML_DTYPES = {
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",  # no infinities: what torch and safetensors mean by E4M3
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}


def numpy_dtype(code: str) -> np.dtype[Any]:
    """The numpy type of a safetensors code.

    Raises:
        NotApplicable: a type of less than eight bits, which numpy cannot address.
    """
    if code in _NUMPY:
        return np.dtype(_NUMPY[code])
    if code not in _ML_DTYPES:
        raise NotApplicable(f"elements of type {code} are packed below a byte; they are read as bytes only")
    import ml_dtypes

    dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, _ML_DTYPES[code]))
    return dtype


def map_file(path: Path, name: str) -> Bytes:
    """All bytes of a file, read-only and lazily; the map lives as long as a view of it.

    Raises:
        Unavailable: the file can no longer be read, although its header could.
    """
    try:
        with open_regular(path, name) as (stream, size):
            if not size:
                return np.empty(0, np.uint8)
            return np.frombuffer(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except (Refused, OSError) as error:
        raise Unavailable(f"{shown(name)} changed while it was read: {error}; run again") from None


def cut(data: Bytes, name: str, begin: int, end: int) -> Bytes:
    """The bytes ``begin:end`` of a file.

    Raises:
        Unavailable: the file became shorter since its header was read.
    """
    if end > data.size:
        raise Unavailable(f"{shown(name)} became shorter while it was read; run again")
    return data[begin:end]


def to_float32(data: Bytes, code: str) -> Floats:
    """The elements of stored bytes as float32, flat; numbers beyond float32's range become infinite.

    Raises:
        NotApplicable: complex numbers, or a type of less than eight bits.
    """
    if code == "C64":
        raise NotApplicable("complex tensors have no real values")
    dtype = numpy_dtype(code)
    chosen = data.view(f"u{dtype.itemsize}")
    if code == "BF16":  # the upper half of a float32; several times faster than a cast from ml_dtypes
        values: Floats = np.left_shift(chosen, 16, dtype=np.uint32).view(np.float32)
    elif code.startswith("F8"):
        values = _float8_values(code)[chosen]
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            values = chosen.view(dtype).astype(np.float32)
    return values


@cache
def _float8_values(code: str) -> Floats:
    """All 256 values of an 8-bit type: a table is faster than arithmetic."""
    return np.arange(256, dtype=np.uint8).view(numpy_dtype(code)).astype(np.float32)
