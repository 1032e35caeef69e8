"""Whether the model survives being saved and loaded again."""

from __future__ import annotations

from checker.domain import Depth, Finding, Measurement
from checker.facts import RoundtripFacts
from checker.registry import Verdict, check


@check("roundtrip.checkpoint", depth=Depth.FULL)
def roundtrip_checkpoint(roundtrip: RoundtripFacts) -> Verdict:
    """Saved before any forward and loaded again: the same ``state_dict()`` bit for bit, and the same logits.

    Before any forward, because a forward on some CPUs repacks 4-bit weights in place and a save after it writes other
    bytes. transformers cannot revert the loading of several methods when it saves (``NotImplementedError``); the check
    then saves with ``save_original_format=False`` and says so in the notes.
    """
    if roundtrip.flaw:
        yield Finding(message=roundtrip.flaw, hint="--verbose shows the traceback")
        return
    if roundtrip.note:
        yield Measurement(key="notes", value=[roundtrip.note])
    groups = (
        (roundtrip.missing, "is lost by saving and loading"),
        (roundtrip.added, "appears only after saving and loading"),
        (roundtrip.changed, "is changed by saving and loading"),
    )
    for names, what in groups:
        for name in names:
            yield Finding(message=f"{name} {what}", where=name, hint="an entry of state_dict() before and after")
    if not roundtrip.logits_equal:
        yield Finding(
            message=f"logits differ by up to {roundtrip.logit_difference:.4g} after saving and loading",
            observed=roundtrip.logit_difference,
            limit=0.0,
            unit="logit",
            hint="the saved model computes something else than the one that was tested",
        )
