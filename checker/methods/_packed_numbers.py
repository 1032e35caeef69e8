"""Unpacking integers out of 32-bit words, along the inputs (GPTQ, AutoRound) or the outputs (AWQ). Imported to decode.

Verified against gptqmodel's, AutoRound's and AutoAWQ's own unpacking: equal after the cast to float16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from checker.checkpoint import Checkpoint
from checker.code_books import integer_book, unpack_words
from checker.coded import Bytes, CodedWeight, Float32, Place, Scaling, Window, tiled
from checker.facts import StoredWeight

Words = npt.NDArray[np.uint32]
Indices = npt.NDArray[np.int64]

BLOCK = 32  # codes; that many of any width fill whole words
NIBBLES = 4  # bits of a code of which two make a byte
PLANES = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1), 8: (8,)}  # widths, low bits first


@dataclass(frozen=True, slots=True)
class Part:
    """The rectangle that is decoded: rows and columns of the dense weight, and the groups that it touches."""

    rows: slice
    columns: slice
    groups: slice
    group_size: int
    inputs: int

    @classmethod
    def of(cls, weight: StoredWeight, place: Place) -> Part:
        """The part of a weight that a place asks for."""
        assert isinstance(place.columns, slice)
        inputs = weight.grid[1]
        size = int(weight.attributes["group_size"])
        size = size if 0 < size < inputs else inputs
        groups = slice(place.columns.start // size, math.ceil(place.columns.stop / size))
        return cls(place.rows, place.columns, groups, size, inputs)

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.columns.stop - self.columns.start)


def read_words(checkpoint: Checkpoint, name: str, start: int, stop: int) -> Words:
    """Rows of a matrix of 32-bit words."""
    found: Words = np.ascontiguousarray(checkpoint.part(name, start, stop)).view(np.uint32)
    return found


def decode_along_inputs(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    """A weight of which each word holds codes of neighbouring inputs, in their order or in that of activations."""
    place = Place.of(weight.grid, window)
    part = Part.of(weight, place)
    symmetric = weight.attributes.get("symmetric")
    order, flaw = _order(checkpoint, weight)
    if order is None:
        scaling = Scaling(
            scales=_scales(checkpoint, weight, part.groups)[part.rows],
            zeros=_zeros(checkpoint, weight, part.groups)[part.rows],
            negative=symmetric is not False,
        )
        bits = int(weight.attributes["bits"])
        pairs = bits == NIBBLES and part.width % 2 == 0 and part.group_size % 2 == 0
        codes = _codes(checkpoint, weight, part, pairs=pairs)
        return tiled(codes, scaling, (1, part.group_size), integer_book(bits, packed="low" if pairs else ""), place)
    return _permuted(checkpoint, weight, (place, part), order, flaw)


def _permuted(
    checkpoint: Checkpoint, weight: StoredWeight, where: tuple[Place, Part], order: Indices, flaw: str
) -> tuple[CodedWeight, ...]:
    """A weight whose inputs belong to groups in activation order: columns sorted by group, or one tile per value."""
    place, part = where
    groups = checkpoint.tensors[f"{weight.module}.scales"].shape[0]
    scales = _scales(checkpoint, weight, slice(0, groups))[part.rows]
    zeros = _zeros(checkpoint, weight, slice(0, groups))[part.rows]
    codes = _codes(checkpoint, weight, part, pairs=False)
    book = integer_book(int(weight.attributes["bits"]))
    negative = weight.attributes.get("symmetric") is not False
    sizes = np.bincount(order, minlength=groups)
    whole = part.width == part.inputs and bool((sizes[:-1] == part.group_size).all())
    if whole and sizes.size == groups and sizes[-1] == part.inputs - (groups - 1) * part.group_size:
        columns = np.argsort(order, kind="stable")
        scaling = Scaling(scales=scales, zeros=zeros, negative=negative, flaw=flaw)
        moved = Place(grid=place.grid, rows=place.rows, columns=columns)
        return tiled(np.ascontiguousarray(codes[:, columns]), scaling, (1, part.group_size), book, moved)
    here = order[part.columns]
    scaling = Scaling(scales=scales[:, here], zeros=zeros[:, here], negative=negative, flaw=flaw)
    return tiled(codes, scaling, (1, 1), book, place)


def _order(checkpoint: Checkpoint, weight: StoredWeight) -> tuple[Indices | None, str]:
    """The group of each input where that is not simply its number / group size; what is wrong with it."""
    name = f"{weight.module}.g_idx"
    if not weight.attributes.get("g_idx") or name not in checkpoint.tensors:
        return None, ""
    index = checkpoint.array(name).astype(np.int64)
    inputs, size = weight.grid[1], int(weight.attributes["group_size"])
    if np.array_equal(index, np.arange(inputs) // (size if 0 < size < inputs else inputs)):
        return None, ""
    groups = checkpoint.tensors[f"{weight.module}.scales"].shape[0]
    bad = int(np.count_nonzero((index < 0) | (index >= groups)))
    flaw = f"{bad} indices of {name} point to no group" if bad else ""
    return np.clip(index, 0, groups - 1), flaw


def _codes(checkpoint: Checkpoint, weight: StoredWeight, part: Part, *, pairs: bool) -> Bytes:
    """Codes [rows, columns] of a part, one a byte; ``pairs``: two to a byte as they are stored, [rows, columns / 2]."""
    bits = int(weight.attributes["bits"])
    start, stop = part.columns.start * bits // 32, math.ceil(part.columns.stop * bits / 32)
    words = read_words(checkpoint, weight.weight, start, stop)[:, part.rows]
    if pairs or bits == 8:  # noqa: PLR2004 - a code a byte
        stored = np.ascontiguousarray(words.T).view(np.uint8)
        return stored[:, : part.width // 2 if pairs else part.width]
    unpacked = (
        unpack_planes(words, bits, part.width) if weight.attributes["planar"] else unpack_words(words, bits, part.width)
    )
    return np.ascontiguousarray(unpacked.T)


def unpack_planes(words: Words, bits: int, count: int) -> Bytes:
    """Codes from planes of fields along the first axis: ``bits`` words for each 32 codes, low planes first.

    [ceil(count / 32) · bits, n] → [count, n]. Source: gptqmodel/utils/planar_packing.py.
    """
    blocks = words.reshape(-1, bits, words.shape[1])
    codes = np.zeros((blocks.shape[0], BLOCK, words.shape[1]), np.uint8)
    first = low = 0
    for plane in PLANES[bits]:
        fields = (
            blocks[:, first : first + plane, None, :]
            >> (np.arange(32 // plane, dtype=np.uint32) * np.uint32(plane))[None, None, :, None]
        )
        values = (fields & np.uint32((1 << plane) - 1)).astype(np.uint8).reshape(blocks.shape[0], BLOCK, -1)
        codes |= values << np.uint8(low)
        first, low = first + plane, low + plane
    return codes.reshape(-1, words.shape[1])[:count]


def _scales(checkpoint: Checkpoint, weight: StoredWeight, groups: slice) -> Float32:
    """Scales [outputs, groups]."""
    outputs = weight.grid[0]
    found = checkpoint.float32(f"{weight.module}.scales", groups.start * outputs, groups.stop * outputs)
    return found.reshape(-1, outputs).T


def _zeros(checkpoint: Checkpoint, weight: StoredWeight, groups: slice) -> Float32:
    """Zero points [outputs, groups], with the one that version 1 takes off added again."""
    bits, outputs = int(weight.attributes["bits"]), weight.grid[0]
    words = read_words(checkpoint, f"{weight.module}.qzeros", groups.start, groups.stop)
    minus_one = bool(weight.attributes["zero_offset"])
    if minus_one and 32 % bits == 0:
        ones = sum(1 << shift for shift in range(0, 32, bits))
        words = words + np.uint32(ones)  # carries included, as it was taken off
    unpack = unpack_planes if weight.attributes["planar"] else unpack_words
    codes = unpack(np.ascontiguousarray(words.T), bits, outputs)
    if minus_one and 32 % bits:
        codes = (codes + np.uint8(1)) & np.uint8((1 << bits) - 1)
    return codes.astype(np.float32)
