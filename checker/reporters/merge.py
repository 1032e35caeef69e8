"""Joining the reports of several jobs into the one that a single job would have written (``quant-verify merge``)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from checker.domain import CellResult, Environment, RunResult, Severity
from checker.errors import UsageError
from checker.reporters.escape import one_line
from checker.reporters.json_v1 import reference

_SHOWN = 5
_SEPARATOR = " / "


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """What a matrix plans: every cell in its order, as it is told when no report holds it."""

    path: str
    sha256: str
    cells: tuple[CellResult, ...]


def merge(reports: Sequence[RunResult], matrix: Planned | None = None) -> RunResult:
    """One run out of the parts of one, be they shards or chosen by name; cells in planned order.

    ``matrix`` says what was planned. Without it that is what the reports say, one after the other, and each of those
    cells must be in one. Nothing but this order depends on the order of the reports. Where the environments differ,
    the merged one shows every value. Warnings fail if they fail in one of the parts, and an interrupted part makes an
    interrupted run.

    Raises:
        UsageError: a planned cell is absent or appears twice, one was never planned, the parts are of different
            matrices, or one baseline was seen at two commits.
    """
    if not reports and matrix is None:
        raise UsageError("there is no report to merge; name the report.json of each job")
    if len({report.matrix_sha256 for report in reports} | ({matrix.sha256} if matrix else set())) > 1:
        raise UsageError("the reports come from different matrices (their matrix.sha256 differ)")
    told = tuple(dict.fromkeys(cell_id for report in reports for cell_id in report.planned))
    planned = told if matrix is None else _all_of(matrix, told)
    cells = _in_planned_order(planned, reports, () if matrix is None else matrix.cells)
    _same_baselines(cells)
    parts = _in_order_of_cells(reports, planned)
    paths = [part.matrix_path for part in parts] + ([] if matrix is None else [matrix.path])
    return RunResult(
        environment=_environment([part.environment for part in parts]),
        planned=planned,
        cells=cells,
        matrix_path=next((path for path in paths if path is not None), None),
        matrix_sha256=matrix.sha256 if matrix is not None else parts[0].matrix_sha256,
        fail_on=Severity.WARN if any(part.fail_on is Severity.WARN for part in parts) else Severity.FAIL,
        interrupted=next((part.interrupted for part in parts if part.interrupted is not None), None),
    )


def _all_of(matrix: Planned, told: Sequence[str]) -> tuple[str, ...]:
    """The cells of the matrix, which must be all that any report speaks of."""
    planned = tuple(cell.cell.id for cell in matrix.cells)
    known = {*planned}
    if stray := [cell_id for cell_id in told if cell_id not in known]:
        remedy = "give merge the --only that the jobs were planned with, and the folders that its globs match"
        raise UsageError(f"planned by a report, but not a cell of {one_line(matrix.path)}: {_names(stray)}; {remedy}")
    return planned


def _in_planned_order(
    planned: tuple[str, ...], reports: Iterable[RunResult], instead: Iterable[CellResult]
) -> tuple[CellResult, ...]:
    """The cells of all reports; ``instead`` stands for those that none holds."""
    by_id: dict[str, CellResult] = {}
    for cell in (cell for report in reports for cell in report.cells):
        if cell.cell.id in by_id:
            raise UsageError(f"cell {_quoted(cell.cell.id)} appears twice")
        by_id[cell.cell.id] = cell
    by_id = {cell.cell.id: cell for cell in instead} | by_id
    if absent := [cell_id for cell_id in planned if cell_id not in by_id]:
        raise UsageError(f"planned, but in no report: {_names(absent)}; merge --matrix tells them as not verified")
    if foreign := by_id.keys() - {*planned}:
        raise UsageError(f"in a report, but never planned: {_names(sorted(foreign))}")
    return tuple(by_id[cell_id] for cell_id in planned)


def _in_order_of_cells(reports: Sequence[RunResult], planned: Sequence[str]) -> list[RunResult]:
    """The reports by their first cell, empty ones last, because files come in the order of their names."""
    place = {cell_id: number for number, cell_id in enumerate(planned)}
    return sorted(reports, key=lambda report: min((place[cell.cell.id] for cell in report.cells), default=len(planned)))


def _same_baselines(cells: Iterable[CellResult]) -> None:
    """A branch that moved while the jobs ran would compare one matrix with two baselines."""
    seen: dict[str, tuple[str, str]] = {}
    for cell in cells:
        if cell.cell.baseline is None or cell.baseline_revision is None:
            continue
        name = reference(cell.cell.baseline)
        revision, first = seen.setdefault(name, (cell.baseline_revision, cell.cell.id))
        if revision != cell.baseline_revision:
            raise UsageError(
                f"baseline {_quoted(name)} appears with two commits: {_quoted(revision)} in {_quoted(first)}, "
                f"{_quoted(cell.baseline_revision)} in {_quoted(cell.cell.id)}; pin its revision"
            )


def _environment(environments: list[Environment]) -> Environment:
    names = dict.fromkeys(name for environment in environments for name in environment.packages)
    return Environment(
        python=_joined(environment.python for environment in environments) or "",
        packages={
            name: _joined(environment.packages.get(name) for environment in environments) or "" for name in names
        },
        device=_joined(environment.device for environment in environments) or "",
        driver=_joined(environment.driver for environment in environments),
    )


def _joined(values: Iterable[str | None]) -> str | None:
    """The one value of all parts, or each of several once, also where a part was merged of others."""
    known = [value for value in dict.fromkeys(values) if value is not None]
    if len(known) > 1:
        known = [*dict.fromkeys(piece for value in known for piece in value.split(_SEPARATOR) if piece)]
    return _SEPARATOR.join(known) if known else None


def _names(cell_ids: list[str]) -> str:
    more = f" and {len(cell_ids) - _SHOWN} more" if len(cell_ids) > _SHOWN else ""
    return ", ".join(_quoted(cell_id) for cell_id in cell_ids[:_SHOWN]) + more


def _quoted(text: str) -> str:
    return f"'{one_line(text)}'"
