"""Charts made of characters, for places that show neither pictures nor styles: a line of bars, and one long bar.

They stand in code spans, where every reader has a fixed width. Numbers go in, block elements come out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from checker.reporters.plots import binned

EXPECTED = "│"
_LEVELS = "▁▂▃▄▅▆▇█"
_WIDTH = 24  # bars of a line
_CALM, _LOUD = 1.05, 10.0  # R of the lowest and of the highest bar
_PER_WHOLE, _WHOLES = 4, 3  # characters for as much as expected, and how many times that is shown
_SHARE = 10  # characters for all of the baseline's bytes
_FULL, _EMPTY, _BEYOND = "█", "░", "▶"


def ratios(values: Sequence[float]) -> str:
    """R from the first layer to the last, the largest of each of up to 24 groups; on one scale for all models."""
    return "".join(_level(largest) for _, largest in binned(values, _WIDTH))


def excess(times: float) -> str:
    """KL as a multiple of the expected, which is at the upright line; beyond three times it, an arrow."""
    count = _WHOLES * _PER_WHOLE
    filled = count if not math.isfinite(times) else round(min(max(times, 0.0), _WHOLES) * _PER_WHOLE)
    bar = _FULL * filled + _EMPTY * (count - filled)
    return bar[:_PER_WHOLE] + EXPECTED + bar[_PER_WHOLE:] + ("" if times <= _WHOLES else _BEYOND)


def share(part: float) -> str:
    """A part of a whole."""
    filled = round(min(max(part, 0.0), 1.0) * _SHARE)
    return _FULL * filled + _EMPTY * (_SHARE - filled)


def _level(value: float) -> str:
    if value <= _CALM:
        return _LEVELS[0]
    if value >= _LOUD:
        return _LEVELS[-1]
    return _LEVELS[math.ceil(math.log(value / _CALM) / math.log(_LOUD / _CALM) * (len(_LEVELS) - 2))]
