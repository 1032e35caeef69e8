"""The two halves of a cell: what its files tell, and what only the model does.

They are judged by two processes. That of the model spends its first seconds importing torch; meanwhile that of the
files, which needs no torch, has most verdicts ready, and they are out of reach of whatever code the model brings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from checker.domain import Depth
from checker.facts import ORDER, WeightFacts
from checker.protocol import Job
from checker.registry import Check, all_checks

OF_FILES = ORDER.index(WeightFacts)  # the last facts that are gathered without the model


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """What one worker does of a cell; ``preload``: it imports torch before it is given the job."""

    job: Job
    preload: bool


def rank(item: Check, depth: Depth) -> tuple[int, str]:
    """Position of the dearest facts that a check will get at this depth; checks of equal rank go by id."""
    deep = depth is not Depth.STATIC
    kinds = [need.kind for need in item.needs if need.kind in ORDER and (not need.optional or deep)]
    return max((ORDER.index(kind) for kind in kinds), default=0), item.id


def stages(job: Job) -> tuple[Stage, ...]:
    """The workers that a cell takes, in the order of their work.

    Two where there are checks of either half; one for a cell at depth static, and for one that is quantized here: its
    files are written by the worker of the model.
    """
    depth = job.cell.settings.depth
    if job.checkpoint is None:
        return (Stage(job=job, preload=True),)
    of_files = {item.id for item in all_checks() if rank(item, depth)[0] <= OF_FILES}
    files = tuple(name for name in job.checks if name in of_files)
    model = tuple(name for name in job.checks if name not in of_files)
    if depth is Depth.STATIC or not files or not model:
        return (Stage(job=job, preload=depth is not Depth.STATIC and bool(model)),)
    first = replace(job, checks=files, stage="files", overlay=None, visible_gpus=None)
    return Stage(job=first, preload=False), Stage(job=replace(job, checks=model, stage="model"), preload=True)
