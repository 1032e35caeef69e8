"""The figures of one cell as the page draws them: memory, divergence, layers, blocks, modules and texts.

A panel without data is None or empty, and is left out. Names and texts leave here with everything invisible made
visible; the template escapes the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from checker.domain import CellResult, Finding
from checker.reporters import figures, measured, passages, plots
from checker.reporters.escape import ELLIPSIS, one_line
from checker.reporters.figures import percent, short

_WORST = 8  # rows of a table
_WORST_BLOCKS = 5
_TEXTS = 8
_NAME, _LINE = 160, 400


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One length of memory, in per cent of the longest."""

    label: str
    size: str
    share: str
    width: float
    kind: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A figure with its name and what helps to judge it."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """A plot, a sentence for who cannot see it, a table of the worst, and what the table leaves out."""

    plot: plots.Plot
    label: str
    rows: tuple[tuple[str, ...], ...] = ()
    flagged: int = 0  # so many of the first rows are marked in the plot
    total: int = 0
    alone: bool = False  # whether blocks were also judged each on the same input
    metrics: tuple[Metric, ...] = ()
    limits: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Panels:
    """All panels of a cell."""

    memory: tuple[Bar, ...]
    divergence: Panel | None
    layers: Panel | None
    blocks: Panel | None
    modules: tuple[tuple[str, str, float], ...]  # name, error, per cent of the largest
    modules_total: int
    modules_left_out: tuple[str, ...]
    texts: tuple[passages.TextView, ...]
    texts_more: int
    likelihood: str

    @property
    def any(self) -> bool:
        """Whether there is anything to draw."""
        return any((self.memory, self.divergence, self.layers, self.blocks, self.modules, self.texts, self.likelihood))


def panels(cell: CellResult) -> Panels:
    """Every panel that the cell's measurements fill."""
    modules, texts, likelihood = measured.modules(cell), measured.texts(cell), measured.likelihood(cell)
    largest = max((error for _, error in modules if math.isfinite(error)), default=0.0)
    return Panels(
        memory=_memory(cell),
        divergence=_divergence(cell),
        layers=_layers(cell),
        blocks=_blocks(cell),
        modules=tuple((_name(name), percent(error), _width(error, largest)) for name, error in modules[:_WORST]),
        modules_total=len(modules),
        modules_left_out=tuple(one_line(text, _LINE) for text in measured.not_compared(cell)[:_WORST]),
        texts=tuple(passages.text_view(text) for text in texts[:_TEXTS]),
        texts_more=max(0, len(texts) - _TEXTS),
        likelihood="" if likelihood is None else f"{short(likelihood[0])} against {short(likelihood[1])}",
    )


def _name(name: str) -> str:
    """A layer's name; of a very long one the end, which tells more."""
    shown = one_line(name)
    return shown if len(shown) <= _NAME else ELLIPSIS + shown[1 - _NAME :]


def _width(figure: float, largest: float) -> float:
    if not math.isfinite(figure):
        return 100.0
    return round(100 * min(max(0.0, figure / largest), 1.0), 1) if largest > 0 else 0.0


def _memory(cell: CellResult) -> tuple[Bar, ...]:
    found = measured.sizes(cell)
    longest = max((entry.count for entry in found), default=0.0)
    baseline = next((entry.count for entry in found if entry.baseline), None)
    return tuple(
        Bar(
            label=entry.label,
            size=figures.size(entry.count),
            share="" if not baseline or entry.baseline else f"{entry.count / baseline:.0%}",
            width=_width(entry.count, longest),
            kind="base" if entry.baseline else "plan" if entry.predicted else "real",
        )
        for entry in found
    )


def _divergence(cell: CellResult) -> Panel | None:
    found = measured.divergence(cell)
    if found is None:
        return None
    kl, mean = found.kl, None
    if kl is not None and math.isfinite(kl.value):
        mean = (kl.value, kl.value if kl.low is None else kl.low, kl.value if kl.high is None else kl.high)
    total = found.positions or 0
    positions = f" of {total:,} positions" if total else ""
    return Panel(
        plot=plots.histogram(found.histogram, mean, found.expected),
        label=f"Histogram of the KL divergence{positions}",
        metrics=tuple(metric for metric in _metrics(found) if metric.value),
        total=total,
    )


def _metrics(found: measured.Divergence) -> Iterator[Metric]:
    """The figures beside the histogram, the one that is judged first; those without a value are empty."""
    kl, top1, ratio = found.kl, found.top1, found.perplexity_ratio
    if kl is not None:
        notes = [_range(kl.low, kl.high, short), "a lower bound" if found.recorded else ""]
        yield Metric(name="KL divergence", value=f"{short(kl.value)} nats", note="; ".join(filter(None, notes)))
    if found.excess is not None:
        note = "" if found.expected is None else f"{short(found.expected)} expected"
        yield Metric(name="KL over expected", value=f"{short(found.excess)}×", note=note)
    if top1 is not None:
        yield Metric(
            name="same most likely token", value=percent(top1.value), note=_range(top1.low, top1.high, percent)
        )
    if ratio is not None:
        both = found.perplexity is not None and found.baseline_perplexity is not None
        note = f"{short(found.perplexity)} against {short(found.baseline_perplexity)}" if both else ""
        yield Metric(name="perplexity over the baseline's", value=f"{short(ratio.value)}×", note=note)
    note = "" if found.delta_p_rms is None else f"root mean square {short(found.delta_p_rms)}"
    yield Metric(name="Δp of the true token", value=short(found.delta_p_mean), note=note)
    if found.entropy_ratio is not None:
        yield Metric(name="entropy over the baseline's", value=f"{short(found.entropy_ratio)}×")
    most = [short(found.percentiles.get(key)) for key in ("p50", "p95", "max")]
    yield Metric(name="KL at p50, p95, most", value=", ".join(most) if all(most) else "")


def _range(low: float | None, high: float | None, written: Callable[[float], str]) -> str:
    return "" if low is None or high is None else f"{written(low)} to {written(high)}"


def _layers(cell: CellResult) -> Panel | None:
    layers = measured.layers(cell)
    if not layers:
        return None
    worst = sorted(range(len(layers)), key=lambda index: -measured.badness(layers[index].ratio))
    findings = [finding for check in cell.checks if check.id == "weights.error" for finding in check.findings]
    named = _named(cell, "weights.")
    flagged = [index for index in worst if layers[index].name in named]
    shown = (flagged + [index for index in worst if layers[index].name not in named])[:_WORST]
    limits = sorted({limit for finding in findings if (limit := _limit(finding)) is not None})
    values = [layer.ratio for layer in layers]
    return Panel(
        plot=plots.ratios(values, flagged, limits),
        label=f"R of {len(layers):,} layers, from {short(min(values))} to {short(values[worst[0]])}",
        rows=tuple(
            (
                _name(layer.name),
                short(layer.ratio),
                "" if layer.nrmse is None else percent(layer.nrmse),
                short(layer.sqnr_db),
            )
            for layer in (layers[index] for index in shown)
        ),
        flagged=min(len(flagged), 5),
        total=len(layers),
        limits=f"limit {' and '.join(f'{limit:g}' for limit in limits)}" if limits else "",
    )


def _limit(finding: Finding) -> float | None:
    return measured.number(finding.limit) if finding.unit == "R" else None


def _blocks(cell: CellResult) -> Panel | None:
    blocks = measured.blocks(cell)
    if not blocks:
        return None
    alone = any(block.error is not None for block in blocks)

    drifts = [block.drift for block in blocks]
    weights = [block.error if alone else _step(blocks, index) for index, block in enumerate(blocks)]
    known = [-math.inf if weight is None else measured.badness(weight) for weight in weights]
    order = sorted(range(len(blocks)), key=known.__getitem__, reverse=True)
    named = _named(cell, "outputs.")
    culprits = [index for index, block in enumerate(blocks) if block.name in named][:1] or order[: int(alone)]
    return Panel(
        plot=plots.blocks(drifts, [block.error for block in blocks], culprits[0] if culprits else None),
        label=f"Distance from the baseline after each of {len(blocks):,} blocks",
        rows=tuple(
            (
                _name(blocks[index].name),
                *("" if part is None else percent(part) for part in (drifts[index], weights[index])),
            )
            for index in dict.fromkeys((*culprits, *order[:_WORST_BLOCKS]))
        ),
        flagged=len(culprits),
        total=len(blocks),
        alone=alone,
    )


def _named(cell: CellResult, family: str) -> set[str]:
    """The modules that unwaived findings of a family of checks are about."""
    findings = (finding for check in cell.checks if check.id.startswith(family) for finding in check.findings)
    return {finding.where for finding in findings if finding.waived is None and finding.where}


def _step(blocks: list[measured.Block], index: int) -> float | None:
    """How much a block adds to the drift."""
    here, before = blocks[index].drift, blocks[index - 1].drift if index else 0.0
    return here if here is None or before is None else here - before
