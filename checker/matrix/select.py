"""Parts of a matrix: by name, by shard, by job. Pure functions of cells; no network, no file is opened."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from checker.config_values import did_you_mean
from checker.domain import Cell, Json
from checker.errors import UsageError

Key = TypeVar("Key")
Value = TypeVar("Value")
MAX_JOBS = 256  # GitHub's limit for one job matrix
_HOSTED_RUNNER = "ubuntu-latest"
_UNLIMITED_MINUTES = 360  # GitHub's own default for a job
_SETUP_MINUTES = 30  # installation and downloads, which no cell's time limit counts


def only(cells: Sequence[Cell], globs: Sequence[str]) -> tuple[Cell, ...]:
    """The cells that any of the globs matches, all without globs; ``*`` matches ``/``.

    Raises:
        UsageError: a glob matches no cell, so that a misspelt name cannot pass for an empty success.
    """
    ids = [cell.id for cell in cells]
    for pattern in globs:
        if not any(fnmatchcase(name, pattern) for name in ids):
            raise UsageError(f"no cell matches {pattern!a}{did_you_mean(pattern, ids)}")
    return tuple(cell for cell in cells if not globs or any(fnmatchcase(cell.id, pattern) for pattern in globs))


def shard(cells: Sequence[Cell], index: int, count: int) -> tuple[Cell, ...]:
    """The cells of shard ``index`` of ``count`` (from 1), in the order of the matrix.

    The rule: a fair share is the number of cells over the number of shards, rounded up. The cells of one baseline form
    a piece, because they need its reference just once; a piece larger than a fair share is cut into fair shares. The
    largest piece goes first (among equals the one that stands first), each to the shard that has the fewest cells so
    far (among equals the first). So no shard holds as much as two fair shares, and the same matrix always gives the
    same shards.

    Raises:
        UsageError: there is no such shard.
    """
    if not 1 <= index <= count:
        raise UsageError(f"there is no shard {index}/{count}; the first is 1/{max(count, 1)}")
    share = max(1, math.ceil(len(cells) / count))
    groups = _grouped((cell.baseline or cell.id, cell) for cell in cells)
    pieces = [group[start : start + share] for group in groups.values() for start in range(0, len(group), share)]
    loads = [0] * min(count, len(pieces))
    chosen: set[str] = set()
    for piece in sorted(pieces, key=len, reverse=True):
        lightest = loads.index(min(loads))
        loads[lightest] += len(piece)
        if lightest == index - 1:
            chosen.update(cell.id for cell in piece)
    return tuple(cell for cell in cells if cell.id in chosen)


def plan(cells: Sequence[Cell], max_jobs: int = MAX_JOBS) -> dict[str, Json]:
    """The job matrix for ``fromJSON``: one job per baseline and machine (``runs-on``, ``gpus``).

    Cells without a baseline share a job when they come from one model entry. When there are more than ``max_jobs``,
    the two smallest jobs of one kind of machine are joined until there are not.

    Raises:
        UsageError: there are more kinds of machines than jobs allowed.
    """
    keyed = ((_Machine(runs_on=cell.settings.runs_on, gpus=cell.settings.gpus), cell) for cell in cells)
    groups = _grouped(((machine, cell.baseline or _model(cell)), cell) for machine, cell in keyed)
    machines = _grouped((machine, group) for (machine, _), group in groups.items())
    if len(machines) > max_jobs:
        raise UsageError(f"{len(machines)} kinds of machines (runs-on, gpus) do not fit into {max_jobs} jobs")
    _join_smallest(machines, sum(map(len, machines.values())) - max_jobs)
    names: dict[str, int] = {}
    return {"include": [_job(machine, group, names) for machine, jobs in machines.items() for group in jobs]}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Machine:
    runs_on: tuple[str, ...]
    gpus: int


def _grouped(pairs: Iterable[tuple[Key, Value]]) -> dict[Key, list[Value]]:
    groups: dict[Key, list[Value]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def _model(cell: Cell) -> str:
    """The part of the id that names the model entry."""
    return cell.id.partition("/")[0]


def _join_smallest(machines: Mapping[_Machine, list[list[Cell]]], surplus: int) -> None:
    """Join jobs in place, ``surplus`` times two into one, never across machines."""
    for _ in range(surplus):
        for jobs in machines.values():
            jobs.sort(key=len)
        jobs = min((jobs for jobs in machines.values() if len(jobs) > 1), key=lambda jobs: len(jobs[0]) + len(jobs[1]))
        jobs[:2] = [jobs[0] + jobs[1]]


def _job(machine: _Machine, cells: Sequence[Cell], names: dict[str, int]) -> dict[str, Json]:
    return {
        "job": _job_name(cells, names),
        "cells": ",".join(cell.id for cell in cells),
        "runs-on": list(machine.runs_on) or _HOSTED_RUNNER,
        "gpus": machine.gpus,
        "timeout-minutes": _minutes(cells),
    }


def _job_name(cells: Sequence[Cell], names: dict[str, int]) -> str:
    """Made of the models' names, which may stand in the name of an artifact; numbered where it would repeat."""
    models = list(dict.fromkeys(_model(cell) for cell in cells))
    name = models[0] if len(models) == 1 else f"{models[0]}-and-{len(models) - 1}-more"
    while name in names:
        names[name] += 1
        name = f"{name}-{names[name]}"
    names[name] = 1
    return name


def _minutes(cells: Sequence[Cell]) -> int:
    """Every cell's time limit, the longest of each baseline once more for its reference, and the setup."""
    limits = [cell.settings.timeout for cell in cells if cell.settings.timeout is not None]
    if len(limits) < len(cells):
        return _UNLIMITED_MINUTES
    groups = _grouped((cell.baseline, cell.settings.timeout or 0.0) for cell in cells if cell.baseline is not None)
    return math.ceil((sum(limits) + sum(map(max, groups.values()))) / 60) + _SETUP_MINUTES
