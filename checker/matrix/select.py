"""Parts of a matrix: by name, by shard. Pure functions of cells; no network, no file is opened."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from checker.config_values import did_you_mean
from checker.domain import Cell
from checker.errors import UsageError

Key = TypeVar("Key")
Value = TypeVar("Value")
_WILD = frozenset("*?[")


def only(cells: Sequence[Cell], globs: Sequence[str]) -> tuple[Cell, ...]:
    """The cells that any of the globs matches, all without globs; ``*`` matches ``/``.

    Raises:
        UsageError: a glob matches no cell, so that a misspelt name cannot pass for an empty success.
    """
    ids = [cell.id for cell in cells]
    names = {*ids}
    chosen: set[str] = set()
    for glob in dict.fromkeys(globs):
        matched = names & {glob}
        if _WILD & {*glob}:  # a job names its cells by their ids, thousands of them
            matched |= {name for name in ids if fnmatchcase(name, glob)}
        if not matched:
            raise UsageError(f"no cell matches {glob!a}{did_you_mean(glob, ids)}")
        chosen |= matched
    return tuple(cell for cell in cells if not globs or cell.id in chosen)


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
    groups = grouped((cell.baseline or cell.id, cell) for cell in cells)
    pieces = [group[start : start + share] for group in groups.values() for start in range(0, len(group), share)]
    loads = [0] * min(count, len(pieces))
    chosen: set[str] = set()
    for piece in sorted(pieces, key=len, reverse=True):
        lightest = loads.index(min(loads))
        loads[lightest] += len(piece)
        if lightest == index - 1:
            chosen.update(cell.id for cell in piece)
    return tuple(cell for cell in cells if cell.id in chosen)


def grouped(pairs: Iterable[tuple[Key, Value]]) -> dict[Key, list[Value]]:
    """Values by key, both in the order in which they come."""
    groups: dict[Key, list[Value]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups
