"""``merge``: the reports of several jobs as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from checker.board import unused_waivers
from checker.commands.deliver import at_least_unverified
from checker.commands.options import RunArguments, split
from checker.commands.reports import report_of
from checker.commands.suite import Reports, checks_of, show, tell_unused
from checker.commands.vocabulary import vocabulary
from checker.domain import CellResult, CheckError, CheckResult, ErrorKind, ExitCode, RunResult
from checker.errors import UsageError
from checker.matrix import Matrix, load_matrix
from checker.matrix.select import only
from checker.reporters.merge import Planned, merge

NO_REPORT = CheckError(kind=ErrorKind.NOT_RUN, message="its job left no report")


def merge_reports(paths: tuple[str, ...], matrix: str | None, options: Mapping[str, Any]) -> ExitCode:
    """Join reports, write the joined set, show it. ``matrix`` tells which cells there should be.

    Raises:
        UsageError: a file that is no report, one of another matrix, two reports that disagree, and, without a matrix,
            a planned cell that no report holds.
    """
    arguments = RunArguments(**options)
    runs = [report_of(path)[0] for path in paths]
    if matrix is None:
        merged = merge(runs)
    else:
        loaded = load_matrix(matrix, vocabulary(), forced=arguments.forced())
        _require_of_matrix(paths, runs, loaded)
        planned = _planned(loaded, split(arguments.only))
        merged = merge(runs, planned)
        if not arguments.partial and merged.interrupted is None:
            ids = {cell.cell.id: tuple(check.id for check in cell.checks) for cell in planned.cells}
            tell_unused(unused_waivers(loaded.waivers, ids, merged.cells))
    reports = Reports(arguments)
    reports.write(merged)
    code = show(merged, arguments)
    return code if reports.failure is None else at_least_unverified(code)


def _planned(loaded: Matrix, globs: Sequence[str]) -> Planned:
    """The cells as they are when their job died, was cancelled, or never got a machine."""
    cells = tuple(
        CellResult(cell=cell, checks=tuple(CheckResult(id=check, error=NO_REPORT) for check in checks_of(cell)))
        for cell in only(loaded.cells, globs)
    )
    return Planned(path=loaded.path, sha256=loaded.sha256, cells=cells)


def _require_of_matrix(paths: Sequence[str], runs: Sequence[RunResult], loaded: Matrix) -> None:
    for path, run in zip(paths, runs, strict=True):
        if run.matrix_sha256 != loaded.sha256:
            theirs = "without a matrix" if run.matrix_sha256 is None else "of another matrix, or of another state of it"
            message = f"{path}: matrix.sha256: the report is {theirs}, so it cannot be joined with {loaded.path}"
            raise UsageError(f"{message}; name the file that its job ran")
