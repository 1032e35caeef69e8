"""What the numbers say: scales and codes on their own, and the decoded weight against the baseline's."""

from __future__ import annotations

import math
from collections.abc import Iterator

from checker.domain import Depth, ErrorKind, Finding, Limit, Measurement, Severity
from checker.errors import NotApplicable, Unavailable
from checker.facts import CodeFact, ErrorFact, WeightFacts
from checker.registry import Limits, Verdict, check

FEW_VALUES = 10_000  # below, chance alone moves R by a per cent and more
HINT = "see layers.complete and dtypes.storage for what is wrong with its tensors"


@check("weights.scales", depth=Depth.STATIC)
def weights_scales(weights: WeightFacts) -> Verdict:
    """Every scale is finite and of the sign its layout allows, and is zero only where its block is all zeros.

    All scales are read, unless the weights are sampled: then those of the sample.
    """
    yield from _undecoded(weights)
    for fact in weights.scales:
        faults = (
            (fact.not_finite, "NaN or infinite", "finite"),
            (0 if fact.negative_allowed else fact.negative, "negative", "0 or more"),
            (fact.zero_with_data, "zero over codes that are not", "above 0"),
        )
        for count, what, limit in faults:
            if count:
                yield Finding(
                    message=f"{count} of {fact.blocks} scales of {fact.layer} are {what}",
                    where=fact.layer,
                    observed=count,
                    limit=limit,
                    unit="scales",
                    hint="the scales were damaged or never written; quantize the layer again",
                )
        if fact.flaw:
            yield Finding(message=f"{fact.layer}: {fact.flaw}", where=fact.layer, hint="quantize the layer again")
        elif fact.constant:
            yield Finding(
                message=f"all {fact.blocks} scales of {fact.layer} are the same",
                severity=Severity.WARN,
                where=fact.layer,
                hint="scales of real weights differ; were they initialised and never calibrated?",
            )


@check("weights.codes", depth=Depth.STATIC, limits={"extreme": Limit(warn=1.0, fail=0.99)})
def weights_codes(weights: WeightFacts, limits: Limits) -> Verdict:
    """What holds for codes without a baseline: the canonical code book, and an extreme code in every block.

    A scale is the block's largest magnitude, so that each block holds a code of ±1 (NF4, FP4), ±127 (int8) or the
    like; a block without one was quantized with another scale, another block size, or was changed later. ``extreme`` is
    the least share of such blocks; layouts that promise no such code are not judged by it. Blocks of zeros are exempt.
    A layer of one single code is a warning where no baseline tells that it is zero. Entropy and unused codes are
    reported, not judged: healthy weights of other distributions vary. That two halves of a byte are swapped cannot be
    seen here; weights.error sees it.
    """
    yield from _undecoded(weights)
    yield Measurement(
        key="weights.codes",
        value={
            "lowest_entropy_bits": min(fact.entropy_bits for fact in weights.codes),
            "blocks": sum(fact.blocks for fact in weights.codes),
            "blocks_with_extreme_code": sum(fact.with_extreme for fact in weights.codes),
            "layers_with_unused_codes": sum(fact.unused_codes > 0 for fact in weights.codes),
        },
    )
    bar = limits["extreme"]
    compared = {fact.layer for fact in weights.errors}
    for fact in weights.codes:
        if fact.code_book_flaw:
            yield Finding(
                message=f"{fact.layer}: {fact.code_book_flaw}",
                where=fact.layer,
                hint="codes or code book are not those of the layout; quantize the layer again",
            )
        if fact.single and fact.layer not in compared:
            yield _constant(fact)
        share = fact.with_extreme / fact.blocks if fact.blocks else 1.0
        severity = _below(share, bar)
        if severity is not None:
            yield Finding(
                message=f"{fact.blocks - fact.with_extreme} of {fact.blocks} blocks of {fact.layer} "
                "reach no extreme code",
                severity=severity,
                where=fact.layer,
                observed=share,
                limit=bar.fail if severity is Severity.FAIL else bar.warn,
                unit="share of blocks",
                hint="scales and codes do not belong together: another block size, or data changed after quantizing",
            )


def _constant(fact: CodeFact) -> Finding:
    return Finding(
        message=f"all codes of {fact.layer} are the same: the layer is a constant",
        severity=Severity.WARN,
        where=fact.layer,
        observed=0,
        unit="bits of entropy",
        hint="were its codes ever written? With a baseline weights.error tells whether it is meant to be zero",
    )


def _below(value: float, bar: Limit) -> Severity | None:
    if bar.fail is not None and value < bar.fail:
        return Severity.FAIL
    return Severity.WARN if bar.warn is not None and value < bar.warn else None


@check(
    "weights.error",
    depth=Depth.STATIC,
    limits={
        "R": Limit(warn=1.15, fail=1.5),
        "nrmse": Limit(fail=1.2),
        "exact": Limit(warn=0.3),
        "gain": Limit(fail=0.02),
    },
)
def weights_error(weights: WeightFacts, limits: Limits) -> Verdict:
    """Each decoded weight differs from the baseline's by the error its own scales and codes predict: R is about 1.

    R = Σ(Ŵ−W)² / P. P adds, for every value, the squared error that rounding into its code's cell gives on average
    (cell width² / 12 for integers; the largest value of a block is exact), so R depends neither on the model nor on the
    distribution of its weights: healthy NF4 0.93 to 0.97, FP4 0.92 to 0.98, int8 0.98 to 1.03. Swapped nibbles, shifted
    scales, a wrong code book or a lost offset give 3.5 to millions.

    ``gain`` bounds the distance from 1 of the centred least-squares gain ⟨Ŵ,W⟩/⟨Ŵ,Ŵ⟩ · (1 + P/‖Ŵ‖²), which finds a
    scale that is off by a few per cent in a whole layer. ``nrmse``: a relative error ‖Ŵ−W‖/‖W‖ that no quantization
    has, for scales so large that they explain any error. ``exact``: an R below it means a baseline that already lay on
    this grid, or no quantization at all. Where calibration has rescaled columns and rows (AWQ, SmoothQuant: norms
    differ from the baseline's), their gains are fitted first.
    """
    if not weights.baseline:
        raise NotApplicable("there is no baseline to compare with")
    yield from _undecoded(weights)
    if weights.incomparable and not weights.errors:
        raise NotApplicable(f"values cannot be compared with the baseline's: {weights.incomparable}")
    yield Measurement(
        key="weights",
        value=[
            {
                "layer": fact.layer,
                "R": math.inf if fact.flaw else fact.ratio,
                "nrmse": math.inf if fact.flaw else fact.nrmse,
                "sqnr_db": fact.sqnr_db,
                "gain": fact.gain,
                **({"fitted_gains": True} if fact.fitted_gains else {}),
                **({"sampled": True} if weights.sampled else {}),
            }
            for fact in sorted(weights.errors, key=_badness, reverse=True)
        ],
    )
    for fact in sorted(weights.errors, key=_badness, reverse=True):
        if fact.flaw:
            finite = "not finite" not in fact.flaw
            hint = "is this the right baseline?" if finite else "see weights.scales for which scales are to blame"
            yield Finding(message=f"{fact.layer}: {fact.flaw}", where=fact.layer, hint=hint)
        else:
            yield from _judge(fact, limits)


def _badness(fact: ErrorFact) -> float:
    return math.inf if fact.flaw else fact.ratio


def _judge(fact: ErrorFact, limits: Limits) -> Iterator[Finding]:
    ratio, exact, gain, far = limits["R"], limits["exact"], limits["gain"].fail, limits["nrmse"].fail
    few = 0 < fact.values < FEW_VALUES
    ratio = _widened(ratio, 3 / math.sqrt(fact.values)) if few else ratio
    room = 4 * min(fact.nrmse, 0.2) / math.sqrt(fact.values) if few else 0
    over = Severity.FAIL if ratio.fail is not None and fact.ratio > ratio.fail else Severity.WARN
    bar = ratio.fail if over is Severity.FAIL else ratio.warn
    if bar is not None and fact.ratio > bar:
        yield Finding(
            message=f"{fact.layer} is {fact.ratio:,.4g} times as far from the baseline as its codes explain "
            f"(relative error {fact.nrmse:.1%})",
            severity=over,
            where=fact.layer,
            observed=fact.ratio,
            limit=bar,
            unit="R",
            hint="codes, scales or their order are wrong in this layer; quantize it again from the baseline",
        )
    elif far is not None and fact.nrmse > far:
        yield Finding(
            message=f"{fact.layer} is farther from the baseline than zeros would be (relative error {fact.nrmse:.3g})",
            where=fact.layer,
            observed=fact.nrmse,
            limit=far,
            unit="relative error",
            hint="its scales are far too large; quantize it again from the baseline",
        )
    elif exact.warn is not None and fact.ratio < exact.warn:
        yield Finding(
            message=f"{fact.layer} is closer to the baseline than quantization allows (R {fact.ratio:.3g})",
            severity=Severity.WARN,
            where=fact.layer,
            observed=fact.ratio,
            limit=exact.warn,
            unit="R",
            hint="was the baseline itself dequantized from this format?",
        )
    elif gain is not None and abs(fact.centred_gain - 1) > gain + room:
        yield Finding(
            message=f"the scales of {fact.layer} are off by {abs(1 - fact.centred_gain):.1%} on the whole",
            where=fact.layer,
            observed=fact.centred_gain,
            limit=f"1 ± {gain + room:.3g}",
            unit="gain",
            hint="its scales were changed after quantizing; quantize the layer again",
        )


def _widened(limit: Limit, by: float) -> Limit:
    """Bars for a mean over few values, which scatters: healthy rows of 64 values have R up to 1.33."""
    return Limit(
        warn=None if limit.warn is None else limit.warn + by, fail=None if limit.fail is None else limit.fail + by
    )


def _undecoded(weights: WeightFacts) -> Iterator[Finding]:
    """A weight that cannot be decoded fails each check of numbers: none of them may look green without having seen it.

    Raises:
        Unavailable: not one weight could be decoded, so that there is nothing to judge.
    """
    if weights.undecodable and not weights.scales:
        raise Unavailable(f"no weight could be decoded: {weights.undecodable[0].message}", ErrorKind.NOT_RUN)
    for flaw in weights.undecodable:
        yield Finding(message=f"{flaw.where} could not be decoded: {flaw.message}", where=flaw.where, hint=HINT)
