"""Which tensors of a baseline a quantized weight was made from."""

from __future__ import annotations

from checker.architecture import architecture_of, counterpart
from checker.checkpoint import Checkpoint
from checker.facts import StoredWeight

REMADE = ("rotary_emb.inv_freq", "rotary_emb.original_inv_freq")  # buffers that every loader makes anew


def dense_names(weight: StoredWeight, baseline: Checkpoint) -> tuple[str, ...]:
    """The dense tensor, or those whose rows in turn are the weight's (experts one by one); empty when they are absent.

    A head that was untied before it was quantized is compared with the tensor that the baseline ties it to.
    """
    name = counterpart(weight.dense, baseline.tensors)
    if name is not None:
        return (name,)
    source = architecture_of(baseline.config or {}).tied.get(weight.dense)
    tied = counterpart(source, baseline.tensors) if source is not None else None
    if tied is not None:
        return (tied,)
    names = [counterpart(part, baseline.tensors) for part in weight.dense_parts]
    return tuple(name for name in names if name is not None) if None not in names else ()


def fused_name(weight: StoredWeight, baseline: Checkpoint) -> str:
    """The tensor of the baseline that holds this weight among others (all experts in one); "" when there is none."""
    others = architecture_of(baseline.config or {}).aliases(weight.module)[1:]
    return next((here for name in others if (here := counterpart(name, baseline.tensors)) is not None), "")
