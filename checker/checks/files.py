"""Whether the checkpoint's files are what they claim to be, before anything in them is believed."""

from __future__ import annotations

from checker.domain import Depth, Finding
from checker.facts import ArtifactFacts
from checker.registry import Verdict, check


@check("files.valid", depth=Depth.STATIC, guards_load=True)
def files_valid(artifact: ArtifactFacts) -> Verdict:
    """config.json, the shard index and every safetensors header are well formed, and nothing is hidden or hostile.

    The headers are read by a strict reader of our own: no duplicate names, no overlapping or missing bytes, no trailing
    data, nothing that the safetensors library would refuse. The index must agree with its shards, no path may lead out
    of the checkpoint, and pickle files are refused unopened. transformers loads many such checkpoints without a word
    (a tensor that the index omits, a shard outside the folder, a duplicate key), and a later reader sees another model.
    """
    for flaw in artifact.flaws:
        yield Finding(
            message=flaw.message,
            severity=flaw.severity,
            where=flaw.where,
            observed=flaw.observed,
            limit=flaw.expected,
            hint=flaw.hint,
        )
