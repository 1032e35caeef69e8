"""One run through every reporter, compared with committed files (UPDATE_GOLDEN=1 writes them)."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Callable

import pytest
from reporters_reading import html, table_text
from rich.console import Console

from checker.domain import RunResult, Severity
from checker.reporters import github, json_v1, junit, summary
from checker.reporters import html as report_page
from checker.reporters.progress import Progress

Golden = Callable[[str, str], None]


def _tell(progress: Progress, run: RunResult) -> None:
    """The events of a run whose first and third cell run side by side."""
    first, second = run.cells[0], run.cells[2]
    progress.cell_started(first.cell.id)
    progress.cell_started(second.cell.id)
    for ours, theirs in zip(first.checks, second.checks, strict=True):
        progress.check_started(second.cell.id, theirs.id)
        progress.check_finished(second.cell.id, theirs)
        progress.check_started(first.cell.id, ours.id)
        progress.check_finished(first.cell.id, ours)
    progress.cell_finished(second)
    progress.note(first.cell.id, "a second attempt\n::error::x")
    progress.cell_finished(first)
    for result in (run.cells[1], *run.cells[3:]):
        progress.cell_started(result.cell.id)
        for check in result.checks:
            progress.check_finished(result.cell.id, check)
        progress.cell_finished(result)


def _log(run: RunResult, **options: bool) -> str:
    file = io.StringIO()
    with Progress(Console(file=file, width=80), total=5, **options) as progress:
        _tell(progress, run)
    return file.getvalue()


def test_json(run: RunResult, golden: Golden) -> None:
    golden("report.json", json_v1.render(run))


def test_junit(run: RunResult, golden: Golden) -> None:
    golden("junit.xml", junit.render(run).replace("><", ">\n<"))


def test_junit_where_warnings_fail(run: RunResult, golden: Golden) -> None:
    only_warning = dataclasses.replace(run, cells=run.cells[1:2], fail_on=Severity.WARN)
    golden("junit-fail-on-warn.xml", junit.render(only_warning).replace("><", ">\n<"))


def test_annotations(run: RunResult, golden: Golden) -> None:
    golden("annotations.txt", github.render(run))


def test_summary(run: RunResult, golden: Golden) -> None:
    golden("summary.md", summary.render(run))


def test_summary_as_github_shows_it(run: RunResult, golden: Golden) -> None:
    golden("summary.html", html(summary.render(run)))


def test_summary_with_a_chart(measured_run: RunResult, golden: Golden) -> None:
    golden("summary-measured.md", summary.render(measured_run))


def test_page(measured_run: RunResult, golden: Golden) -> None:
    page = re.sub(r"(?s)<style>.*</style>", "<style></style>", report_page.render(measured_run))
    golden("report.html", page.replace("><", ">\n<"))


@pytest.mark.exact
@pytest.mark.parametrize("width", [80, 120])
def test_table_with_divergence(measured_run: RunResult, golden: Golden, width: int) -> None:
    golden(f"table-measured-{width}.txt", table_text(measured_run, width))


@pytest.mark.exact
@pytest.mark.parametrize("width", [80, 120])
def test_table(run: RunResult, golden: Golden, width: int) -> None:
    golden(f"table-{width}.txt", table_text(run, width))


@pytest.mark.exact
def test_table_verbose(run: RunResult, golden: Golden) -> None:
    golden("table-verbose.txt", table_text(run, 100, verbose=True))


def test_log(run: RunResult, golden: Golden) -> None:
    golden("log.txt", _log(run))


def test_log_verbose(run: RunResult, golden: Golden) -> None:
    golden("log-verbose.txt", _log(run, verbose=True))


def test_log_quiet(run: RunResult) -> None:
    assert _log(run, quiet=True) == ""
