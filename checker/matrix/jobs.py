"""The jobs of a matrix: what one machine judges in one go. Pure functions of cells; no network, no file is opened."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from checker.domain import Cell, Json
from checker.errors import UsageError
from checker.matrix.select import grouped

MAX_JOBS = 256  # GitHub's limit for one job matrix
_HOSTED_RUNNER = "ubuntu-latest"
_UNLIMITED_MINUTES = 360  # GitHub's own default for a job
_SETUP_MINUTES = 30  # installation and downloads, which no cell's time limit counts


@dataclass(frozen=True, kw_only=True, slots=True)
class _Machine:
    runs_on: tuple[str, ...]
    gpus: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Work:
    """Cells that one job judges, in the order of the matrix, and the place of the first of them in it."""

    machine: _Machine
    cells: tuple[Cell, ...]
    cost: float
    first: int


def plan(cells: Sequence[Cell], max_jobs: int = MAX_JOBS, costs: Mapping[str, float] | None = None) -> dict[str, Json]:
    """The job matrix for ``fromJSON``: one job per baseline and machine (``runs-on``, ``gpus``), the longest first.

    Cells without a baseline share a job when they come from one model entry. When there are more than ``max_jobs``,
    those of one kind of machine are joined so that the longest becomes as short as can be: the kinds share the jobs by
    what they have to do, and within a kind the costliest group goes first, each to the job with least to do so far.
    ``costs`` are seconds by cell; a cell without counts as the median of those that have them.

    The longest jobs stand first because runners that are few take them in this order.

    Raises:
        UsageError: there are more kinds of machines than jobs allowed.
    """
    cost = _cost_of(cells, costs or {})
    keyed = ((_Machine(runs_on=cell.settings.runs_on, gpus=cell.settings.gpus), cell) for cell in cells)
    groups = grouped(((machine, cell.baseline or _model(cell)), cell) for machine, cell in keyed)
    machines = grouped((machine, group) for (machine, _), group in groups.items())
    if len(machines) > max_jobs:
        raise UsageError(f"{len(machines)} kinds of machines (runs-on, gpus) do not fit into {max_jobs} jobs")
    place = {cell.id: number for number, cell in enumerate(cells)}
    work = [
        _Work(machine=machine, cells=tuple(job), cost=cost(job), first=place[job[0].id])
        for machine, count in _job_counts(machines, max_jobs, cost).items()
        for job in (sorted(job, key=lambda cell: place[cell.id]) for job in _packed(machines[machine], count, cost))
    ]
    work.sort(key=lambda job: job.first)
    named = list(zip(_job_names(work), work, strict=True))
    named.sort(key=lambda pair: pair[1].cost, reverse=True)
    return {"include": [_entry(name, job) for name, job in named]}


def _model(cell: Cell) -> str:
    """The part of the id that names the model entry."""
    return cell.id.partition("/")[0]


def _cost_of(cells: Sequence[Cell], recorded: Mapping[str, float]) -> Callable[[Sequence[Cell]], float]:
    """A function that gives the cost of several cells; all cost the same where nothing is recorded."""
    known = sorted(recorded[cell.id] for cell in cells if cell.id in recorded) or [1.0]
    median = (known[(len(known) - 1) // 2] + known[len(known) // 2]) / 2
    return lambda some: sum(recorded.get(cell.id, median) for cell in some)


def _job_counts(
    machines: Mapping[_Machine, Sequence[Sequence[Cell]]], max_jobs: int, cost: Callable[[Sequence[Cell]], float]
) -> dict[_Machine, int]:
    """How many jobs each kind of machine gets: one, and one more for the busiest until they or its groups run out."""
    totals = {machine: sum(map(cost, groups)) for machine, groups in machines.items()}
    counts = dict.fromkeys(machines, 1)
    for _ in range(min(max_jobs, sum(map(len, machines.values()))) - len(counts)):
        divisible = (machine for machine, groups in machines.items() if counts[machine] < len(groups))
        counts[max(divisible, key=lambda machine: totals[machine] / counts[machine])] += 1
    return counts


def _packed(groups: Sequence[Sequence[Cell]], count: int, cost: Callable[[Sequence[Cell]], float]) -> list[list[Cell]]:
    """Groups in ``count`` jobs, longest processing time first: at most a third longer than the best there is."""
    jobs: list[list[Cell]] = [[] for _ in range(count)]
    loads = [(0.0, number) for number in range(count)]
    for group in sorted(groups, key=cost, reverse=True):
        load, number = loads[0]
        jobs[number] += group
        heapq.heapreplace(loads, (load + cost(group), number))
    return jobs


def _job_names(work: Sequence[_Work]) -> list[str]:
    """Made of the models' names, which may stand in the name of an artifact; numbered where one would repeat.

    Artifacts become folders, and there are file systems to which ``Qwen`` and ``qwen`` are one.
    """
    names: list[str] = []
    seen: dict[str, int] = {}
    for job in work:
        models = list(dict.fromkeys(map(_model, job.cells)))
        name = models[0] if len(models) == 1 else f"{models[0]}-and-{len(models) - 1}-more"
        while name.lower() in seen:
            seen[name.lower()] += 1
            name = f"{name}-{seen[name.lower()]}"
        seen[name.lower()] = 1
        names.append(name)
    return names


def _entry(name: str, job: _Work) -> dict[str, Json]:
    return {
        "job": name,
        "cells": ",".join(cell.id for cell in job.cells),
        "runs-on": list(job.machine.runs_on) or _HOSTED_RUNNER,
        "gpus": job.machine.gpus,
        "timeout-minutes": _minutes(job.cells),
    }


def _minutes(cells: Sequence[Cell]) -> int:
    """Every cell's time limit, the longest of each baseline once more for its reference, and the setup.

    With a cell that has no limit it is GitHub's own, or what the others may take where that is longer.
    """
    limits = [cell.settings.timeout for cell in cells if cell.settings.timeout is not None]
    groups = grouped((cell.baseline, cell.settings.timeout or 0.0) for cell in cells if cell.baseline is not None)
    minutes = math.ceil((sum(limits) + sum(map(max, groups.values()))) / 60) + _SETUP_MINUTES
    return minutes if len(limits) == len(cells) else max(minutes, _UNLIMITED_MINUTES)
