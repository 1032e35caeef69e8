"""What changed, as plain frozen data. ``old`` and ``new`` are None where that report has nothing of the kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from checker.domain import ExitCode, Finding, Outcome, Severity


class Direction(StrEnum):
    """Which way a change goes; ``changed`` is neither better nor worse, or not by more than noise."""

    WORSE = "worse"
    CHANGED = "changed"
    BETTER = "better"


class Status(StrEnum):
    """What became of a cell, in the order in which a reader wants to know; gone and appeared: in one report only."""

    WORSE = "worse"
    GONE = "gone"
    APPEARED = "appeared"
    CHANGED = "changed"
    BETTER = "better"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, kw_only=True, slots=True)
class Replaced:
    """A fact about the surroundings that is another one now: a version, a device, a commit."""

    what: str
    old: str | None
    new: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class FindingChange:
    """A finding that appeared, went, or has another severity; ``new`` may be waived, then it went by that alone."""

    direction: Direction
    old: Finding | None
    new: Finding | None


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckChange:
    """A check of a cell with another outcome, or with the same outcome for other reasons.

    ``reason`` says why it has no verdict now: a skip's reason, or an error's kind and message.
    """

    id: str
    direction: Direction
    old: Outcome | None
    new: Outcome | None
    reason: str = ""
    findings: tuple[FindingChange, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A figure with its 95 % interval, ``low ≤ value ≤ high``."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class FigureChange:
    """A measured figure that moved beyond its error bar. ``where`` is a layer, or "" for the whole cell."""

    id: str  # its path in the measurements of report.json: weights.R
    check: str  # the check that judges it, "" for none
    label: str
    unit: str
    direction: Direction
    old: float
    new: float
    where: str = ""
    old_interval: Interval | None = None
    new_interval: Interval | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TextChange:
    """Another continuation of a prompt; ``position`` counts the characters that are still the same."""

    prompt: str
    old: str
    new: str
    position: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CellChange:
    """All that changed in one cell. ``note`` says why a cell may be in one report only."""

    id: str
    status: Status
    old: Outcome | None
    new: Outcome | None
    note: str = ""
    facts: tuple[Replaced, ...] = ()
    checks: tuple[CheckChange, ...] = ()
    figures: tuple[FigureChange, ...] = ()
    texts: tuple[TextChange, ...] = ()
    seconds: tuple[float, float] | None = None  # old and new; never a reason for a status


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two runs side by side: their surroundings, and every cell of either, worst first."""

    surroundings: tuple[Replaced, ...]
    cells: tuple[CellChange, ...]
    fail_on: Severity = Severity.FAIL

    def of(self, *statuses: Status) -> list[CellChange]:
        """The cells of these statuses, in their order."""
        return [cell for cell in self.cells if cell.status in statuses]

    @property
    def exit_code(self) -> ExitCode:
        """1 when something got worse; 4 when there are cells, and none is in both reports: no hollow green."""
        if self.of(Status.WORSE):
            return ExitCode.FAILED
        if self.cells and len(self.of(Status.GONE, Status.APPEARED)) == len(self.cells):
            return ExitCode.NOTHING_CHECKED
        return ExitCode.PASSED


def overall(directions: Iterable[Direction]) -> Direction | None:
    """One direction for several: a worse one decides, then a better one; None when there are none."""
    found = {*directions}
    order = (Direction.WORSE, Direction.BETTER, Direction.CHANGED)
    return next((direction for direction in order if direction in found), None)
