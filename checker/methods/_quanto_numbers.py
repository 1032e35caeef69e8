"""The numbers of quanto's weights, verified against ``QTensor.dequantize()``."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from checker.checkpoint import Checkpoint
from checker.code_books import code_book, integer_book, whole_bytes
from checker.coded import CodeBook, CodedWeight, Place, Scaling, Window, tiled
from checker.facts import StoredWeight
from checker.methods._byte_planes import Planes, read_planes
from checker.methods._float_books import LARGEST_E4M3, e4m3_book, nan_codes

LARGEST_CODE = 127
_TYPES = {"qfloat8_e5m2": "float8_e5m2", "qfloat8_e4m3fnuz": "float8_e4m3fnuz"}


def decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    """Codes and tables of one weight whose tensors are known to be complete and of the right size."""
    place = Place.of(weight.grid, window)
    rows = place.rows
    prefix = f"{weight.module}.weight"
    scales = checkpoint.float32(f"{prefix}._scale", rows.start, rows.stop)[:, None]
    bits, width = int(weight.attributes["bits"]), weight.grid[1]
    if bits == 8:  # noqa: PLR2004 - one code a byte
        codes = checkpoint.part(weight.weight, rows.start, rows.stop).view(np.uint8)
        kind = str(weight.attributes["quant_type"])
        pieces = tiled(codes, Scaling(scales=scales), (1, width), _book(kind), place)
        flaw = nan_codes(codes) if kind == "qfloat8_e4m3fn" else ""
        return tuple(replace(piece, code_book_flaw=flaw) for piece in pieces)
    step, columns = checkpoint.tensors[weight.weight].shape
    packed = Planes(step=step, columns=columns, bits=bits, shifts=range(0, 8, bits))
    codes = read_planes(checkpoint, weight.weight, packed, rows)
    shift = checkpoint.float32(f"{prefix}._shift", rows.start, rows.stop)[:, None]
    whole = weight.attributes["shift_dtype"] is not None
    scaling = Scaling(scales=scales, zeros=shift) if whole else Scaling(scales=scales, offsets=-shift)
    return tiled(codes, scaling, (1, width), integer_book(bits), place)


@cache
def _book(quant_type: str) -> CodeBook:
    if quant_type == "qint8":
        return integer_book(8, signed=True, limit=LARGEST_CODE)
    if quant_type == "qfloat8_e4m3fn":
        return e4m3_book(LARGEST_E4M3)
    import ml_dtypes

    levels = np.arange(256, dtype=np.uint8).view(np.dtype(getattr(ml_dtypes, _TYPES[quant_type]))).astype(np.float32)
    finite = np.where(np.isfinite(levels), np.abs(levels), 0)
    return code_book(levels, whole_bytes(8), bits=8, extreme=finite == finite.max())
