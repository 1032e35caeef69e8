"""Which parts of which weights are read when not everything is: a fixed choice, of a size that no model changes."""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Sequence

from checker.architecture import pattern
from checker.coded import Window
from checker.facts import StoredWeight

MOST_WEIGHTS = 1024  # of a model; mixtures have tens of thousands
SAMPLE_VALUES = 1 << 16  # of one weight
WINDOWS = 4  # of one weight, apart from each other: rows differ
REMOTE_WINDOWS = 1  # each costs a request for codes, scales and baseline


def sample_weights(weights: Sequence[StoredWeight]) -> list[StoredWeight]:
    """All weights, or of very many the first of each kind and a fixed random choice, in file order."""
    if len(weights) <= MOST_WEIGHTS:
        return list(weights)
    kinds: dict[str, int] = {}
    for index, weight in enumerate(weights):
        kinds.setdefault(pattern(weight.module), index)
    chosen = set(list(kinds.values())[:MOST_WEIGHTS])
    rest = [index for index in range(len(weights)) if index not in chosen]
    chosen.update(random.Random(0).sample(rest, MOST_WEIGHTS - len(chosen)))  # noqa: S311 - a fixed choice is wanted
    return [weights[index] for index in sorted(chosen)]


def sample_windows(weight: StoredWeight, count: int = WINDOWS, least_rows: int = 1) -> tuple[Window | None, ...]:
    """``count`` windows of a weight's grid that hold ``SAMPLE_VALUES`` together; None stands for all of a small weight.

    Each has at least ``least_rows`` rows. They begin and end where the layout allows it (``StoredWeight.grain``); the
    place of each within its share of the weight is random, and the same every time.
    """
    rows, columns = weight.grid
    if rows * columns <= 2 * SAMPLE_VALUES or not rows * columns:
        return (None,)
    grain = (max(1, weight.grain[0]), weight.grain[1] or columns)
    share = SAMPLE_VALUES // count
    wide = columns if not weight.grain[1] else min(columns, _up(share if rows == 1 else 1, grain[1]))
    high = min(rows, _up(max(math.ceil(share / wide), least_rows), grain[0]))
    chance = random.Random(zlib.crc32(weight.weight.encode()))  # noqa: S311 - a fixed choice is wanted
    found: list[Window] = []
    for number in range(count):
        top = _place(number / count, rows, high, grain[0], chance)
        left = _place(number / count, columns, wide, grain[1], chance)
        window = Window(rows=slice(top, min(top + high, rows)), columns=slice(left, min(left + wide, columns)))
        if window not in found:
            found.append(window)
    return tuple(found)


def _up(value: int, step: int) -> int:
    return math.ceil(value / step) * step


def _place(share: float, size: int, length: int, step: int, chance: random.Random) -> int:
    """Where a window begins along one axis: a multiple of the step, in the part of the axis after ``share`` of it."""
    free = max(0, size - length) // step + 1  # places there are
    low = int(share * free)
    return min(low + chance.randrange(max(1, free // WINDOWS)), free - 1) * step
