"""Whether each quantized module computes what its stored weight says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from checker.domain import Depth, Finding, Limit, Measurement, Severity
from checker.errors import NotApplicable, Unavailable
from checker.facts import ModuleErrorFact, ModuleErrorFacts
from checker.registry import Limits, Verdict, check

HINT = "the file is not at fault: was memory changed after loading? Else try another device, compute dtype or version"
CERTAIN = 10  # times as large as the output itself: per cent say nothing more


@check(
    "outputs.modules",
    depth=Depth.FULL,
    limits={
        "error": Limit(warn=0.02, fail=0.05),
        "error_activations": Limit(warn=0.12, fail=0.3),
        "gain": Limit(warn=0.05, fail=0.08),
    },
)
def outputs_modules(modules: ModuleErrorFacts, limits: Limits) -> Verdict:
    """Each quantized module gives what its stored weight gives: no kernel, dtype or memory changes it on the way.

    While the model reads the probe text, every quantized module's output y is compared with ŷ = x·Ŵᵀ + b in float32: x
    is its own input at up to 64 positions, Ŵ are some rows of its weight decoded from the file. ``error`` bounds
    ‖y−ŷ‖/‖ŷ‖ of methods that quantize weights only, which is the rounding of a 16-bit product: healthy 0.002 to 0.005.
    ``error_activations`` holds where activations are quantized as well: healthy 0.01 to 0.08 with 8 bits, up to 0.15
    with 4. ``gain`` bounds the distance of ⟨y,ŷ⟩/⟨ŷ,ŷ⟩ from 1, for rounding of activations leaves it there and a wrong
    scale does not; healthy up to 0.035 with static scales. No baseline is needed.
    """
    if modules.flaw:
        raise Unavailable("the forward pass fails (see outputs.finite)")
    if not modules.errors:
        reasons = [flaw.message for flaw in modules.not_compared]
        raise NotApplicable(f"no module can be compared: {reasons[0]}" if reasons else "no weight is quantized")
    worst = sorted(modules.errors, key=lambda fact: fact.error, reverse=True)
    yield Measurement(
        key="outputs.modules",
        value=[{"layer": fact.layer, "error": fact.error, "gain": fact.gain} for fact in worst],
    )
    if modules.not_compared:
        counts = Counter(flaw.message for flaw in modules.not_compared)
        left_out = [{"modules": count, "reason": reason} for reason, count in counts.most_common()]
        yield Measurement(key="outputs.modules.not_compared", value=left_out)
    for fact in worst:
        yield from _judge(fact, limits, activations=modules.activations)


def _judge(fact: ModuleErrorFact, limits: Limits, *, activations: bool) -> Iterator[Finding]:
    """One finding at most: the more severe one, and of two alike that about the error."""
    error = limits["error_activations" if activations else "error"]
    gain = limits["gain"] if activations else Limit()  # else the error is small enough to show it
    by_error, by_gain = _above(fact.error, error), _above(abs(fact.gain - 1), gain)
    if by_error is not None and (by_error is Severity.FAIL or by_gain is not Severity.FAIL):
        yield Finding(
            message=_message(fact),
            severity=by_error,
            where=fact.layer,
            observed=fact.error,
            limit=error.fail if by_error is Severity.FAIL else error.warn,
            unit="relative error",
            hint=HINT,
        )
    elif by_gain is not None:
        yield Finding(
            message=f"{fact.layer} gives {fact.gain:.3g} times what its stored weight gives",
            severity=by_gain,
            where=fact.layer,
            observed=fact.gain,
            limit=f"1 ± {gain.fail if by_gain is Severity.FAIL else gain.warn:g}",
            unit="gain",
            hint=HINT,
        )


def _message(fact: ModuleErrorFact) -> str:
    if fact.integer:
        return f"{fact.layer} computes in {fact.integer}: what goes through it is cut to whole numbers"
    size = f"{fact.error:.3g}" if fact.error > CERTAIN else f"{fact.error:.1%}"
    return f"{fact.layer} computes something else than its stored weight (relative error {size})"


def _above(value: float, bar: Limit) -> Severity | None:
    if bar.fail is not None and value > bar.fail:
        return Severity.FAIL
    return Severity.WARN if bar.warn is not None and value > bar.warn else None
