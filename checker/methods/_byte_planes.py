"""Codes packed in planes: the first rows of a matrix in one field of each byte or word, the next rows in the next field.

BitNet, quanto and HQQ pack this way, so that unpacking is a shift and a stack. Row r of the matrix lies in plane
r // step and packed row r % step, with ``step`` packed rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from checker.checkpoint import Checkpoint
from checker.coded import Bytes


def read_planes(
    checkpoint: Checkpoint, name: str, packed: tuple[int, int], word: str, shifts: Sequence[int], bits: int, rows: slice
) -> Bytes:
    """Rows ``rows`` of the unpacked matrix, one code a byte. [rows, columns]; only the packed rows of these are read.

    ``packed``: packed rows and columns in items of the numpy type ``word`` (the tensor may be stored as another type of
    the same bytes); ``shifts``: how far each plane's field is from the lowest bit.
    """
    step, columns = packed
    mask = (1 << bits) - 1
    pieces = []
    row = rows.start
    while row < rows.stop:
        plane = row // step
        stop = min(rows.stop, (plane + 1) * step)
        data = checkpoint.part(name, row - plane * step, stop - plane * step)
        words = np.ascontiguousarray(data).view(np.uint8).reshape(-1).view(word).reshape(-1, columns)
        pieces.append(((words >> shifts[plane]) & mask).astype(np.uint8))
        row = stop
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
