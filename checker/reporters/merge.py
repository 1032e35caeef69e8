"""Joining the reports of several jobs into the one that a single job would have written (``quant-verify merge``)."""

from __future__ import annotations

from collections.abc import Iterable

from checker.domain import CellResult, Environment, RunResult, Severity
from checker.errors import UsageError
from checker.reporters.escape import one_line
from checker.reporters.json_v1 import reference

_SHOWN = 5


def merge(reports: list[RunResult]) -> RunResult:
    """One run out of the shards of one; cells in planned order, whatever order the reports come in.

    Where the shards' environments differ, the merged one shows every value. Warnings fail if they fail in one of
    the shards, and an interrupted shard makes an interrupted run.

    Raises:
        UsageError: a planned cell is absent or appears twice, one was never planned, the shards are of different
            matrices, or one baseline was seen at two commits.
    """
    if not reports:
        raise UsageError("there is no report to merge")
    if len({report.matrix_sha256 for report in reports}) > 1:
        raise UsageError("the reports come from different matrices (their matrix.sha256 differ)")
    planned = tuple(dict.fromkeys(cell_id for report in reports for cell_id in report.planned))
    cells = _in_planned_order(planned, [cell for report in reports for cell in report.cells])
    _same_baselines(cells)
    return RunResult(
        environment=_environment([report.environment for report in reports]),
        planned=planned,
        cells=cells,
        matrix_path=next((report.matrix_path for report in reports if report.matrix_path is not None), None),
        matrix_sha256=reports[0].matrix_sha256,
        shard=reports[0].shard if len(reports) == 1 else None,
        fail_on=min((report.fail_on for report in reports), key=lambda severity: severity is not Severity.WARN),
        interrupted=next((report.interrupted for report in reports if report.interrupted is not None), None),
    )


def _in_planned_order(planned: tuple[str, ...], cells: list[CellResult]) -> tuple[CellResult, ...]:
    by_id: dict[str, CellResult] = {}
    for cell in cells:
        if cell.cell.id in by_id:
            raise UsageError(f"cell {_quoted(cell.cell.id)} appears twice")
        by_id[cell.cell.id] = cell
    if absent := [cell_id for cell_id in planned if cell_id not in by_id]:
        raise UsageError(f"planned, but in no report: {_names(absent)}")
    if foreign := by_id.keys() - {*planned}:
        raise UsageError(f"in a report, but never planned: {_names(sorted(foreign))}")
    return tuple(by_id[cell_id] for cell_id in planned)


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
    """The one value of all shards, or each of several once."""
    known = [value for value in dict.fromkeys(values) if value is not None]
    return " / ".join(known) if known else None


def _names(cell_ids: list[str]) -> str:
    more = f" and {len(cell_ids) - _SHOWN} more" if len(cell_ids) > _SHOWN else ""
    return ", ".join(_quoted(cell_id) for cell_id in cell_ids[:_SHOWN]) + more


def _quoted(text: str) -> str:
    return f"'{one_line(text)}'"
