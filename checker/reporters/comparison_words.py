"""What the reports of a comparison have in common: how a change reads, and what is told together.

Everything here may hold foreign text; each sink escapes what it writes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from checker.comparison import (
    CellChange,
    CheckChange,
    Comparison,
    Direction,
    FigureChange,
    FindingChange,
    Replaced,
    Status,
    TextChange,
)
from checker.domain import ExitCode, Outcome
from checker.reporters import figures
from checker.reporters.escape import ELLIPSIS, shorten

ARROW = "→"
NOTHING = "none"
OUTCOMES = {
    Outcome.PASS: "pass",
    Outcome.WARN: "warn",
    Outcome.FAIL: "fail",
    Outcome.ERROR: "not verified",
    Outcome.SKIP: "skipped",
    None: "not asked",
}
MEANINGS = {
    ExitCode.PASSED: "nothing got worse",
    ExitCode.FAILED: "something got worse",
    ExitCode.NOTHING_CHECKED: "no cell is in both reports, so nothing was compared",
}
_VALUE_LIMIT = 100
_REVISION, _REVISION_SHOWN = 40, 12  # digits of a commit
_BEFORE_DIFFERENCE, _TEXT_SHOWN = 24, 80  # characters
_SMALL_SHARE = 0.001  # is told with more digits


Told: TypeAlias = Mapping[tuple[str, str], FigureChange]


@dataclass(frozen=True, kw_only=True, slots=True)
class SameChange:
    """Checks of one cell that went from one outcome to another for one reason, and have no findings to tell."""

    ids: list[str]
    change: CheckChange


def headline(comparison: Comparison) -> str:
    """``2 cells worse, 1 better, 3 unchanged``."""
    counted = [(len(comparison.of(status)), status.value) for status in Status]
    parts = [f"{count} {word}" for count, word in counted if count]
    if not parts:
        return "no cells in either report"
    count, _, rest = parts[0].partition(" ")
    return ", ".join([f"{figures.plural(int(count), 'cell')} {rest}", *parts[1:]])


def outcomes(old: Outcome | None, new: Outcome | None) -> str:
    """``pass → fail``, or ``still pass``."""
    return f"still {OUTCOMES[new]}" if old is new else f"{OUTCOMES[old]} {ARROW} {OUTCOMES[new]}"


def outcome(cell: CellChange) -> str:
    """What became of a cell's outcome; of one that is in one report only, what it is or was."""
    if cell.status is Status.GONE:
        return f"was {OUTCOMES[cell.old]}"
    return OUTCOMES[cell.new] if cell.status is Status.APPEARED else outcomes(cell.old, cell.new)


def replaced(fact: Replaced) -> tuple[str, str, str]:
    """What became another, old and new as short as they can be told apart: commits by their first digits."""
    old, new = (NOTHING if side is None else _short(side) for side in (fact.old, fact.new))
    if old == new:
        old, new = str(fact.old), str(fact.new)
    return fact.what, shorten(old, _VALUE_LIMIT), shorten(new, _VALUE_LIMIT)


def amount(change: FigureChange, *, new: bool) -> str:
    """One side of a figure as people read it, with its interval: bytes in full, shares in per cent."""
    value, interval = (change.new, change.new_interval) if new else (change.old, change.old_interval)
    text = _number(value, change.unit)
    if interval is None:
        return text
    return f"{text} ({_number(interval.low, change.unit)} to {_number(interval.high, change.unit)})"


def growth(change: FigureChange) -> str:
    """By how much bytes grew, ``+5.6%``; nothing for other figures, which are told by their values."""
    if change.unit != "bytes" or not change.old or math.isinf(change.old) or math.isinf(change.new):
        return ""
    share = change.new / change.old - 1
    return f"{share:+.1%}" if abs(share) >= _SMALL_SHARE else f"{share:+.4%}"


def unit(change: FigureChange) -> str:
    """What stands behind a figure; a share has its sign in it."""
    return "" if change.unit == "share" else change.unit


def figure_groups(changes: Iterable[FigureChange]) -> list[list[FigureChange]]:
    """The figures of one kind and direction together: many layers move at once."""
    groups: dict[tuple[str, Direction], list[FigureChange]] = {}
    for change in changes:
        groups.setdefault((change.id, change.direction), []).append(change)
    return list(groups.values())


def check_groups(changes: Iterable[CheckChange]) -> list[SameChange]:
    """Checks that changed alike together, for a worker that dies takes many with it; one with findings is alone."""
    groups: dict[tuple[object, ...], SameChange] = {}
    for number, change in enumerate(changes):
        alone = number if change.findings else None
        key = (alone, change.direction, change.old, change.new, change.reason)
        groups.setdefault(key, SameChange(ids=[], change=change)).ids.append(change.id)
    return list(groups.values())


def told_by_findings(cell: CellChange, shown: int) -> Told:
    """Figures that a finding gives as well, by check and place: its line tells what the other report measured there.

    ``shown``: how many findings of a check have a line.
    """
    told = {
        (check.id, finding.where, finding.observed, item.direction)
        for check in cell.checks
        for item in check.findings[:shown]
        if (finding := item.new or item.old) is not None and isinstance(finding.observed, int | float)
    }
    return {
        (figure.check, figure.where): figure
        for figure in cell.figures
        if figure.where
        and {(figure.check, figure.where, side, figure.direction) for side in (figure.old, figure.new)} & told
    }


def finding_word(change: FindingChange) -> str:
    """``new``, ``gone``, ``waived``, or the severity it had."""
    if change.old is None:
        return "new"
    if change.new is None:
        return "gone"
    return "waived" if change.new.waived is not None else f"was {change.old.severity.value}"


def finding_figures(check: CheckChange, change: FindingChange, told: Told) -> str:
    """``observed 2.1 R, limit 1.5 R, before 0.97``; for one that is gone, what is measured now."""
    finding = change.new or change.old
    if finding is None:
        return ""
    parts = [figures.comparison(finding)]
    if (figure := told.get((check.id, finding.where))) is not None:
        there = finding is change.new and finding.waived is None
        parts.append(f"{'before' if there else 'now'} {amount(figure, new=not there)}")
    return ", ".join(part for part in parts if part)


def finding_sentence(change: FindingChange) -> str:
    """The message of the finding, as it stands now."""
    finding = change.new or change.old
    return "" if finding is None else figures.sentence(finding)


def excerpts(change: TextChange) -> tuple[str, str]:
    """Both texts from a little before their first difference on, cut to what can be read at a glance."""
    start = max(0, change.position - _BEFORE_DIFFERENCE)
    lead = ELLIPSIS if start else ""
    old, new = (shorten(lead + text[start:], _TEXT_SHOWN) for text in (change.old, change.new))
    return old, new


def times(comparison: Comparison) -> list[tuple[str, str]]:
    """Cells whose time is another one, the most slowed down first."""
    told = [(cell.id, *cell.seconds) for cell in comparison.cells if cell.seconds is not None]
    told.sort(key=lambda row: row[1] - row[2])
    return [(cell_id, f"{figures.duration(old)} {ARROW} {figures.duration(new)}") for cell_id, old, new in told]


def _short(text: str) -> str:
    head, _, revision = text.rpartition("@")
    digits = len(revision) >= _REVISION and all(digit in "0123456789abcdef" for digit in revision)
    return f"{head}@{revision[:_REVISION_SHOWN]}" if head and digits else text


def _number(value: float, unit: str) -> str:
    if unit == "bytes" and math.isfinite(value):
        return f"{value:,.0f}"
    if unit == "share" and math.isfinite(value):
        return f"{100 * value:.4g}%"
    return figures.value(int(value) if value.is_integer() else value)
