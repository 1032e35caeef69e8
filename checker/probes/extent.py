"""How much of the weights is read: all, a sample, or nothing (design §5)."""

from __future__ import annotations

from checker.checkpoint import Checkpoint
from checker.errors import NotApplicable
from checker.facts import ArtifactFacts

FULL_SCAN_WEIGHTS = 1_000_000_000  # up to here every block is read, beyond it a sample


def reads_sample(mode: str, artifact: ArtifactFacts, checkpoint: Checkpoint, baseline: Checkpoint | None) -> bool:
    """Whether to read a sample rather than every block.

    Over the network a sample, and by itself only for a comparison: its figures without one say little for what they
    cost. A baseline on the Hub makes a sample of a local checkpoint too.

    Raises:
        NotApplicable: nothing is to be read.
    """
    if mode == "off":
        raise NotApplicable("weights: off keeps the numbers from being read")
    if mode == "auto" and checkpoint.remote and baseline is None:
        message = "the numbers of a Hub repository are read only with a baseline; give --baseline REF or auto"
        raise NotApplicable(f"{message}, or --weights sampled or full")
    if mode == "auto":
        remote = checkpoint.remote or (baseline is not None and baseline.remote)
        return remote or weight_count(artifact) > FULL_SCAN_WEIGHTS
    return mode == "sampled"


def weight_count(artifact: ArtifactFacts) -> int:
    """Quantized weights on disk, from the packed bytes and the bits of each."""
    stored = (weight for weight in artifact.weights if weight.weight in artifact.tensors)
    return sum(
        artifact.tensors[weight.weight].nbytes * 8 // max(1, int(weight.attributes.get("bits") or 8))
        for weight in stored
    )
