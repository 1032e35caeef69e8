"""Unpacking AWQ's codes: gemm along the outputs, gemv along the inputs, gemv_fast in its interleaved blocks.

Verified against ``dequantize_gemm`` of AutoAWQ, gptqmodel and AutoRound, and against the weights that AutoAWQ's and
gptqmodel's packing code was given for the packings that only CUDA kernels read.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from checker.checkpoint import Checkpoint
from checker.code_books import integer_book, unpack_words
from checker.coded import Bytes, CodedWeight, Float32, Place, Scaling, Window, tiled
from checker.facts import StoredWeight
from checker.methods._packed_numbers import NIBBLES, Part, read_words

ORDER = (0, 4, 1, 5, 2, 6, 3, 7)  # the nibble of a word in which output 0, 1, 2, … lies
PER_WORD = 8
INTERLEAVED = (4, 64)  # rows and inputs of one block of gemv_fast


def decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    """A weight in any of AWQ's packings, one code a byte."""
    place = Place.of(weight.grid, window)
    part = Part.of(weight, place)
    packing = str(weight.attributes["packing"])
    if packing == "gemm":
        codes, scaling = _gemm(checkpoint, weight, part)
    elif packing == "gemv":
        codes, scaling = _gemv(checkpoint, weight, part)
    else:
        codes, scaling = _gemv_fast(checkpoint, weight, part)
    promised = weight.attributes.get("symmetric") is False
    book = integer_book(int(weight.attributes["bits"]), limit=0 if promised else None)
    return tiled(codes, scaling, (1, part.group_size), book, place)


def _gemm(checkpoint: Checkpoint, weight: StoredWeight, part: Part) -> tuple[Bytes, Scaling]:
    bits, outputs = int(weight.attributes["bits"]), weight.grid[0]
    interleaved = bool(weight.attributes.get("interleaved", bits == NIBBLES))
    packed = read_words(checkpoint, weight.weight, part.columns.start, part.columns.stop)
    codes = _along_outputs(packed, bits, outputs, interleaved=interleaved)
    zeros = read_words(checkpoint, f"{weight.module}.qzeros", part.groups.start, part.groups.stop)
    start, stop = part.groups.start * outputs, part.groups.stop * outputs
    scales = checkpoint.float32(f"{weight.module}.scales", start, stop).reshape(-1, outputs)
    points = _along_outputs(zeros, bits, outputs, interleaved=interleaved)
    scaling = Scaling(
        scales=scales.T[part.rows], zeros=points.T[part.rows].astype(np.float32), negative=_negative(weight)
    )
    return np.ascontiguousarray(codes[:, part.rows].T), scaling


def _negative(weight: StoredWeight) -> bool:
    """AutoRound's symmetric scales may be negative, whatever the packing."""
    return weight.attributes.get("symmetric") is True


def _along_outputs(packed: npt.NDArray[np.uint32], bits: int, outputs: int, *, interleaved: bool) -> Bytes:
    """[n, words] → codes [n, outputs]; ``interleaved``: every eight outputs in AWQ's order."""
    if bits == NIBBLES:
        stored = packed.view(np.uint8)
        codes = np.stack([stored & np.uint8(15), stored >> np.uint8(4)], axis=2).reshape(packed.shape[0], -1)[
            :, :outputs
        ]
    else:
        codes = unpack_words(np.ascontiguousarray(packed.T), bits, outputs).T
    if not interleaved or outputs % PER_WORD:
        return codes
    return codes.reshape(codes.shape[0], -1, PER_WORD)[:, :, ORDER].reshape(codes.shape)


def _gemv(checkpoint: Checkpoint, weight: StoredWeight, part: Part) -> tuple[Bytes, Scaling]:
    first, last = part.columns.start // PER_WORD, math.ceil(part.columns.stop / PER_WORD)
    packed = read_words(checkpoint, weight.weight, part.rows.start, part.rows.stop)[:, first:last]
    codes = _along_outputs(np.ascontiguousarray(packed), NIBBLES, part.width, interleaved=False)
    zeros = read_words(checkpoint, f"{weight.module}.qzeros", part.rows.start, part.rows.stop)
    points = _along_outputs(zeros, NIBBLES, zeros.shape[1] * PER_WORD, interleaved=False)[:, part.groups]
    width = checkpoint.tensors[f"{weight.module}.scales"].shape[1]
    scales = checkpoint.float32(f"{weight.module}.scales", part.rows.start * width, part.rows.stop * width)
    return codes, Scaling(scales=scales.reshape(-1, width)[:, part.groups], zeros=points.astype(np.float32))


def _gemv_fast(checkpoint: Checkpoint, weight: StoredWeight, part: Part) -> tuple[Bytes, Scaling]:
    """Blocks of four rows and 64 inputs, interleaved; the reverse of ``pack_intweight`` in gemv_fast.py of AutoAWQ."""
    high, wide = INTERLEAVED
    top = part.rows.start // high
    packed = checkpoint.part(weight.weight, top, math.ceil(part.rows.stop / high))
    stored = np.ascontiguousarray(packed[:, part.columns]).view(np.uint16)
    rows, inputs = stored.shape[0] * high, stored.shape[1]
    fields = np.stack([stored >> np.uint16(shift) & np.uint16(15) for shift in (0, 4, 8, 12)], axis=2).astype(np.uint8)
    # [rows / 4, inputs / 64, 64, 4] holds rows 4 by 4 of every 64 inputs
    blocks = fields.reshape(rows // high, inputs // wide, high, wide).transpose(0, 2, 1, 3).reshape(rows, inputs)
    pairs = blocks.reshape(rows, inputs // 32, 4, 2, 4).transpose(0, 1, 2, 4, 3).reshape(rows, inputs)
    codes = pairs.reshape(rows, inputs // 32, 4, 4, 2).transpose(0, 1, 3, 2, 4).reshape(rows, inputs)
    begin = part.rows.start - top * high
    codes = codes[begin : begin + part.rows.stop - part.rows.start]
    zeros = "scaled_zeros" if weight.attributes["packing"] == "llm-awq" else "qzeros"
    return np.ascontiguousarray(codes), Scaling(
        scales=_of_groups(checkpoint, f"{weight.module}.scales", weight, part),
        offsets=_of_groups(checkpoint, f"{weight.module}.{zeros}", weight, part),
    )


def _of_groups(checkpoint: Checkpoint, name: str, weight: StoredWeight, part: Part) -> Float32:
    """Rows [groups, out] of a matrix as [rows, groups] of the part."""
    outputs = weight.grid[0]
    values = checkpoint.float32(name, part.groups.start * outputs, part.groups.stop * outputs)
    found: Float32 = values.reshape(-1, outputs).T[part.rows]
    return found
