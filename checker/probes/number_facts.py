"""From the sums over a weight's tiles to the facts that checks read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from checker.coded import CodedWeight
from checker.facts import CodeFact, ErrorFact, ScaleFact

FEW_BLOCKS = 8
FEW_VALUES = 1024
SMALLEST = 2.0**-127  # the exponent 0 of E8M0, which no weight needs
POWER_OF_TWO = 0.5  # mantissa of one
NO_LIMIT = 1e12  # stands for an infinite ratio, which JSON cannot hold


@dataclass(slots=True)
class Sums:
    """Running sums over the examined tiles of one weight, in float64."""

    predicted: float = 0.0  # P, with the variance of every value's cell
    error: float = 0.0  # Σ(Ŵ−W)²
    baseline: float = 0.0  # ΣW²
    decoded: float = 0.0  # ΣŴ²
    product: float = 0.0  # ΣŴW
    values: int = 0
    blocks: int = 0
    with_extreme: int = 0
    histogram: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))


def error_fact(layer: str, flaw: str, sums: Sums, bits: int) -> ErrorFact:
    """R, NRMSE, SQNR and gain from the sums; a layer of zeros that decodes to zeros is exact."""
    if not flaw and not math.isfinite(sums.error):
        flaw = "the decoded weight is not finite"
    if flaw or sums.baseline == sums.error == 0:
        neutral = 1.0 if not flaw else 0.0
        return ErrorFact(
            layer=layer, ratio=neutral, nrmse=0.0, sqnr_db=0.0, gain=1.0, centred_gain=1.0, bits=bits, flaw=flaw
        )
    nrmse = math.sqrt(sums.error / sums.baseline) if sums.baseline else NO_LIMIT
    gain = sums.product / sums.decoded if sums.decoded else 0.0
    # calibrated rounding (GPTQ) errs by more than P, and what it errs lowers the gain by as much
    spread = max(sums.predicted, sums.error) / sums.decoded if sums.decoded else 0.0
    return ErrorFact(
        layer=layer,
        ratio=min(sums.error / sums.predicted, NO_LIMIT) if sums.predicted else NO_LIMIT if sums.error else 1.0,
        nrmse=nrmse,
        sqnr_db=-20 * math.log10(nrmse) if nrmse else NO_LIMIT,
        gain=gain,
        centred_gain=gain * (1 + spread),
        bits=bits,
        values=sums.values,
    )


def scale_fact(layer: str, pieces: list[CodedWeight]) -> ScaleFact:
    """Counts over all examined scales of a weight."""
    counts = np.zeros(5, np.int64)
    low, high = math.inf, -math.inf
    for coded in pieces:
        scales = coded.scaling.scales[:1] if coded.one_scale else coded.scaling.scales
        zero = np.flatnonzero(np.abs(scales) <= SMALLEST)
        with_data = 0
        if zero.size:
            levels = np.take(coded.book.levels, coded.codes[zero], axis=0).reshape(zero.size, -1)
            nothing = 0 if coded.scaling.zeros is None else levels[:, :1]
            with_data = int(np.count_nonzero((levels != nothing).any(axis=1)))
        not_finite = int(np.count_nonzero(~np.isfinite(scales)))
        for other in (coded.scaling.zeros, coded.scaling.offsets):
            not_finite += 0 if other is None else int(np.count_nonzero(~np.isfinite(other)))
        counts += (scales.size, not_finite, int(np.count_nonzero(scales < 0)), zero.size, with_data)
        low, high = min(low, float(scales.min(initial=math.inf))), max(high, float(scales.max(initial=-math.inf)))
    blocks, not_finite, negative, zeros, with_data = map(int, counts)
    return ScaleFact(
        layer=layer,
        blocks=blocks,
        not_finite=not_finite,
        negative=negative,
        zero=zeros,
        zero_with_data=with_data,
        negative_allowed=any(coded.scaling.negative for coded in pieces),
        flaw=next((coded.scaling.flaw for coded in pieces if coded.scaling.flaw), ""),
        # a few blocks of like size may share a scale, and many a power of two; 1 is what was never calibrated
        constant=blocks >= FEW_BLOCKS
        and zeros < blocks
        and low == high
        and (low == 1 or math.frexp(low)[0] != POWER_OF_TWO),
    )


def code_fact(layer: str, pieces: list[CodedWeight], sums: Sums) -> CodeFact:
    """What the codes of a weight say by themselves."""
    book = pieces[0].book
    weights = np.repeat(sums.histogram, book.per_byte)
    counts = np.bincount(book.symbols.reshape(-1), weights=weights, minlength=book.symbol_count)
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return CodeFact(
        layer=layer,
        blocks=sums.blocks,
        with_extreme=sums.with_extreme,
        entropy_bits=float(-(shares * np.log2(shares)).sum()),
        single=bool(np.count_nonzero(counts) == 1 and counts.sum() > FEW_VALUES),
        unused_codes=max(book.symbol_count - int(np.count_nonzero(counts)), 0),
        code_book_flaw=next((coded.code_book_flaw for coded in pieces if coded.code_book_flaw), ""),
    )
