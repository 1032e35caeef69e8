"""What is known of a run so far: results as they arrive, and every cell and check still to come, as not run.

The reports are written from here after every check, so that a killed run leaves a complete list of what it had planned.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from checker.domain import (
    Cell,
    CellResult,
    CheckError,
    CheckResult,
    Environment,
    ErrorKind,
    ExitCode,
    Finding,
    Json,
    Outcome,
    RunResult,
    Severity,
    Waived,
    Waiver,
)

NOT_YET = CheckError(kind=ErrorKind.NOT_RUN, message="the run ended before this check")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """What a report says of the run as a whole."""

    environment: Environment
    planned: tuple[str, ...]
    matrix_path: str | None = None
    matrix_sha256: str | None = None
    shard: str | None = None
    fail_on: Severity = Severity.FAIL


@dataclass
class _Entry:
    cell: Cell
    checks: dict[str, CheckResult]
    measurements: dict[str, Json] = field(default_factory=dict)
    known: dict[str, str | None] = field(default_factory=dict)
    attempts: int = 1
    seconds: float = 0.0


class Board:
    """The results of the cells of one run, with waivers and requirements applied as they come in."""

    def __init__(
        self, run: RunFacts, planned: Sequence[tuple[Cell, Sequence[str]]], waivers: Sequence[Waiver] = ()
    ) -> None:
        self._run = run
        self._waivers = waivers
        self._entries = {
            cell.id: _Entry(cell, {check: CheckResult(id=check, error=NOT_YET) for check in checks})
            for cell, checks in planned
        }
        self.interrupted: ExitCode | None = None

    def finished(self, cell_id: str, result: CheckResult, measurements: Mapping[str, Json]) -> CheckResult:
        """Take in a result; on a second attempt a verdict of the first one stands. Returns what was recorded."""
        entry = self._entries[cell_id]
        before = entry.checks.get(result.id)
        if before is not None and before.outcome is not Outcome.ERROR:
            return before
        result = self._required(entry.cell, self._waive(entry.cell, result))
        entry.checks[result.id] = result
        for key, value in measurements.items():
            entry.measurements[key] = [*entry.measurements.get("notes", []), *value] if key == "notes" else value
        return result

    def again(self, cell_id: str, text: str) -> None:
        """A second attempt begins: note why, and forget the errors of the first, as all of them may have one cause."""
        entry = self._entries[cell_id]
        for check_id, result in entry.checks.items():
            if result.outcome is Outcome.ERROR:
                entry.checks[check_id] = CheckResult(id=check_id, error=NOT_YET)
        self.note(cell_id, text)

    def note(self, cell_id: str, text: str) -> None:
        """Add a line to the cell's notes, which every report shows."""
        notes = self._entries[cell_id].measurements.setdefault("notes", [])
        notes.append(text)

    def unverified(self, cell_id: str, first: str | None, error: CheckError) -> list[CheckResult]:
        """The worker is gone: charge ``first`` (the check it was in; None: all) and mark what it never reached.

        Between two checks ``first`` has a result already; then the next one in line is charged.
        """
        rest = CheckError(kind=ErrorKind.NOT_RUN, message=f"never reached: {error.message}")
        entry = self._entries[cell_id]
        open_ = [check_id for check_id, result in entry.checks.items() if result.error is NOT_YET]
        if first is not None and first not in open_:
            first = open_[0] if open_ else None
        for check_id in open_:
            charged = error if first in (None, check_id) else rest
            entry.checks[check_id] = replace(entry.checks[check_id], error=charged)
        return [entry.checks[check_id] for check_id in open_]

    def update(self, cell_id: str, **known: str | None) -> None:
        """Method, device, revisions: whatever of them is known by now."""
        self._entries[cell_id].known |= {key: value for key, value in known.items() if value is not None}

    def spent(self, cell_id: str, seconds: float, attempts: int) -> None:
        """How long the cell took in all, and in how many workers."""
        self._entries[cell_id].seconds, self._entries[cell_id].attempts = seconds, attempts

    def cell(self, cell_id: str) -> CellResult:
        """The cell as known now."""
        entry = self._entries[cell_id]
        return CellResult(
            cell=entry.cell,
            checks=tuple(entry.checks.values()),
            measurements=dict(entry.measurements),
            attempts=entry.attempts,
            seconds=entry.seconds,
            **entry.known,
        )

    def result(self) -> RunResult:
        """The run as known now."""
        return RunResult(
            environment=self._run.environment,
            planned=self._run.planned,
            cells=tuple(self.cell(cell_id) for cell_id in self._entries),
            matrix_path=self._run.matrix_path,
            matrix_sha256=self._run.matrix_sha256,
            shard=self._run.shard,
            fail_on=self._run.fail_on,
            interrupted=self.interrupted,
        )

    def unused_waivers(self) -> list[Waiver]:
        """See ``unused_waivers`` below."""
        planned = {cell_id: tuple(entry.checks) for cell_id, entry in self._entries.items()}
        return unused_waivers(self._waivers, planned, map(self.cell, self._entries))

    def _waive(self, cell: Cell, result: CheckResult) -> CheckResult:
        return replace(result, findings=tuple(self._waived(cell, result.id, finding) for finding in result.findings))

    def _waived(self, cell: Cell, check_id: str, finding: Finding) -> Finding:
        for waiver in self._waivers:
            if waiver.until >= dt.datetime.now(tz=dt.UTC).date() and _names(waiver, cell.id, check_id, finding):
                return replace(finding, waived=_waived(waiver))
        return finding

    @staticmethod
    def _required(cell: Cell, result: CheckResult) -> CheckResult:
        """A check that the matrix requires may not be skipped: what could not be looked at is not verified."""
        demanded = any(fnmatchcase(result.id, glob) for glob in cell.settings.require)
        if result.outcome is not Outcome.SKIP or not demanded:
            return result
        error = CheckError(kind=ErrorKind.NOT_RUN, message=f"required, but it does not apply: {result.skip_reason}")
        return replace(result, skip_reason=None, error=error)


def unused_waivers(
    waivers: Sequence[Waiver], planned: Mapping[str, Sequence[str]], cells: Iterable[CellResult]
) -> list[Waiver]:
    """Waivers of the planned cells that covered nothing, expired ones too: they should be removed.

    ``planned`` are the checks of every cell. Nothing is said of a waiver while a check that it names has no verdict,
    for nobody knows what that would have found.
    """
    used: set[int] = set()
    judged: set[tuple[str, str]] = set()
    for cell in cells:
        judged |= {(cell.cell.id, check.id) for check in cell.checks if check.error is None}
        used |= {
            next((index for index, waiver in enumerate(waivers) if _covers(waiver, cell.cell.id, check.id, item)), -1)
            for check in cell.checks
            for item in check.findings
            if item.waived is not None
        }
    unused = [waiver for index, waiver in enumerate(waivers) if index not in used]
    return [waiver for waiver in unused if _is_known(waiver, planned, judged)]


def _is_known(waiver: Waiver, planned: Mapping[str, Sequence[str]], judged: set[tuple[str, str]]) -> bool:
    """Whether there are cells that a waiver names, and all that it names in them was looked at."""
    names = [cell_id for cell_id in planned if fnmatchcase(cell_id, waiver.cells)]
    pairs = ((name, check) for name in names for check in planned[name] if fnmatchcase(check, waiver.check))
    return bool(names) and judged.issuperset(pairs)


def _covers(waiver: Waiver, cell_id: str, check_id: str, finding: Finding) -> bool:
    return finding.waived == _waived(waiver) and _names(waiver, cell_id, check_id, finding)


def _names(waiver: Waiver, cell_id: str, check_id: str, finding: Finding) -> bool:
    pairs = ((cell_id, waiver.cells), (check_id, waiver.check), (finding.where, waiver.where))
    return all(fnmatchcase(*pair) for pair in pairs)


def _waived(waiver: Waiver) -> Waived:
    return Waived(reason=waiver.reason, until=waiver.until)
