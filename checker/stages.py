"""The two halves of a cell whose checkpoint exists: what its files tell, and what only the model does.

They are judged by two processes. That of the model spends its first seconds importing torch; meanwhile that of the
files, which needs no torch, has most verdicts ready, and they are out of reach of whatever code the model brings.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from checker.domain import Cell, Depth
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


def takes_model(cell: Cell, checks: Collection[str]) -> bool:
    """Whether judging these checks takes a worker that imports torch."""
    return cell.quantization is not None or (cell.settings.depth is not Depth.STATIC and bool(_of_model(cell, checks)))


def _of_model(cell: Cell, checks: Collection[str]) -> tuple[str, ...]:
    of_files = {item.id for item in all_checks() if rank(item, cell.settings.depth)[0] <= OF_FILES}
    return tuple(name for name in checks if name not in of_files)


def stages(job: Job) -> tuple[Stage, ...]:
    """The workers that a cell takes, in the order of their work.

    Two where there are checks of either half; one for a cell at depth static, and for one that is quantized here: its
    files are written by the worker of the model.
    """
    model = _of_model(job.cell, job.checks)
    files = tuple(name for name in job.checks if name not in model)
    preload = takes_model(job.cell, job.checks)
    if job.checkpoint is None or not preload or not files:
        return (Stage(job=job, preload=preload),)
    first = replace(job, checks=files, stage="files", overlay=None, visible_gpus=None)
    return Stage(job=first, preload=False), Stage(job=replace(job, checks=model, stage="model"), preload=True)
