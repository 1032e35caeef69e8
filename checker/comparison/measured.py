"""Figures of one cell in two runs: which moved beyond their error bar, and when that is worse.

Each kind of figure has an error bar of its own:

- figures with a 95 % interval are told when they differ by more than the larger of the two facing halves, and are worse
  (or better) when the intervals are apart. Both runs have read the same text, so their errors go together: for KL of
  NF4, FP4 and int8, and of NF4 before and after a damage, the bar of the difference, position by position, is 0.75 to
  1.2 times the larger half. What is told has moved, then, and what is worse has clearly moved;
- figures of a layer's file are the same to the last digit when the file is. R is told from 1 % on (5 % where weights
  were sampled) and is worse from 10 % on, for another calibration run moves it by some per cent;
- bytes are exact. They are told from the first one on, and worse from 0.1 % on, for some state is text that another
  version writes a few bytes longer (2 % after the first forward, which some processors prepare by repacking);
- what depends on the machine as much as on the model (the loss on a text, modules against their decoded weights) is
  told, and is left to the checks to judge.

A report may be somebody else's: whatever does not have the expected shape is passed over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from checker.comparison.data import Direction, FigureChange, Interval
from checker.domain import CellResult, Json

NAMES = {"Infinity": math.inf, "-Infinity": -math.inf}  # numbers that JSON lacks, as report.json names them
LOWER_BOUND = 0.8  # KL from a recorded reference is at least this share of the full value
ALREADY_GOOD = 1.0  # an R below is no better for being lower


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """How far a figure may go: a share of what it was, or this much, whichever is more."""

    share: float = 0.0
    amount: float = 0.0

    def passed(self, old: float, new: float) -> bool:
        """Whether two figures lie farther apart."""
        if math.isinf(old) or math.isinf(new):
            return old != new
        return abs(new - old) > max(self.share * abs(old), self.amount)


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """Where a figure stands and how to read it. ``clear`` None: a move is told and never judged."""

    key: str  # of the cell's measurements
    name: str
    check: str
    label: str
    unit: str = ""
    told: Bar = Bar()
    clear: Bar | None = None
    higher_is_better: bool = False

    @property
    def id(self) -> str:
        """Its path in the measurements: ``weights.R``."""
        return f"{self.key}.{self.name}"


_DIVERGENCE, _MEMORY, _FOOTPRINT, _ERROR = "outputs.divergence", "memory.ratio", "memory.footprint", "weights.error"
ESTIMATES = (
    Figure(key=_DIVERGENCE, name="kl", check=_DIVERGENCE, label="KL divergence", unit="nats"),
    Figure(
        key=_DIVERGENCE, name="top1", check=_DIVERGENCE, label="top-1 agreement", unit="share", higher_is_better=True
    ),
    Figure(key=_DIVERGENCE, name="perplexity_ratio", check=_DIVERGENCE, label="perplexity ratio"),
)
SINGLE = (
    Figure(
        key=_MEMORY, name="stored_bytes", check=_MEMORY, label="stored", unit="bytes", clear=Bar(share=0.001)
    ),
    Figure(
        key=_FOOTPRINT, name="true_bytes", check=_FOOTPRINT, label="in memory", unit="bytes", clear=Bar(share=0.001)
    ),
    Figure(
        key=_FOOTPRINT, name="true_bytes_after_forward", check=_FOOTPRINT, label="in memory after the first forward",
        unit="bytes", clear=Bar(share=0.02),
    ),
    Figure(
        key="outputs.likelihood", name="nll", check="", label="loss on the baseline's own text",
        unit="nats per token", told=Bar(amount=0.02),
    ),
)  # fmt: skip
RATIO = Figure(
    key="weights", name="R", check=_ERROR, label="R", told=Bar(share=0.01), clear=Bar(share=0.1)
)  # fmt: skip
MODULE = Figure(
    key="outputs.modules", name="error", check=_DIVERGENCE, label="module against its decoded weight",
    told=Bar(share=1.0, amount=0.002),
)  # fmt: skip
WHOLE = Figure(
    key="weights", name="nrmse", check=_ERROR, label="relative error of all weights", unit="share",
    told=Bar(share=0.01), clear=Bar(share=0.1),
)  # fmt: skip
LAYERS = Figure(key="weights", name="layers", check=_ERROR, label="layers compared with the baseline")
SAMPLED = Bar(share=0.05)  # of R and of the error of all weights, where one of the reports read samples


def figure_changes(old: CellResult, new: CellResult) -> tuple[FigureChange, ...]:
    """The figures that moved, by kind; of layers the worst first."""
    before, now = old.measurements, new.measurements
    found = (*_estimates(before, now), *_single(before, now), *_weights(before, now), *_rows(MODULE, before, now))
    order = list(Direction)
    return tuple(sorted(found, key=lambda change: order.index(change.direction)))


def number(figure: Json) -> float | None:
    """A figure of a report as a float, infinite ones by their name; None for what is none, NaN included."""
    if isinstance(figure, str):
        return NAMES.get(figure)
    if isinstance(figure, bool) or not isinstance(figure, int | float):
        return None
    try:
        value = float(figure)
    except OverflowError:  # an integer of four hundred digits
        return None
    return None if math.isnan(value) else value


def interval(figure: Json) -> Interval | None:
    """``{"value", "low", "high"}``; None for what is none, or is in no order."""
    if not isinstance(figure, Mapping):
        return None
    value, low, high = (number(figure.get(name)) for name in ("value", "low", "high"))
    if value is None or low is None or high is None or not low <= value <= high:
        return None
    return Interval(value=value, low=low, high=high)


def _estimates(before: Mapping[str, Json], now: Mapping[str, Json]) -> Iterator[FigureChange]:
    tables = _table(before, _DIVERGENCE), _table(now, _DIVERGENCE)
    for figure in ESTIMATES:
        old, new = (interval(table.get(figure.name)) for table in tables)
        if old is None or new is None:
            continue
        noise = 0.0
        bars = (old, new)
        if figure.name == "kl":
            noise = max(number(table.get("self_noise")) or 0.0 for table in tables)
            bars = _comparable(old, new, *(table.get("reference") for table in tables))
        moved, apart = _moved(*bars, noise)
        if moved:
            yield FigureChange(
                id=figure.id,
                check=figure.check,
                label=figure.label,
                unit=figure.unit,
                direction=_way(figure, old.value, new.value) if apart else Direction.CHANGED,
                old=old.value,
                new=new.value,
                old_interval=old,
                new_interval=new,
            )


def _comparable(old: Interval, new: Interval, old_reference: Json, new_reference: Json) -> tuple[Interval, Interval]:
    """The KL of a recorded reference is a lower bound: beside a full one, it may be as much higher."""
    if old_reference == new_reference:
        return old, new
    return _widened(old, old_reference), _widened(new, new_reference)


def _widened(item: Interval, reference: Json) -> Interval:
    return replace(item, high=item.high / LOWER_BOUND) if reference == "recorded" else item


def _moved(old: Interval, new: Interval, noise: float) -> tuple[bool, bool]:
    """Whether two estimates differ by more than their bars, and whether their intervals are apart."""
    lower, upper = (old, new) if old.value < new.value else (new, old)
    gap = upper.value - lower.value
    if not gap > noise:
        return False, False
    apart = upper.low > lower.high
    return apart or gap > max(lower.high - lower.value, upper.value - upper.low), apart


def _single(before: Mapping[str, Json], now: Mapping[str, Json]) -> Iterator[FigureChange]:
    for figure in SINGLE:
        old, new = (number(_table(side, figure.key).get(figure.name)) for side in (before, now))
        yield from _change(figure, old, new, figure.told)


def _weights(before: Mapping[str, Json], now: Mapping[str, Json]) -> Iterator[FigureChange]:
    """R of each layer, the error of all layers together, and how many there are."""
    rows = [row for side in (before, now) for row in _list(side, "weights")]
    told = SAMPLED if any(row.get("sampled") is True for row in rows) else None
    errors = [_column(side, "weights", WHOLE.name) for side in (before, now)]
    common = sorted(errors[0].keys() & errors[1].keys())
    if common:
        old, new = (math.sqrt(sum(side[name] * side[name] for name in common) / len(common)) for side in errors)
        yield from _change(WHOLE, old, new, told or WHOLE.told)
        yield from _change(LAYERS, len(errors[0]), len(errors[1]), LAYERS.told)
    yield from _rows(RATIO, before, now, told)


def _rows(
    figure: Figure, before: Mapping[str, Json], now: Mapping[str, Json], told: Bar | None = None
) -> Iterator[FigureChange]:
    old, new = (_column(side, figure.key, figure.name) for side in (before, now))
    for layer in sorted(old.keys() & new.keys(), key=lambda name: -new[name]):
        yield from _change(figure, old[layer], new[layer], told or figure.told, layer)


def _change(figure: Figure, old: float | None, new: float | None, told: Bar, where: str = "") -> Iterator[FigureChange]:
    if old is None or new is None or old == new or not told.passed(old, new):
        return
    clear = figure.clear is not None and figure.clear.passed(old, new)
    yield FigureChange(
        id=figure.id,
        check=figure.check,
        label=figure.label,
        unit=figure.unit,
        direction=_way(figure, old, new) if clear else Direction.CHANGED,
        old=old,
        new=new,
        where=where,
    )


def _way(figure: Figure, old: float, new: float) -> Direction:
    if (new > old) is not figure.higher_is_better:
        return Direction.WORSE
    return Direction.CHANGED if figure is RATIO and old <= ALREADY_GOOD else Direction.BETTER


def _table(side: Mapping[str, Json], key: str) -> Mapping[str, Json]:
    found = side.get(key)
    return found if isinstance(found, Mapping) else {}


def _list(side: Mapping[str, Json], key: str) -> list[Mapping[str, Json]]:
    found = side.get(key)
    return [row for row in found if isinstance(row, Mapping)] if isinstance(found, list | tuple) else []


def _column(side: Mapping[str, Json], key: str, name: str) -> dict[str, float]:
    """One figure of every layer that has it."""
    rows = ((row.get("layer"), number(row.get(name))) for row in _list(side, key))
    return {layer: figure for layer, figure in rows if isinstance(layer, str) and figure is not None}
