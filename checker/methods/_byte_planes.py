"""Codes packed in planes: the first rows of a matrix in one field of each byte or word, the next in the next field.

BitNet, quanto and HQQ pack this way, so that unpacking is a shift and a stack. Row r of the matrix lies in plane
r // step and packed row r % step, with ``step`` packed rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from checker.checkpoint import Checkpoint
from checker.coded import Bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Planes:
    """A packing: ``step`` packed rows of ``columns`` items of the numpy type ``word``, with fields of ``bits`` bits.

    The tensor may be stored as another type of the same bytes. ``shifts``: how far each plane's field is from the
    lowest bit.
    """

    step: int
    columns: int
    bits: int
    shifts: Sequence[int]
    word: str = "u1"


def read_planes(checkpoint: Checkpoint, name: str, planes: Planes, rows: slice) -> Bytes:
    """Rows of the unpacked matrix, one code a byte, [rows, columns]; only the packed rows of these are read."""
    step, mask = planes.step, (1 << planes.bits) - 1
    pieces = []
    row = rows.start
    while row < rows.stop:
        plane = row // step
        stop = min(rows.stop, (plane + 1) * step)
        data = checkpoint.part(name, row - plane * step, stop - plane * step)
        words = np.ascontiguousarray(data).view(np.uint8).reshape(-1).view(planes.word).reshape(-1, planes.columns)
        pieces.append(((words >> planes.shifts[plane]) & mask).astype(np.uint8))
        row = stop
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
