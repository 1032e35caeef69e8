"""The numbers of Gemma's quantized weights: code · scale of the row. Imported when a weight is decoded.

Verified against ``QuantizedLinear._dequantize_weights`` of transformers, equal to the last bit.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from checker.checkpoint import Checkpoint
from checker.code_books import code_book, nibbles, whole_bytes
from checker.coded import CodeBook, CodedWeight, Place, Scaling, Window, tiled
from checker.facts import StoredWeight


@cache
def _book(bits: int) -> CodeBook:
    """Codes minus half their count, low bits first; no writer promises extreme codes, the ranges are calibrated."""
    count = 1 << bits
    variance = np.full(count, 1 / 12, np.float32)
    if bits == 8:  # noqa: PLR2004 - two's complement in whole bytes
        levels = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float32)
        return code_book(levels, whole_bytes(8), bits=8, variance=variance)
    levels = np.arange(count, dtype=np.float32) - count // 2
    byte = np.arange(256, dtype=np.uint8)
    four = np.stack([byte >> shift & 3 for shift in (0, 2, 4, 6)], axis=1)
    return code_book(levels, nibbles(high_first=False) if bits == 4 else four, bits=bits, variance=variance)  # noqa: PLR2004


def decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    """A weight or a window of it; windows are of whole rows."""
    bits, place = int(weight.attributes["bits"]), Place.of(weight.grid, window)
    embedding = weight.weight.endswith(".embedding_quantized")
    scale = f"{weight.module}.{'embedding_scale' if embedding else 'weight_scale'}"
    codes = checkpoint.part(weight.weight, place.rows.start, place.rows.stop).view(np.uint8)
    scales = np.ascontiguousarray(checkpoint.part(scale, place.rows.start, place.rows.stop), np.float32)
    width = weight.grid[1] // scales.shape[1]
    return tiled(codes, Scaling(scales=scales), (1, width), _book(bits), place)
