"""The numbers of HQQ's weights: planes of codes, float zeros, decoding."""

from __future__ import annotations

from functools import cache

import numpy as np

from checker.checkpoint import Checkpoint
from checker.code_books import code_book, whole_bytes
from checker.coded import CodeBook, CodedWeight, Place, Scaling, Window, tiled
from checker.facts import StoredWeight
from checker.methods._byte_planes import Planes, read_planes
from checker.methods._hqq_state import PACKINGS

_SHIFTS = {
    "8bit_u8": (0,),
    "4bit_u8": (4, 0),
    "3bit_32": (27, 24, 21, 18, 15, 12, 9, 6, 3, 0),
    "2bit_u8": (6, 4, 2, 0),
    "1bit_u8": (7, 6, 5, 4, 3, 2, 1, 0),
}


def decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    """Codes and tables of one weight whose tensors are known to be complete and of the right size.

    Axis 1: the grid is [1, values], a tile one group. Axis 0: [group_size, groups], a tile one column.
    """
    place = Place.of(weight.grid, window)
    assert isinstance(place.columns, slice)
    packing, group = str(weight.attributes["packing"]), int(weight.attributes["group_size"])
    planes, dtype = PACKINGS[packing]
    header = checkpoint.tensors[weight.weight]
    rows, columns = place.rows, place.columns
    if weight.attributes["axis"] == 1:
        rows = slice(columns.start // group, -(-columns.stop // group))
        scales = slice(rows.start, rows.stop)
    else:
        scales = columns
    word = "<u4" if dtype == "I32" else "u1"
    width = group if weight.attributes["axis"] == 1 else weight.grid[1]
    bits = 3 if dtype == "I32" else 8 // planes
    packed = Planes(step=header.shape[0], columns=width, bits=bits, shifts=_SHIFTS[packing], word=word)
    codes = read_planes(checkpoint, weight.weight, packed, rows)
    zeros = checkpoint.float32(f"{weight.module}.zero", scales.start, scales.stop)
    values = checkpoint.float32(f"{weight.module}.scale", scales.start, scales.stop)
    book = _book(bits)
    zero = int(np.count_nonzero(values == 0))  # the library keeps scales away from 0
    scaling = Scaling(
        scales=values[None, :], zeros=zeros[None, :], flaw=f"{zero} of {values.size} scales are zero" if zero else ""
    )
    if weight.attributes["axis"] == 1:
        return tiled(codes.reshape(1, -1), scaling, (1, group), book, place)
    return tiled(np.ascontiguousarray(codes[:, columns]), scaling, (group, 1), book, place)


@cache
def _book(bits: int) -> CodeBook:
    count = 1 << bits
    levels = np.arange(count, dtype=np.float32)
    return code_book(levels, whole_bytes(bits), bits=bits, variance=np.full(count, 1 / 12, np.float32))
