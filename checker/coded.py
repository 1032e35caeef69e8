"""A quantized weight as bytes to look up: the form in which every method hands its codes to the weights probe.

Whatever the packing, a byte of codes stands for one or more values. With tables over the 256 bytes, decoding, error
prediction, extreme codes and entropy are each one table look-up, and the probe knows no method.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class CodedWeight:
    """Codes, scales and tables of one weight; value = level · scale of its block.

    Shapes: ``codes`` [blocks, bytes per block]; ``scales`` [blocks]; ``levels`` [256, values per byte];
    ``variance`` [256], the squared error expected of a byte's values at scale 1 (cell width² / 12 and the like);
    ``extreme`` [256], whether the byte holds an extreme code; ``symbols`` [256, values per byte], code numbers.
    ``extreme_variance``: what ``variance`` counts for one extreme code; the block's own maximum lies on it exactly.
    """

    shape: tuple[int, ...]  # dense, as stored
    codes: Bytes
    scales: Float32
    levels: Float32
    variance: Float32
    extreme: npt.NDArray[np.bool_]
    extreme_variance: float
    symbols: Bytes
    symbol_count: int
    bits: int
    padding: int = 0  # values past the end in the last block; their codes decode to zero
    negative_scales: bool = False  # whether the layout allows them
    code_book_flaw: str = ""
    scale_flaw: str = ""

    @property
    def block_size(self) -> int:
        """Values per block."""
        return int(self.codes.shape[1] * self.levels.shape[1])


def cell_variance(levels: Float32) -> Float32:
    """Expected squared error of each level of a code book when values are rounded to the nearest level.

    A value falls uniformly into the cell between the midpoints to its neighbours: with half-widths l and r the mean
    squared distance to the level is (l³ + r³) / (3 (l + r)). The outermost levels have no outer half.
    Levels may come in any order and repeat (FP4 has a negative zero). Shape [n] → [n].
    """
    distinct = np.unique(levels)
    half = np.concatenate([[0.0], np.diff(distinct) / 2, [0.0]])
    left, right = half[:-1], half[1:]
    variance = (left**3 + right**3) / (3 * np.maximum(left + right, np.finfo(np.float32).tiny))
    found: Float32 = variance[np.searchsorted(distinct, levels)].astype(np.float32)
    return found


def nibbles(high_first: bool) -> Bytes:
    """The two 4-bit codes of every byte, in storage order. Shape [256, 2]."""
    byte = np.arange(256, dtype=np.uint8)
    pair = (byte >> 4, byte & 15) if high_first else (byte & 15, byte >> 4)
    return np.stack(pair, axis=1)


def blocks_of(codes: Bytes, bytes_per_block: int, filler: int) -> Bytes:
    """Flat codes as [blocks, bytes per block]; a partial last block is filled with a byte that decodes to zero."""
    missing = -codes.size % bytes_per_block
    if missing:
        codes = np.concatenate([codes, np.full(missing, filler, np.uint8)])
    return codes.reshape(-1, bytes_per_block)
