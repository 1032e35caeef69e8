"""Code books of 8- and 4-bit floats, and scales that are powers of two: what the float formats share.

E4M3 (OCP 8-bit floats): 4 bits of exponent, 3 of mantissa, no infinities, ±448 at most, one NaN a sign. E2M1 (OCP
microscaling): 0, ½, 1, 1½, 2, 3, 4, 6. E8M0: the power of two 2^(byte − 127), 255 is NaN.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from checker.code_books import code_book, nibbles, whole_bytes
from checker.coded import Bytes, CodeBook, Float32

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
LARGEST_E4M3 = 448.0
E8M0_BIAS = 127
E8M0_NAN = 255
E4M3_NAN = 0x7F  # without the sign


@cache
def e4m3_book(extreme: float) -> CodeBook:
    """All 256 values; ``extreme``: the magnitude that every block reaches, 0 where the layout promises none.

    Where it is the largest value itself, the block's maximum lies on it exactly.
    """
    import ml_dtypes

    levels = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    magnitude = np.where(np.isfinite(levels), np.abs(levels), 0)
    reached = magnitude >= extreme if extreme else None
    return code_book(levels, whole_bytes(8), bits=8, extreme=reached, exact_extreme=extreme == LARGEST_E4M3)


@cache
def e2m1_book(extreme: float) -> CodeBook:
    """Two codes a byte, the low nibble first; ``extreme`` as for ``e4m3_book``."""
    levels = np.array([*E2M1, *(-value for value in E2M1)], np.float32)
    reached = np.abs(levels) >= extreme if extreme else None
    return code_book(levels, nibbles(high_first=False), bits=4, extreme=reached)


def nan_codes(codes: Bytes) -> str:
    """What is wrong with E4M3 codes on their own: those that stand for no number; "" when there are none."""
    count = int(np.count_nonzero((codes & np.uint8(E4M3_NAN)) == E4M3_NAN))
    return f"{count} codes are NaN" if count else ""


def powers_of_two(exponents: Bytes | Float32) -> Float32:
    """E8M0 bytes as the scales they stand for; a byte of 255 is NaN."""
    return _powers()[exponents.astype(np.uint8)]


@cache
def _powers() -> Float32:
    table = np.exp2(np.arange(E8M0_NAN + 1, dtype=np.float64) - E8M0_BIAS)
    table[E8M0_NAN] = np.nan
    return table.astype(np.float32)


def all_powers_of_two(scales: Float32) -> bool:
    """Whether scales were rounded to powers of two, however they are stored."""
    mantissa, _ = np.frexp(scales[np.isfinite(scales) & (scales > 0)])
    return bool(mantissa.size and (mantissa == 0.5).all())  # noqa: PLR2004 - frexp's mantissa of a power of two
