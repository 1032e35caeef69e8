"""Whether the quantized model still computes something sensible."""

from __future__ import annotations

from checker.domain import Depth, Finding, Measurement
from checker.errors import NotApplicable, Unavailable
from checker.facts import OutputFacts
from checker.registry import Verdict, check


@check("outputs.finite", depth=Depth.FULL)
def outputs_finite(outputs: OutputFacts) -> Verdict:
    """The model runs, and every logit is finite: one NaN scale, or an overflow of float16, spoils all that follow."""
    if outputs.flaw:
        yield Finding(
            message=f"the model loads but does not run: {outputs.flaw}",
            observed="no logits",
            limit="logits",
            hint="some layer is not what its class takes it for; see loading.quantized and layers.coverage",
        )
    if outputs.not_finite:
        where = outputs.first_not_finite
        yield Finding(
            message=f"{outputs.not_finite:,} logits over {outputs.positions} positions are NaN or infinite"
            + (f"; {where} is the first module to give one" if where else ""),
            where=where,
            observed=outputs.not_finite,
            limit=0,
            unit="logits",
            hint="look at weights.scales, and at the compute dtype: float16 overflows where bfloat16 does not",
        )


@check("outputs.known-good", depth=Depth.FULL)
def outputs_known_good(outputs: OutputFacts) -> Verdict:
    """Each continuation begins with one of the texts that the matrix accepts for its prompt.

    Greedy decoding. Prompt and special tokens are taken off and white space stripped before the comparison. A healthy
    quantized model seldom repeats its baseline word for word: accept beginnings that any sane answer has.
    """
    if outputs.flaw:
        raise Unavailable("not run: the forward pass fails (see outputs.finite)")
    judged = [text for text in outputs.texts if text.accepted]
    if not judged:
        raise NotApplicable("the matrix names no prompt with accepted texts for this device")
    yield Measurement(key="texts", value=[{"prompt": item.prompt, "text": item.text} for item in outputs.texts])
    for item in judged:
        if not item.text.strip().startswith(item.accepted):
            yield Finding(
                message=f"{item.prompt!r} was continued with {item.text.strip()!r}"[:500],
                where="",
                observed=item.text.strip(),
                limit=" | ".join(item.accepted),
                hint="if the text is good, add its beginning to accept; if not, see weights.error",
            )
