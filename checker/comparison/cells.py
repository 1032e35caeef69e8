"""Two runs, cell by cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from checker.comparison.data import CellChange, Comparison, Direction, Replaced, Status, TextChange, overall
from checker.comparison.measured import figure_changes
from checker.comparison.verdicts import check_changes, numbered
from checker.domain import CellResult, CheckError, CheckResult, ErrorKind, Json, ModelRef, RunResult, Severity
from checker.errors import UsageError

SLOWER, SECONDS = 1.5, 1.0  # a time that moved by this factor and by this much is told
SHA_SHOWN = 12
_ORDER = list(Status)


def compare(old: RunResult, new: RunResult, fail_on: Severity = Severity.FAIL) -> Comparison:
    """What changed from ``old`` to ``new``; ``fail_on`` says whether new warnings count as worse.

    What became another one in every cell alike (a device, a depth) is told once, among the surroundings.

    Raises:
        UsageError: a report holds one cell twice.
    """
    before, now = _by_id(old), _by_id(new)
    cells = []
    for cell_id in {**now, **before}:
        first, second = before.get(cell_id), now.get(cell_id)
        if first is not None and second is None and cell_id in new.planned and new.shard is None:
            second = _unanswered(first)
        if first is not None and second is not None:
            cells.append(_cell(first, second, fail_on))
        else:
            cells.append(_alone(cell_id, first, second, old if first is None else new))
    everywhere = _everywhere(cells)
    cells = [
        _settled(replace(cell, facts=tuple(fact for fact in cell.facts if fact not in everywhere))) for cell in cells
    ]
    cells.sort(key=lambda cell: _ORDER.index(cell.status))
    return Comparison(surroundings=(*_surroundings(old, new), *everywhere), cells=tuple(cells), fail_on=fail_on)


def _by_id(run: RunResult) -> dict[str, CellResult]:
    counts = Counter(cell.cell.id for cell in run.cells)
    twice = [cell_id for cell_id, count in counts.items() if count > 1]
    if twice:
        raise UsageError(f"a report holds the cell {twice[0]!a} twice; compare reports as they were written")
    return {cell.cell.id: cell for cell in run.cells}


def _unanswered(cell: CellResult) -> CellResult:
    """What a cell is that the new run planned and does not report: each of its checks was asked and not answered."""
    error = CheckError(kind=ErrorKind.NOT_RUN, message="the cell was planned, and the report does not hold it")
    return replace(cell, checks=tuple(CheckResult(id=check.id, error=error) for check in cell.checks), measurements={})


def _alone(cell_id: str, old: CellResult | None, new: CellResult | None, other: RunResult) -> CellChange:
    note = (
        f"that report is of shard {other.shard}, and another shard has it"
        if other.shard and cell_id in other.planned
        else ""
    )
    return CellChange(
        id=cell_id,
        status=Status.APPEARED if old is None else Status.GONE,
        old=None if old is None else old.outcome,
        new=None if new is None else new.outcome,
        note=note,
    )


def _cell(old: CellResult, new: CellResult, fail_on: Severity) -> CellChange:
    return CellChange(
        id=new.cell.id,
        status=Status.UNCHANGED,
        old=old.outcome,
        new=new.outcome,
        facts=tuple(_replaced(_cell_facts(old), _cell_facts(new))),
        checks=check_changes(old.checks, new.checks, fail_on),
        figures=figure_changes(old, new),
        texts=tuple(_texts(old, new)),
        seconds=_seconds(old.seconds, new.seconds),
    )


def _settled(cell: CellChange) -> CellChange:
    """The status of a cell that both reports hold follows from what changed in it."""
    if cell.status is not Status.UNCHANGED:
        return cell
    directions = [item.direction for items in (cell.checks, cell.figures) for item in items]
    directions += [Direction.CHANGED] * len([*cell.facts, *cell.texts])
    direction = overall(directions)
    return cell if direction is None else replace(cell, status=Status(direction.value))


def _cell_facts(cell: CellResult) -> Mapping[str, str | None]:
    return {
        "baseline": _reference(cell.cell.baseline, cell.baseline_revision),
        "checkpoint": _reference(cell.cell.checkpoint, cell.checkpoint_revision),
        "method": cell.method,
        "depth": cell.cell.settings.depth.value,
        "device": cell.device,
        **_libraries(cell.measurements.get("libraries")),
    }


def _libraries(versions: Json) -> dict[str, str]:
    """The packages that a cell brought along, by name."""
    if not isinstance(versions, Mapping):
        return {}
    return {name: version for name, version in versions.items() if isinstance(name, str) and isinstance(version, str)}


def _reference(model: ModelRef | None, revision: str | None) -> str | None:
    if model is None:
        return None
    return f"{model.name}@{revision or model.revision}" if revision or model.revision else model.name


def _surroundings(old: RunResult, new: RunResult) -> Iterator[Replaced]:
    def table(run: RunResult) -> dict[str, str | None]:
        environment = run.environment
        return {
            **environment.packages,
            "python": environment.python,
            "device": environment.device,
            "driver": environment.driver,
            "run": "complete" if run.interrupted is None else "interrupted",
        }

    yield from _replaced(table(old), table(new))
    if old.matrix_sha256 and new.matrix_sha256:
        yield from _replaced({"matrix": old.matrix_sha256[:SHA_SHOWN]}, {"matrix": new.matrix_sha256[:SHA_SHOWN]})


def _replaced(old: Mapping[str, str | None], new: Mapping[str, str | None]) -> Iterator[Replaced]:
    for what in {**old, **new}:
        if old.get(what) != new.get(what):
            yield Replaced(what=what, old=old.get(what), new=new.get(what))


def _everywhere(cells: Iterable[CellChange]) -> list[Replaced]:
    """The facts that changed alike in every cell of both reports, when there are several such cells."""
    shared = [cell for cell in cells if cell.status is Status.UNCHANGED]  # not settled yet: of both reports
    if len(shared) < 2:  # noqa: PLR2004 - several
        return []
    return [fact for fact in shared[0].facts if all(fact in cell.facts for cell in shared)]


def _texts(old: CellResult, new: CellResult) -> Iterator[TextChange]:
    before, now = (dict(_continuations(cell.measurements.get("texts"))) for cell in (old, new))
    for key in now:
        if key in before and before[key] != now[key]:
            yield TextChange(
                prompt=key[0], old=before[key], new=now[key], position=_same_characters(before[key], now[key])
            )


def _continuations(rows: Json) -> Iterator[tuple[tuple[str, int], str]]:
    """(prompt, its running number) and text, of what has both."""
    if not isinstance(rows, list | tuple):
        return
    known = [
        row
        for row in rows
        if isinstance(row, Mapping) and isinstance(row.get("prompt"), str) and isinstance(row.get("text"), str)
    ]
    for key, row in numbered(known, lambda row: str(row["prompt"])).items():
        yield key, row["text"]


def _same_characters(old: str, new: str) -> int:
    pairs = zip(old, new, strict=False)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(old), len(new)))


def _seconds(old: float, new: float) -> tuple[float, float] | None:
    longer, shorter = max(old, new), min(old, new)
    return (old, new) if longer > SLOWER * shorter and longer - shorter > SECONDS else None
