"""Whether the quantized model still computes something sensible."""

from __future__ import annotations

from checker.domain import Depth, Finding
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
    elif not outputs.head_finite:
        yield Finding(
            message="the output head gives NaN or infinite logits in its own dtype, though its input is finite",
            where=outputs.first_not_finite,
            hint="float16 overflows where bfloat16 does not; load the output head in bfloat16 or float32",
        )
