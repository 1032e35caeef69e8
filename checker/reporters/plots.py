"""Plots as geometry: numbers go in, path data and positions come out, and no foreign text is ever near.

Everything lies on a square of 100 by 100 that is stretched to its place; strokes keep their width, and the labels
are HTML, so that they stay readable on a phone. A dot is a line of no length with round ends.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

SIDE = 100.0
_FINE = 120  # more values than that are smaller dots
_DOTS = 400  # more values than that are shown as columns from the least to the largest
_COLUMNS = 200
_TICKS = 5
_ENOUGH = 3  # ticks that make an axis readable
_FLOOR, _CEILING = 1e-9, 1e9  # what is beyond lies at the ends of an axis
_HALF_DECADE = 0.5
_LOG_SPAN = 8.0  # largest over least, from which on a logarithmic axis tells more
_STEPS: tuple[tuple[float, ...], ...] = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))


@dataclass(frozen=True, kw_only=True, slots=True)
class Tick:
    """A labelled position on an axis, in per cent of its length from left or bottom."""

    at: float
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A numbered point, in per cent from the left and from the top."""

    x: float
    y: float
    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """Paths by what they show (``dots``, ``line``, …), and what stands around them."""

    paths: dict[str, str]
    rows: tuple[Tick, ...] = ()
    columns: tuple[Tick, ...] = ()
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """Maps figures to 0…100; what is beyond its ends is drawn at them."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where a figure lies; no number lies at the far end, where the eye looks first."""
        if math.isnan(value):
            return SIDE
        clamped = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(clamped / self.low) / math.log(self.high / self.low)
        else:
            share = (clamped - self.low) / (self.high - self.low)
        return SIDE * min(max(0.0, share), 1.0)

    def ticks(self, *, share: bool = False) -> tuple[Tick, ...]:
        """Three to five round figures, fewer where the axis has no more; in per cent for a ``share``."""
        values = _log_ticks(self.low, self.high) if self.log else _linear_ticks(self.low, self.high)
        texts = (f"{value * 100:g}%" if share else f"{value:g}" for value in values)
        return tuple(Tick(at=round(self.at(value), 1), text=text) for value, text in zip(values, texts, strict=True))


def ratios(values: Sequence[float], flagged: Sequence[int], limits: Iterable[float]) -> Plot:
    """R of every layer on a logarithmic axis around 1; ``flagged``: which have findings, the worst first."""
    limits = _placeable(limits)
    known = _placeable(values)
    axis = Axis(low=min((0.7, *known, *limits)) / 1.1, high=max((1.6, *known, *limits)) * 1.1, log=True)
    paths = {f"limit{number}": _level(axis.at(limit)) for number, limit in enumerate(sorted({*limits}))}
    paths["one"] = _level(axis.at(1.0))
    return _points(values, flagged, axis, paths)


def blocks(drifts: Sequence[float | None], errors: Sequence[float | None], marked: int | None = None) -> Plot:
    """A line of how far the blocks have drifted, a dot for the error of each; one of the blocks may be marked."""
    known = _placeable(value for value in (*drifts, *errors) if value is not None)
    if not known:
        return Plot(paths={})
    log = max(known) > _LOG_SPAN * min(known)
    axis = Axis(low=min(known) / 1.2 if log else 0.0, high=max(known) * (1.3 if log else 1.1), log=log)
    across = _across(len(drifts))
    paths = {}
    line = [(across(index), axis.at(value)) for index, value in enumerate(drifts) if value is not None]
    if line:
        paths["line"] = "M" + "L".join(f"{_xy(x, y)}" for x, y in line)
        paths["area"] = f"{paths['line']}V{_number(SIDE)}H{_number(line[0][0])}Z"
    dots = [(across(index), axis.at(value)) for index, value in enumerate(errors) if value is not None]
    if dots:
        paths["dots"] = "".join(f"M{_xy(x, y)}h0" for x, y in dots)
    marks: tuple[Mark, ...] = ()
    if marked is not None:
        value = drifts[marked] if errors[marked] is None else errors[marked]
        height = 0.0 if value is None else axis.at(value)
        marks = (Mark(x=round(across(marked), 1), y=round(SIDE - height, 1), number=1),)
    return Plot(paths=paths, rows=axis.ticks(share=True), marks=marks)


def histogram(
    bins: Sequence[tuple[float, int]], mean: tuple[float, float, float] | None, expected: float | None
) -> Plot:
    """Counts by half decades; ``mean`` with the ends of its interval, and what was expected, as upright lines."""
    if not bins:
        return Plot(paths={})
    low, high = bins[0][0], bins[-1][0] + _HALF_DECADE
    for figure in (*(mean or ()), *([] if expected is None else [expected])):
        if _FLOOR < figure < _CEILING:
            low, high = min(low, math.log10(figure) - 0.1), max(high, math.log10(figure) + 0.1)
    axis, tallest = Axis(low=low, high=high), max(count for _, count in bins) * 1.08
    paths = {
        "bars": "".join(
            f"M{_number(axis.at(edge) + 0.3)} {_number(SIDE)}V{_number(SIDE - SIDE * count / tallest)}"
            f"H{_number(axis.at(edge + _HALF_DECADE) - 0.3)}V{_number(SIDE)}Z"
            for edge, count in bins
        )
    }
    if mean is not None and _FLOOR < mean[0] < _CEILING:
        value, start, end = (_number(axis.at(math.log10(max(figure, _FLOOR)))) for figure in mean)
        paths |= {"range": f"M{start} 0H{end}V100H{start}Z", "mean": f"M{value} 0V100"}
    if expected is not None and _FLOOR < expected < _CEILING:
        paths["expected"] = f"M{_number(axis.at(math.log10(expected)))} 0V100"
    decades = range(math.ceil(low), math.floor(high) + 1)
    every = max(1, math.ceil(len(decades) / _TICKS))
    columns = (Tick(at=round(axis.at(decade), 1), text=f"{10.0**decade:g}") for decade in decades[::every])
    return Plot(paths=paths, columns=tuple(columns))


def binned(values: Sequence[float], columns: int) -> list[tuple[float, float]]:
    """Least and largest of each of at most so many runs of neighbours; not a number counts as infinite."""
    clean = [math.inf if math.isnan(value) else value for value in values]
    count = min(columns, len(clean))
    edges = [round(number * len(clean) / count) for number in range(count + 1)] if count else []
    return [(min(part), max(part)) for part in (clean[a:b] for a, b in itertools.pairwise(edges))]


def _points(values: Sequence[float], flagged: Sequence[int], axis: Axis, paths: dict[str, str]) -> Plot:
    across = _across(len(values))
    bad = {*flagged}
    if len(values) > _DOTS:
        columns = binned(values, _COLUMNS)
        place = _across(len(columns))
        paths["columns"] = "".join(
            f"M{_xy(place(index), axis.at(least))}V{_number(SIDE - axis.at(largest))}"
            for index, (least, largest) in enumerate(columns)
        )
        bad = {*flagged[:_COLUMNS]}
    else:
        good = ((across(index), axis.at(value)) for index, value in enumerate(values) if index not in bad)
        paths["fine" if len(values) > _FINE else "dots"] = "".join(f"M{_xy(x, y)}h0" for x, y in good)
    if bad:
        paths["bad"] = "".join(f"M{_xy(across(index), axis.at(values[index]))}h0" for index in sorted(bad))
    marks = tuple(
        Mark(x=round(across(index), 1), y=round(SIDE - axis.at(values[index]), 1), number=number)
        for number, index in enumerate(flagged[:_TICKS], 1)
    )
    return Plot(paths=paths, rows=axis.ticks(), marks=marks)


def _placeable(values: Iterable[float]) -> list[float]:
    return [value for value in values if _FLOOR < value < _CEILING]


def _across(count: int) -> Callable[[int], float]:
    """Where the i-th of so many lies, half a step from either side."""
    return lambda index: SIDE * (index + 0.5) / count


def _level(height: float) -> str:
    return f"M0 {_number(SIDE - height)}H100"


def _xy(x: float, y: float) -> str:
    return f"{_number(x)} {_number(SIDE - y)}"


def _number(value: float) -> str:
    text = f"{value:.1f}"
    return text.removesuffix(".0")


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found: list[float] = []
    for steps in _STEPS:
        grid = [step * 10.0**decade for decade in range(first, last + 1) for step in steps]
        found = [value for value in grid if low <= value <= high]
        if len(found) >= _ENOUGH:
            break
    every = math.ceil(len(found) / _TICKS)
    anchor = min(range(len(found)), key=lambda index: abs(math.log(found[index])), default=0)
    return [value for index, value in enumerate(found) if (index - anchor) % every == 0] if found else []


def _linear_ticks(low: float, high: float) -> list[float]:
    magnitude = 10.0 ** math.floor(math.log10((high - low) / _ENOUGH))
    step = next(size for factor in (1, 2, 5, 10) if (high - low) / (size := factor * magnitude) <= _TICKS)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
