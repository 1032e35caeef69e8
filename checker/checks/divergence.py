"""Whether a quantized model's next-token distributions are as near to its baseline's as the quantization explains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from checker.domain import Depth, Finding, Json, Limit, Measurement, Severity
from checker.errors import NotApplicable
from checker.facts import DivergenceFacts, Interval
from checker.registry import Limits, Verdict, check

BILLION = 1e9
EXPLAINED = 0.1  # relative error of a module beyond which it explains nothing: outputs.modules has its own limit
# relative error of weights that no healthy quantization exceeds, by bits: scales that are too large explain nothing
WORST_NRMSE = {8: 0.06, 6: 0.1, 5: 0.12, 4: 0.2, 3: 0.35, 2: 0.65, 1: 0.8}
Bars = tuple[float | None, float | None]  # warn, fail

# by bits, then for models of less than 1 billion parameters, less than 3, and more
KL: Mapping[int, tuple[Bars, Bars, Bars]] = {
    8: ((0.06, 0.2), (0.03, 0.1), (0.02, 0.06)),
    4: ((0.8, 1.5), (0.4, 0.9), (0.15, 0.4)),
    3: ((1.5, 3.0), (0.8, 1.6), (0.3, 0.8)),
    2: ((3.0, 6.0), (2.0, 4.0), (1.2, 3.0)),
}
TOP1: Mapping[int, tuple[Bars, Bars, Bars]] = {
    8: ((0.8, 0.65), (0.85, 0.75), (0.92, 0.85)),
    4: ((0.5, 0.35), (0.6, 0.45), (0.75, 0.6)),
    3: ((0.4, 0.25), (0.5, 0.35), (0.65, 0.5)),
    2: ((None, None), (None, None), (0.45, 0.3)),
}
PERPLEXITY: Mapping[int, tuple[Bars, Bars, Bars]] = {
    8: ((1.08, 1.2), (1.05, 1.1), (1.03, 1.08)),
    4: ((1.6, 2.2), (1.3, 1.6), (1.2, 1.5)),
    3: ((2.2, 3.5), (1.6, 2.5), (1.4, 2.0)),
    2: ((4.0, 8.0), (3.0, 6.0), (2.0, 4.0)),
}


@check(
    "outputs.divergence",
    depth=Depth.FULL,
    limits={"excess": Limit(warn=2.0, fail=4.0), "kl": Limit(), "top1": Limit(), "perplexity": Limit()},
)
def outputs_divergence(divergence: DivergenceFacts, limits: Limits) -> Verdict:
    """The model's next-token distributions are as near to the baseline's as this quantization explains.

    Both models see the same probe text; KL = Σ p (ln p − ln q) in nats, p being the baseline's, averaged over
    positions. What a correct quantization must cost is computed: KL ≈ C · (e² + m²) + self-noise. C is the baseline's
    own sensitivity, measured with noise in its weights at the same positions; e is the relative error that scales and
    codes predict for the weights; m, only where activations are quantized too, the measured relative error of modules
    against their decoded weights. ``excess`` bounds how many times that the measured KL may be. Healthy: 0.6 to 1.2;
    swapped nibbles, shifted scales, a lost offset or a zero point off by one: 30 and more. One broken layer hides in
    it: weights.error and outputs.modules name that.

    A second line bounds ``kl`` (nats), ``top1`` (share of positions with the same most likely token) and ``perplexity``
    (ratio to the baseline's) by bits and model size, where the matrix gives no limits of its own; they hold only for a
    baseline that models the probe text at all. Warn and fail, below 1 billion parameters / below 3 / above: ``kl`` at 8
    bits 0.06 0.2 / 0.03 0.1 / 0.02 0.06, at 4 bits 0.8 1.5 / 0.4 0.9 / 0.15 0.4; ``top1`` at 8 bits 0.8 0.65 / 0.85
    0.75 / 0.92 0.85, at 4 bits 0.5 0.35 / 0.6 0.45 / 0.75 0.6; ``perplexity`` at 8 bits 1.08 1.2 / 1.05 1.1 / 1.03
    1.08, at 4 bits 1.6 2.2 / 1.3 1.6 / 1.2 1.5; wider at 3 and 2 bits. Every figure is judged by the end of its 95 %
    interval that speaks for the model. Positions grow from 64 to 256 to 1,024 and stop as soon as KL and top-1
    agreement are clear of their limits. Output head and softmax are computed in float32: 16-bit heads make ties. A
    recorded reference keeps the 256 most likely tokens of each position, so that KL read from it is a lower bound, 0.9
    of the whole. A token that became impossible counts as 1,000 nats; one position of NaN or infinite
    logits fails by itself.
    """
    yield Measurement(key="outputs.divergence", value=_measured(divergence))
    if divergence.blocks:
        rows = [{"block": row.block, "drift": row.drift, "error": row.error} for row in divergence.blocks]
        yield Measurement(key="outputs.blocks", value=rows)
    if (
        not divergence.not_finite
        and expected_kl(divergence) is None
        and not any(map(_is_bar, absolute_limits(divergence, limits).values()))
    ):
        message = "the weights were not compared and the baseline models no text: there is nothing to judge by"
        raise NotApplicable(message)
    yield from judge_divergence(divergence, limits)


def _is_bar(limit: Limit) -> bool:
    return limit.warn is not None or limit.fail is not None


def judge_divergence(facts: DivergenceFacts, limits: Limits) -> Iterator[Finding]:
    """The findings; also asked by the probe, which looks for the place where it breaks when one fails."""
    if facts.not_finite:  # however few: an average over the others would hide them
        yield Finding(
            message=f"logits are NaN or infinite at {facts.not_finite:,} of {facts.positions:,} positions",
            where=facts.culprit,
            observed=facts.not_finite,
            limit=0,
            unit="positions",
            hint="look at weights.scales, and at the compute dtype: float16 overflows where bfloat16 does not",
        )
        return
    expected, bar = expected_kl(facts), limits["excess"]
    severity = None if expected is None else _above(facts.kl.low / expected, bar)
    if severity is not None and expected is not None:
        times = facts.kl.value / expected
        message = f"the output is {times:.3g} times as far from the baseline's as this quantization explains"
        message += f" ({_kl(facts)}, expected {expected:.3g}){_starts(facts)}"
        yield _finding(facts, message, severity, (times, bar, "times expected"))
    if severity is not Severity.FAIL:  # else the second line would say the same once more
        yield from _second_line(facts, absolute_limits(facts, limits))


def _second_line(facts: DivergenceFacts, bars: Mapping[str, Limit]) -> Iterator[Finding]:
    """Absolute limits, by bits and size or as the matrix has them."""
    if (severity := _above(facts.kl.low, bars["kl"])) is not None:
        message = f"the output is far from the baseline's: {_kl(facts)}{_starts(facts)}"
        yield _finding(facts, message, severity, (facts.kl.value, bars["kl"], "nats"))
    top1 = facts.top1
    if (severity := _above(-top1.high, _negative(bars["top1"]))) is not None:
        message = f"the most likely token is the baseline's at {top1.value:.0%} of {facts.positions} positions only"
        yield _finding(facts, message, severity, (top1.value, bars["top1"], "of positions"))
    ratio = facts.perplexity_ratio
    if (severity := _above(ratio.low, bars["perplexity"])) is not None:
        message = f"the probe text is {ratio.value:.3g} times as perplexing as to the baseline"
        message += f" ({facts.perplexity:.3g} against {facts.baseline_perplexity:.3g})"
        yield _finding(facts, message, severity, (ratio.value, bars["perplexity"], "times"))


def _kl(facts: DivergenceFacts) -> str:
    return f"KL {facts.kl.value:.3g} nats over {facts.positions} positions"


def _starts(facts: DivergenceFacts) -> str:
    return f"; {facts.culprit} is the first block to depart from the baseline's" if facts.culprit else ""


def _finding(facts: DivergenceFacts, message: str, severity: Severity, figure: tuple[float, Limit, str]) -> Finding:
    observed, bar, unit = figure
    return Finding(
        message=message,
        severity=severity,
        where=facts.culprit,
        observed=observed,
        limit=bar.fail if severity is Severity.FAIL else bar.warn,
        unit=unit,
        hint=_hint(facts),
    )


def is_settled(facts: DivergenceFacts, limits: Limits) -> bool:
    """Whether more positions cannot change the verdict: no interval of KL or top-1 agreement holds a limit of it."""
    if facts.not_finite:
        return True
    bars = absolute_limits(facts, limits)
    pairs = [(facts.kl, bars["kl"]), (facts.top1, bars["top1"])]
    expected = expected_kl(facts)
    if expected is not None:
        scaled = Interval(value=0.0, low=facts.kl.low / expected, high=facts.kl.high / expected)
        pairs.append((scaled, limits["excess"]))
    return not any(
        bar is not None and pair.low <= bar <= pair.high for pair, limit in pairs for bar in (limit.warn, limit.fail)
    )


def expected_kl(facts: DivergenceFacts) -> float | None:
    """C · (e² + m²) + self-noise, nats; None where that is not known, or is nothing."""
    if facts.weight_nrmse is None:
        return None
    weights = min(facts.weight_nrmse, WORST_NRMSE.get(facts.bits or 2, WORST_NRMSE[2]))
    modules = min(facts.module_error or 0.0, EXPLAINED) if facts.activations else 0.0
    return facts.noise_constant * (weights**2 + modules**2) + facts.self_noise or None


def absolute_limits(facts: DivergenceFacts, limits: Limits) -> dict[str, Limit]:
    """The second line: what the matrix says, else by bits and size; nothing for a baseline that models no text."""
    known = facts.bits or 2
    bits = max((key for key in KL if key <= known), default=2)
    size = 0 if facts.parameters < BILLION else 1 if facts.parameters < 3 * BILLION else 2
    found = {}
    for name, table in (("kl", KL), ("top1", TOP1), ("perplexity", PERPLEXITY)):
        warn, fail = table[bits][size] if facts.models_text else (None, None)
        own = limits[name]
        found[name] = Limit(warn=warn if own.warn is None else own.warn, fail=fail if own.fail is None else own.fail)
    return found


def _above(value: float, limit: Limit) -> Severity | None:
    if limit.fail is not None and value > limit.fail:
        return Severity.FAIL
    return Severity.WARN if limit.warn is not None and value > limit.warn else None


def _negative(limit: Limit) -> Limit:
    return Limit(warn=None if limit.warn is None else -limit.warn, fail=None if limit.fail is None else -limit.fail)


def _hint(facts: DivergenceFacts) -> str:
    if facts.weight_nrmse is None:
        return "the weights could not be compared; look at outputs.modules, and run the model with another kernel"
    return "see weights.error for what is stored, and outputs.modules for what is computed from it"


def _measured(facts: DivergenceFacts) -> dict[str, Json]:
    expected = expected_kl(facts)
    return {
        "positions": facts.positions,
        "reference": "recorded" if facts.recorded else "cached",
        "kl": _interval(facts.kl),
        "kl_percentiles": dict(facts.kl_percentiles),
        "kl_histogram": [list(pair) for pair in facts.kl_histogram],
        "expected_kl": expected,
        "excess": None if expected is None else facts.kl.value / expected,
        "noise_constant": facts.noise_constant,
        "self_noise": facts.self_noise,
        "weight_nrmse": facts.weight_nrmse,
        "module_error": facts.module_error,
        "top1": _interval(facts.top1),
        "delta_p": {"mean": facts.delta_p, "rms": facts.delta_p_rms},
        "perplexity": facts.perplexity,
        "baseline_perplexity": facts.baseline_perplexity,
        "perplexity_ratio": _interval(facts.perplexity_ratio),
        "entropy_ratio": facts.entropy_ratio,
    }


def _interval(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}
