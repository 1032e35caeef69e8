"""Code books: what codes stand for, and how many bits of a byte or word each takes. Tables are made once and shared."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from checker.coded import Bytes, CodeBook, Float32


def cell_variance(levels: Float32) -> Float32:
    """Expected squared error of each level of a code book when values are rounded to the nearest level.

    A value falls uniformly into the cell between the midpoints to its neighbours: with half-widths l and r the mean
    squared distance to the level is (l³ + r³) / (3 (l + r)). The outermost levels have no outer half.
    Levels may come in any order and repeat (FP4 has a negative zero); NaN levels get 0. Shape [n] → [n].
    """
    finite = np.isfinite(levels)
    distinct = np.unique(levels[finite]).astype(np.float64)
    half = np.concatenate([[0.0], np.diff(distinct) / 2, [0.0]])
    left, right = half[:-1], half[1:]
    variance = (left**3 + right**3) / (3 * np.maximum(left + right, np.finfo(np.float32).tiny))
    found = np.zeros(levels.shape, np.float32)
    found[finite] = variance[np.searchsorted(distinct, levels[finite].astype(np.float64))]
    return found


def code_book(
    levels: Float32,
    symbols: Bytes,
    *,
    bits: int,
    variance: Float32 | None = None,
    extreme: npt.NDArray[np.bool_] | None = None,
    exact_extreme: bool = False,
) -> CodeBook:
    """The tables over bytes from those over codes.

    Shapes: ``levels`` [codes]; ``symbols`` [256, values per byte], the codes of each byte (``nibbles``,
    ``whole_bytes``); ``variance`` [codes], ``cell_variance(levels)`` unless given; ``extreme`` [codes], none unless
    given. ``exact_extreme``: a block's largest value lies on its extreme code exactly: its cell predicts no error.
    """
    variance = cell_variance(levels) if variance is None else variance
    extreme = np.zeros(levels.shape, np.bool_) if extreme is None else extreme
    exact = exact_extreme and bool(extreme.any())
    return CodeBook(
        levels=np.ascontiguousarray(levels[symbols], np.float32),
        variance=variance[symbols].sum(axis=1).astype(np.float32),
        extreme=np.asarray(extreme[symbols].any(axis=1)),
        extreme_variance=float(variance[extreme].mean()) if exact else 0.0,
        symbols=symbols,
        symbol_count=levels.size,
        bits=bits,
    )


@functools.cache
def integer_book(
    bits: int, *, signed: bool = False, bias: int = 0, packed: str = "", limit: int | None = None
) -> CodeBook:
    """Codes of ``bits`` bits as integers: level = code − bias, or two's complement where ``signed``.

    ``packed``: "" one code a byte, "low" or "high" two 4-bit codes a byte, that nibble first. ``limit``: a code of at
    least this magnitude is extreme (with bias 0: code 0 or the largest one); None: the layout promises none.
    """
    count = 1 << bits
    code = np.arange(count, dtype=np.int64)
    level = (np.where(code < count // 2, code, code - count) if signed else code - bias).astype(np.float32)
    extreme = None
    if limit is not None:
        extreme = np.abs(level) >= limit if signed or bias else (code == 0) | (code == count - 1)
    symbols = nibbles(high_first=packed == "high") if packed else whole_bytes(bits)
    return code_book(level, symbols, bits=bits, variance=np.full(count, 1 / 12, np.float32), extreme=extreme)


def nibbles(high_first: bool) -> Bytes:
    """The two 4-bit codes of every byte, in storage order. Shape [256, 2]."""
    byte = np.arange(256, dtype=np.uint8)
    pair = (byte >> 4, byte & 15) if high_first else (byte & 15, byte >> 4)
    return np.stack(pair, axis=1)


def whole_bytes(bits: int) -> Bytes:
    """One code a byte; bytes beyond the largest code cannot occur and stand for it. Shape [256, 1]."""
    return np.minimum(np.arange(256), (1 << bits) - 1).astype(np.uint8)[:, None]


def blocks_of(codes: Bytes, bytes_per_block: int, filler: int) -> Bytes:
    """Flat codes as [blocks, bytes per block]; a partial last block is filled with a byte that decodes to zero."""
    missing = -codes.size % bytes_per_block
    if missing:
        codes = np.concatenate([codes, np.full(missing, filler, np.uint8)])
    return codes.reshape(-1, bytes_per_block)


def unpack_words(words: npt.NDArray[np.uint32], bits: int, count: int) -> Bytes:
    """Codes of ``bits`` bits from 32-bit words along the first axis, low bits first, running on over word borders.

    [ceil(count · bits / 32), n] → [count, n], one code a byte: GPTQ's packing for 2, 3, 4 and 8 bits.
    """
    per_word, straddling = 32 // bits, 32 % bits != 0
    if not straddling:
        shifts = np.arange(per_word, dtype=np.uint32) * np.uint32(bits)
        codes = (words[:, None, :] >> shifts[None, :, None]).astype(np.uint8) & np.uint8((1 << bits) - 1)
        return codes.reshape(-1, words.shape[1])[:count]
    stream = np.unpackbits(np.ascontiguousarray(words.T).view(np.uint8), axis=1, bitorder="little")  # [n, bits]
    grouped = stream[:, : count * bits].reshape(words.shape[1], count, bits)
    weights = (1 << np.arange(bits)).astype(np.uint8)
    return np.ascontiguousarray((grouped * weights).sum(axis=2, dtype=np.uint8).T)
