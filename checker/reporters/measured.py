"""What a cell's measurements hold, read as if somebody else had written them: what has the wrong shape is absent.

Figures stay as they are (nats, bytes, ratios); names and texts are foreign and still to be escaped.
"""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from checker.domain import CellResult, Json
from checker.reporters.json_v1 import non_finite

_NAMES = {non_finite(figure): figure for figure in (math.nan, math.inf, -math.inf)}
_LARGEST_BIN, _BINS, _LARGEST_COUNT = 12.0, 80, 1e9  # log10 of nats; how many bins, and how many in one, are believed
_ROWS = 100_000  # of one list: more is no model that exists
_DIGITS = re.compile(r"(\d+)")
_MAX_DIGITS = 18
_REMEMBERED = 1_000  # cells


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A figure and, where known, its 95 % interval."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Divergence:
    """``outputs.divergence``: KL in nats per position, and the figures beside it."""

    positions: int | None
    recorded: bool  # the reference holds the 256 most likely tokens only, so that KL is a lower bound
    kl: Interval | None
    expected: float | None
    excess: float | None  # KL over what the quantization explains
    top1: Interval | None
    perplexity: float | None
    baseline_perplexity: float | None
    perplexity_ratio: Interval | None
    delta_p_mean: float | None
    delta_p_rms: float | None
    entropy_ratio: float | None
    percentiles: Mapping[str, float]
    histogram: tuple[tuple[float, int], ...]  # log10 of the lower edge, half a decade wide; how many positions


class Layer(typing.NamedTuple):
    """A row of ``weights``: ``ratio`` is the error over what scales and codes predict, about 1 when healthy.

    There may be tens of thousands, so the other figures are read when they are asked for.
    """

    name: str
    ratio: float
    row: Mapping[str, Json]

    @property
    def nrmse(self) -> float | None:
        """The relative error ‖Ŵ−W‖/‖W‖."""
        return number(self.row.get("nrmse"))

    @property
    def sqnr_db(self) -> float | None:
        """The signal over the noise, in decibels."""
        return number(self.row.get("sqnr_db"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A row of ``outputs.blocks``: relative distances, of all up to here and of this block alone."""

    name: str
    drift: float | None = None
    error: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A row of ``texts``; ``same`` is the number of characters before the first difference, None without a baseline."""

    prompt: str
    text: str
    baseline: str | None = None
    accepted: bool | None = None
    agreement: float | None = None
    same: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Bytes:
    """One length of memory: what it is of, and how many bytes."""

    label: str
    count: float
    predicted: bool = False
    baseline: bool = False


_sorted: dict[str, tuple[Json, list[Layer]]] = {}  # by cell id


def number(figure: Json) -> float | None:
    """A finite number as a float; None for all else, an integer beyond every float included."""
    if isinstance(figure, bool) or not isinstance(figure, int | float):
        return None
    try:
        return float(figure) if math.isfinite(figure) else None
    except OverflowError:
        return None


def figure(value: Json) -> float | None:
    """Any number, also one that JSON lacks, whether it comes from a check or, as a name, from a report."""
    if isinstance(value, float):
        return value
    return _NAMES.get(value) if isinstance(value, str) else number(value)


def divergence(cell: CellResult) -> Divergence | None:
    """``outputs.divergence``, or None when it was not measured."""
    raw = cell.measurements.get("outputs.divergence")
    if not isinstance(raw, Mapping):
        return None
    percentiles, delta, positions = raw.get("kl_percentiles"), raw.get("delta_p"), number(raw.get("positions"))
    known = (
        {} if not isinstance(percentiles, Mapping) else {str(key): figure(item) for key, item in percentiles.items()}
    )
    return Divergence(
        positions=None if positions is None else int(positions),
        recorded=raw.get("reference") == "recorded",
        kl=interval(raw.get("kl")),
        expected=number(raw.get("expected_kl")),
        excess=figure(raw.get("excess")),
        top1=interval(raw.get("top1")),
        perplexity=figure(raw.get("perplexity")),
        baseline_perplexity=figure(raw.get("baseline_perplexity")),
        perplexity_ratio=interval(raw.get("perplexity_ratio")),
        delta_p_mean=figure(delta.get("mean")) if isinstance(delta, Mapping) else None,
        delta_p_rms=figure(delta.get("rms")) if isinstance(delta, Mapping) else None,
        entropy_ratio=figure(raw.get("entropy_ratio")),
        percentiles={key: item for key, item in known.items() if item is not None},
        histogram=tuple(sorted(_bins(raw.get("kl_histogram")))),
    )


def interval(raw: Json) -> Interval | None:
    """``{"value":, "low":, "high":}``, its bounds only where both are numbers."""
    value = figure(raw.get("value")) if isinstance(raw, Mapping) else None
    if value is None:
        return None
    low, high = number(raw.get("low")), number(raw.get("high"))
    return Interval(value=value) if low is None or high is None else Interval(value=value, low=low, high=high)


def layers(cell: CellResult) -> list[Layer]:
    """The layers of ``weights`` that have a ratio, in the order of their names, block 2 before block 10.

    Several reports ask for them after every check, hence a memory of those measurements that are still the same.
    """
    raw = cell.measurements.get("weights")
    known = _sorted.get(cell.cell.id)
    if known is None or known[0] is not raw:
        if len(_sorted) >= _REMEMBERED:
            _sorted.clear()
        known = _sorted[cell.cell.id] = raw, sorted(_layers(cell), key=lambda layer: natural(layer.name))
    return known[1]


def worst_layer(cell: CellResult) -> tuple[str, float] | None:
    """The layer whose error is the largest multiple R of what its scales and codes predict; NaN counts as infinite."""
    worst = max(_layers(cell), key=lambda layer: badness(layer.ratio), default=None)
    return None if worst is None else (worst.name, badness(worst.ratio))


def blocks(cell: CellResult) -> list[Block]:
    """The blocks of ``outputs.blocks`` in the order in which they run."""
    rows = (
        Block(name=str(row.get("block", "")), drift=figure(row.get("drift")), error=figure(row.get("error")))
        for row in _rows(cell, "outputs.blocks")
    )
    return [row for row in rows if row.drift is not None or row.error is not None]


def modules(cell: CellResult) -> list[tuple[str, float]]:
    """Names and errors of ``outputs.modules``, the worst first."""
    rows = ((str(row.get("layer", "")), figure(row.get("error"))) for row in _rows(cell, "outputs.modules"))
    return sorted(((name, error) for name, error in rows if error is not None), key=lambda row: -badness(row[1]))


def libraries(cell: CellResult) -> dict[str, str]:
    """The packages laid over the installed ones, as the worker saw them, else as the matrix wants them."""
    raw = cell.measurements.get("libraries")
    found = raw if isinstance(raw, Mapping) else cell.cell.libraries
    return {str(name): str(version) for name, version in found.items()}


def not_compared(cell: CellResult) -> list[str]:
    """How many modules could not be compared, and why, a sentence for each reason."""
    rows = _rows(cell, "outputs.modules.not_compared")
    return [
        f"{value:.0f} not compared: {row['reason']}"
        for row in rows
        if (value := number(row.get("modules"))) and "reason" in row
    ]


def texts(cell: CellResult) -> list[Text]:
    """The continuations that were compared."""
    found = []
    for row in _rows(cell, "texts"):
        text, baseline, accepted = row.get("text"), row.get("baseline"), row.get("accepted")
        if isinstance(text, str):
            other = baseline if isinstance(baseline, str) else None
            found.append(
                Text(
                    prompt=str(row.get("prompt", "")),
                    text=text,
                    baseline=other,
                    accepted=accepted if isinstance(accepted, bool) else None,
                    agreement=number(row.get("agreement")),
                    same=None if other is None else _same(text, other),
                )
            )
    return found


def likelihood(cell: CellResult) -> tuple[float, float] | None:
    """Nats per token of the baseline's own text, under the quantized model and under the baseline."""
    raw = cell.measurements.get("outputs.likelihood")
    if not isinstance(raw, Mapping):
        return None
    ours, theirs = figure(raw.get("nll")), figure(raw.get("baseline_nll"))
    return None if ours is None or theirs is None else (ours, theirs)


def sizes(cell: CellResult) -> list[Bytes]:
    """Every length of memory that is known: the baseline's, then files, then the loaded model, prediction first."""
    found = []
    for key, name, label in (
        ("memory.ratio", "baseline_bytes", "baseline"),
        ("memory.ratio", "predicted_bytes", "files, predicted"),
        ("memory.ratio", "stored_bytes", "files"),
        ("memory.footprint", "predicted_true_bytes", "loaded, predicted"),
        ("memory.footprint", "true_bytes", "loaded"),
        ("memory.footprint", "true_bytes_after_forward", "after a forward"),
    ):
        raw = cell.measurements.get(key)
        count = number(raw.get(name)) if isinstance(raw, Mapping) else None
        if count is not None and count >= 0:
            predicted, baseline = label.endswith("predicted"), label == "baseline"
            found.append(Bytes(label=label, count=count, predicted=predicted, baseline=baseline))
    return found


def badness(error: float) -> float:
    """An error to sort by: not a number is the worst."""
    return math.inf if math.isnan(error) else error


def natural(name: str) -> list[tuple[int, str]]:
    """A key that puts ``layers.2`` before ``layers.10``."""
    parts = _DIGITS.split(name)
    return [(int(part), "") if part.isdecimal() and len(part) <= _MAX_DIGITS else (-1, part) for part in parts]


def _same(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (ours, theirs) in pairs if ours != theirs), min(len(one), len(other)))


def _layers(cell: CellResult) -> Iterator[Layer]:
    for row in _rows(cell, "weights"):
        ratio = figure(row.get("R"))
        if ratio is not None:
            yield Layer(str(row.get("layer", "")), ratio, row)


def _rows(cell: CellResult, key: str) -> Iterator[Mapping[str, Json]]:
    raw = cell.measurements.get(key)
    if isinstance(raw, list | tuple):
        yield from (row for row in raw[:_ROWS] if isinstance(row, dict | Mapping))


def _bins(raw: Json) -> Iterator[tuple[float, int]]:
    if not isinstance(raw, list | tuple):
        return
    for row in raw[:_BINS]:
        if isinstance(row, list | tuple) and len(row) == 2:  # noqa: PLR2004 - an edge and a count
            edge, count = number(row[0]), number(row[1])
            if edge is not None and count is not None and abs(edge) <= _LARGEST_BIN and 1 <= count <= _LARGEST_COUNT:
                yield edge, int(count)
