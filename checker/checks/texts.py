"""What the quantized model writes: as it did when it was good, no worse than its baseline, and still likely text."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from checker.domain import Depth, Finding, Json, Limit, Measurement, Severity
from checker.errors import NotApplicable, Unavailable
from checker.facts import Continuation, GeneratedText, Interval, TextFacts
from checker.registry import Limits, Verdict, check

LONGEST_CYCLE = 8  # tokens
FEWEST_TOKENS = 8  # of a text that can be called a loop, or of a sample that has an interval
REPEATS = 3  # of a cycle, before it is one
FEW_DISTINCT = 8  # at most one distinct token in so many: a collapse even without a cycle
MOST_PROMPTS = 2 / 3  # of the prompts have to show a fault that a single one may show by chance
NEARLY_ALL = 0.95  # of a text, for a loop that is told without a baseline
LEAST_CHANGE = 0.3  # nats of entropy; a text that is nearly certain has a ratio of anything
Z = 1.96  # of the normal distribution, 95 % two-sided
SHOWN = 60  # characters of a text in a message

# nats per token of the baseline's text, (warn, fail): by bits, then from 3, from 1, and below 1 billion parameters.
# Measured on SmolLM2-135M over 1,350 tokens: LLM.int8 +0.03, NF4 +0.30, FP4 +0.62; a systemic fault from +8 on.
BARS = {
    8: ((0.03, 0.10), (0.05, 0.15), (0.06, 0.20)),
    4: ((0.15, 0.40), (0.45, 0.90), (0.90, 1.50)),
    3: ((0.30, 0.80), (0.80, 1.60), (1.60, 2.60)),
    2: ((0.60, 1.60), (1.60, 3.00), (3.00, 5.00)),
}
SIZES = (3e9, 1e9, 0)
HINT = "see outputs.divergence for how far the model is off, and weights.error for which layer"


@check("outputs.known-good", depth=Depth.FULL, limits={"agreement": Limit(fail=0.9)})
def outputs_known_good(texts: TextFacts, limits: Limits) -> Verdict:
    """Each continuation begins as the matrix accepts, or repeats one that was recorded when the model was good.

    Greedy decoding. Prompt and special tokens are taken off and white space stripped before the comparison. Where the
    matrix accepts anything for a prompt, that alone counts. Recorded texts are those of this device class; where there
    are none, those of any other.

    A healthy quantized model does not repeat itself word for word on every machine and with every version: two tokens
    that are nearly as likely change places. A miss is therefore weighed: the model is given the accepted or recorded
    text, and ``agreement`` is the share of its tokens that the model would choose too, or finds within 0.5 nats of its
    choice. From the limit on the miss is a warning. So it is at any agreement when the texts were recorded on another
    device class only: kernels there may compute with other numbers.
    """
    if texts.flaw:
        yield Finding(
            message=f"the model runs but does not generate: {texts.flaw}",
            observed="no text",
            limit="text",
            hint="decoding keeps keys and values of earlier tokens, which one forward pass does not",
        )
        return
    yield Measurement(key="texts", value=[_row(item) for item in texts.texts])
    flawed = [item for item in texts.texts if item.flaw]
    for item in flawed:
        yield Finding(message=f"{item.prompt!r} cannot be put to the model: {item.flaw}"[:500], hint="repair the file")
    judged = [item for item in texts.texts if item.matched is not None and not item.flaw]
    if not judged and not flawed:
        raise NotApplicable("for this device the matrix names no accepted texts, and none were recorded")
    for item in judged:
        if not item.matched:
            yield from _miss(item, limits["agreement"])


def _row(item: GeneratedText) -> dict[str, Json]:
    return {
        "prompt": item.prompt,
        "chat": item.chat,
        "text": item.text or "",
        "baseline": item.baseline.text if item.baseline is not None else None,
        "accepted": None if item.flaw else item.matched,
        "asked": bool(item.accepted),  # by the matrix, and not only recorded
        "agreement": item.agreement,
        "tokens": list(item.tokens),
    }


def _miss(item: GeneratedText, limit: Limit) -> Iterator[Finding]:
    """The finding of a text that is neither accepted nor recorded, if it is one."""
    if item.text is None and not item.known:
        raise Unavailable(f"there is no tokenizer in the checkpoint to read the answer to {item.prompt!r} with")
    agreement, bar = item.agreement, limit.fail if limit.fail is not None else 0.0
    close = agreement is not None and agreement >= bar
    if close and limit.warn is not None and agreement is not None and agreement >= limit.warn:
        return
    written = f"{item.prompt!r} was continued with {(item.text or '').strip()!r}"[:300]
    if close:
        weighed = f"; given the expected text, the model chooses {agreement:.0%} of its tokens: the same up to rounding"
    elif agreement is not None:
        weighed = f"; given the expected text, the model chooses {agreement:.0%} of its tokens, {bar:.0%} are required"
    else:
        weighed = ""
    yield Finding(
        message=written + weighed + ("; recorded on another device class" if item.elsewhere else ""),
        severity=Severity.WARN if close or (item.elsewhere and not item.accepted) else Severity.FAIL,
        observed=(item.text or "").strip(),
        limit=" | ".join(dict.fromkeys([*item.accepted, *(known.text.strip() for known in item.known)]))[:2000],
        hint="if the text is good, add its beginning to accept or record it; if not, see weights.error",
    )


@check("outputs.degenerate", depth=Depth.FULL, limits={"loop": Limit(fail=0.8), "entropy": Limit(warn=2.0)})
def outputs_degenerate(texts: TextFacts, limits: Limits) -> Verdict:
    """No loops, no silence and no collapse onto a few tokens, unless the baseline's texts show them too.

    A prompt is lost when one cycle of up to 8 tokens fills more than ``loop`` of its text, or when fewer than one in
    eight tokens are distinct, or when there is no text, each where the baseline writes one. Two thirds of the prompts
    lost, and at least two, is a failure: a small healthy 4-bit model loops now and then. One lost prompt of one is a
    warning. That all prompts are answered alike is a failure as well. ``entropy`` is the factor, up or down, by which
    the mean entropy of the next token may differ from the baseline's on the baseline's text.

    Without a baseline only collapse in every prompt is told, as a warning.
    """
    judged = _judged(texts)
    lost = list(_lost(judged, limits["loop"]))
    yield from lost or _alike(judged)
    yield from _entropy(judged, limits["entropy"])


def _judged(texts: TextFacts) -> list[GeneratedText]:
    if texts.flaw:
        raise Unavailable("the model does not generate (see outputs.known-good)")
    if texts.unreferenced:
        raise Unavailable(texts.unreferenced)
    found = [item for item in texts.texts if not item.flaw]
    if not found:
        raise NotApplicable("no prompt was continued")
    if not texts.language:
        raise NotApplicable("the baseline does not model the probe text (random weights?), so its texts say nothing")
    return found


def _lost(texts: Sequence[GeneratedText], limit: Limit) -> Iterator[Finding]:
    """Loops and silence, where the baseline's texts are none; without any baseline, collapse of all of them."""
    pairs = [(item, item.baseline) for item in texts if item.baseline is not None]
    if not pairs:
        ways = [_way(item, NEARLY_ALL) for item in texts]
        if all(ways) and len(texts) > 1:
            message = f"all {len(texts)} prompts lead to {ways[0]}; no baseline tells whether it is the model's nature"
            yield _finding(message, texts[0], Severity.WARN)
    for bar, severity in ((limit.fail, Severity.FAIL), (limit.warn, Severity.WARN)):
        if bar is None:
            continue
        lost = [(item, _way(item, bar)) for item, theirs in pairs if _way(item, bar) and not _way(theirs, bar)]
        if lost and len(lost) >= MOST_PROMPTS * len(pairs):
            item, way = lost[0]
            message = f"{len(lost)} of {len(pairs)} prompts lead to a loop or to nothing, but not with the baseline"
            message = f"{message}: {item.prompt!r} leads to {way}"[:400]
            yield _finding(message, item, severity if len(lost) > 1 else Severity.WARN)
            return


def _finding(message: str, item: GeneratedText, severity: Severity) -> Finding:
    limit = item.baseline.text.strip() if item.baseline is not None else "text"
    return Finding(message=message, severity=severity, observed=(item.text or "").strip(), limit=limit, hint=HINT)


def _way(item: GeneratedText | Continuation, bar: float) -> str:
    """How a text is lost, or ""."""
    if item.text is not None and not item.text.strip():
        return "no text"
    if len(item.tokens) < FEWEST_TOKENS:
        return ""
    (period, share), distinct = loop(item.tokens), len(set(item.tokens))
    if share > bar:
        return f"a cycle of {period} token{'s' if period > 1 else ''} that fills {share:.0%} of the text{_shown(item)}"
    return f"only {distinct} different tokens{_shown(item)}" if distinct * FEW_DISTINCT <= len(item.tokens) else ""


def _shown(item: GeneratedText | Continuation) -> str:
    text = (item.text or "").strip()
    return f" ({text[:SHOWN]!r})" if text else ""


def loop(tokens: Sequence[int]) -> tuple[int, float]:
    """The cycle that fills most of a text: its length in tokens, and its share of the text; (0, 0.0) without one."""
    best = (0, 0.0)
    for period in range(1, LONGEST_CYCLE + 1):
        run = longest = 0
        for index in range(period, len(tokens)):
            run = run + 1 if tokens[index] == tokens[index - period] else 0
            longest = max(longest, run)
        share = (longest + period) / len(tokens) if longest >= (REPEATS - 1) * period else 0.0
        if share > best[1]:
            best = (period, share)
    return best


def _alike(texts: Sequence[GeneratedText]) -> Iterator[Finding]:
    """One answer to every prompt, where the baseline gives several."""
    compared = [item for item in texts if item.baseline is not None and len(item.tokens) >= FEWEST_TOKENS]
    answers = {item.tokens[:FEWEST_TOKENS] for item in compared}
    theirs = {item.baseline.tokens[:FEWEST_TOKENS] for item in compared if item.baseline is not None}
    if len(compared) > 2 and len(answers) == 1 and len(theirs) == len(compared):  # noqa: PLR2004 - two may be alike
        message = f"all {len(compared)} prompts are continued alike{_shown(compared[0])}, but not with the baseline"
        yield _finding(message, compared[0], Severity.FAIL)


def _entropy(texts: Sequence[GeneratedText], limit: Limit) -> Iterator[Finding]:
    """The width of the distributions, of all prompts together."""
    pairs = [(len(item.losses), item.entropy, item.baseline.entropy) for item in texts
             if item.baseline is not None and item.entropy is not None]  # fmt: skip
    count = sum(tokens for tokens, _, _ in pairs)
    if count < FEWEST_TOKENS:
        return
    here = math.fsum(tokens * value for tokens, value, _ in pairs) / count
    there = math.fsum(tokens * value for tokens, _, value in pairs) / count
    if not abs(here - there) > LEAST_CHANGE:  # nor NaN, of which outputs.finite tells
        return
    factor = max(here, there) / max(min(here, there), 1e-9)
    for bar, severity in ((limit.fail, Severity.FAIL), (limit.warn, Severity.WARN)):
        if bar is not None and factor > bar:
            way = "less certain" if here > there else "more certain"
            yield Finding(
                message=f"the model is far {way} of the next token than its baseline on the same text "
                f"(mean entropy {here:.2f} against {there:.2f} nats)",
                severity=severity,
                observed=here,
                limit=f"{there / bar:.3g} to {there * bar:.3g}",
                unit="nats",
                hint=HINT,
            )
            return


@check("outputs.likelihood", depth=Depth.FULL, limits={"delta": Limit()})
def outputs_likelihood(texts: TextFacts, limits: Limits) -> Verdict:
    """The baseline's own texts are about as likely under the quantized model as under the baseline.

    ``delta`` is the mean of the paired differences, in nats per token; judged is the lower end of its 95 % interval,
    for a text of some dozens of tokens says no more. Unless the matrix sets bars, they go by the bits of most weights
    and by the model's size, from 3 billion parameters, from 1 billion, and below; (warn, fail):

    8 bits (0.03, 0.10), (0.05, 0.15), (0.06, 0.20); 4 bits (0.15, 0.40), (0.45, 0.90), (0.90, 1.50);
    3 bits (0.30, 0.80), (0.80, 1.60), (1.60, 2.60); 2 bits (0.60, 1.60), (1.60, 3.00), (3.00, 5.00).

    Healthy copies of a model of 135 million parameters measure 0.03 with int8, 0.30 with NF4, 0.62 with FP4. Swapped
    halves of bytes, a neighbour's scales or a lost offset in all layers cost 8 nats and more.
    """
    judged = [item for item in _judged(texts) if item.baseline is not None and item.losses]
    if not judged:
        raise NotApplicable("there is no text of the baseline's")
    pairs = [pair for item in judged for pair in _pairs(item)]
    if not all(math.isfinite(here) for here, _ in pairs):
        raise Unavailable("logits are not finite (see outputs.finite)")
    if len(pairs) < FEWEST_TOKENS:
        raise NotApplicable(f"the baseline's texts have {len(pairs)} tokens, too few to tell anything")
    delta = _mean([here - there for here, there in pairs])
    here, there = (statistics.fmean(side) for side in zip(*pairs, strict=True))
    yield Measurement(
        key="outputs.likelihood",
        value={
            "nll": here,
            "baseline_nll": there,
            "tokens": len(pairs),
            "delta": {"value": delta.value, "low": delta.low, "high": delta.high},
        },
    )
    warn, fail = _bars(texts, limits["delta"])
    for bar, severity in ((fail, Severity.FAIL), (warn, Severity.WARN)):
        if delta.low > bar:
            yield Finding(
                message=f"the baseline's own text costs {delta.value:.2f} nats per token more under this model "
                f"({here:.2f} against {there:.2f}, 95 % interval {delta.low:.2f} to {delta.high:.2f})",
                severity=severity,
                observed=delta.value,
                limit=bar,
                unit="nats per token",
                hint=HINT,
            )
            return


def _pairs(item: GeneratedText) -> Iterator[tuple[float, float]]:
    """Nats of each token, (here, under the baseline); an older reference has the baseline's mean only."""
    assert item.baseline is not None
    theirs = item.baseline.losses or [item.baseline.nll] * len(item.losses)
    yield from zip(item.losses, theirs, strict=False)  # a text may have been cut where the model has no positions left


def _mean(values: Sequence[float]) -> Interval:
    mean = statistics.fmean(values)
    half = Z * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(value=mean, low=mean - half, high=mean + half)


def _bars(texts: TextFacts, limit: Limit) -> tuple[float, float]:
    """The matrix's bars, else those of the bits and the size; what is not known counts as the coarsest."""
    row = BARS[next((bits for bits in BARS if texts.bits is not None and texts.bits >= bits), 2)]
    size = next(index for index, least in enumerate(SIZES) if texts.parameters >= least)
    warn, fail = row[size]
    if limit.fail is not None and limit.warn is None:
        warn = min(warn, limit.fail)
    return limit.warn if limit.warn is not None else warn, limit.fail if limit.fail is not None else fail
