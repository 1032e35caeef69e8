"""Shards joined are the run they are shards of."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest

from checker.domain import (
    CellResult,
    CheckError,
    CheckResult,
    Environment,
    ErrorKind,
    ExitCode,
    Finding,
    RunResult,
    Severity,
)
from checker.errors import UsageError
from checker.reporters import github, html, json_v1, junit, summary
from checker.reporters.json_v1 import read_report
from checker.reporters.merge import Planned, merge

LOST = CheckError(kind=ErrorKind.NOT_RUN, message="its job left no report")


def _shards(run: RunResult) -> list[RunResult]:
    parts = (run.cells[1::2], run.cells[::2], ())
    return [
        dataclasses.replace(run, cells=tuple(cells), shard=f"{number}/3") for number, cells in enumerate(parts, start=1)
    ]


def _matrix(run: RunResult) -> Planned:
    """The cells of the matrix as they are when no report holds them."""
    cells = tuple(
        CellResult(cell=cell.cell, checks=tuple(CheckResult(id=check.id, error=LOST) for check in cell.checks))
        for cell in run.cells
    )
    return Planned(path="other/spelling.yml", sha256=run.matrix_sha256 or "", cells=cells)


def _rename(cell: CellResult, name: str) -> CellResult:
    return dataclasses.replace(cell, cell=dataclasses.replace(cell.cell, id=name))


def test_reports_equal_those_of_one_run(run: RunResult) -> None:
    whole = dataclasses.replace(run, shard=None)
    merged = merge([read_report(json_v1.render(shard)) for shard in _shards(run)])
    assert merged.exit_code is whole.exit_code
    for reporter in (json_v1, junit, summary, github):
        assert reporter.render(merged) == reporter.render(whole)


def test_one_report_is_itself(run: RunResult) -> None:
    assert run.shard == "1/1"
    assert merge([run]) == dataclasses.replace(run, shard=None), "one shard of one is the undivided run"


def test_the_order_of_the_reports_does_not_matter(run: RunResult) -> None:
    parts = [
        dataclasses.replace(part, environment=Environment(python=f"3.1{number}", device=f"gpu {number}"))
        for number, part in enumerate(_shards(run))
    ]
    merged = [merge(list(order)) for order in itertools.permutations(parts)]
    assert all(one == merged[0] for one in merged)
    assert merged[0].environment.device == "gpu 1 / gpu 0 / gpu 2", "by the first cell of each, the empty one last"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_lacks_reads_as_it_did(run: RunResult, number: float) -> None:
    finding = Finding(message="far", where="x", observed=number, limit=number)
    check = CheckResult(id="outputs.finite", findings=(finding,))
    cell = dataclasses.replace(run.cells[0], checks=(check,), measurements={"figure": number, "table": {"a": number}})
    odd = dataclasses.replace(run, cells=(cell,), planned=(cell.cell.id,), shard=None)
    merged = merge([read_report(json_v1.render(odd))])
    for reporter in (json_v1, junit, summary, github, html):
        assert reporter.render(merged) == reporter.render(odd)
    assert "  limit: " in junit.render(merged)


def test_merging_what_was_merged_changes_nothing(run: RunResult) -> None:
    first, second, third = (
        dataclasses.replace(part, environment=Environment(python="3.11", device=device))
        for part, device in zip(_shards(run), ("cpu", "H200", "cpu"), strict=True)
    )
    assert merge([merge([first, second]), third]) == merge([first, second, third])
    assert merge([first, second, third]).environment.device == "H200 / cpu"


def test_environments_that_differ_show_both(run: RunResult) -> None:
    first, second, _ = _shards(run)
    other = Environment(python="3.11.7", packages={"torch": "2.11.0", "extra": "1"}, device="cpu")
    merged = merge([first, dataclasses.replace(second, environment=other)]).environment
    assert (merged.python, merged.device, merged.driver) == ("3.11.7", "cpu / NVIDIA H200", "570.1")
    assert merged.packages["torch"] == "2.11.0 / 2.10.0"
    assert merged.packages["extra"] == "1"


def test_the_stricter_wins_and_an_interrupt_stays(run: RunResult) -> None:
    first, second, third = _shards(run)
    strict = dataclasses.replace(second, fail_on=Severity.WARN)
    stopped = dataclasses.replace(third, interrupted=ExitCode.INTERRUPTED)
    merged = merge([first, strict, stopped])
    assert merged.fail_on is Severity.WARN
    assert merged.exit_code is ExitCode.INTERRUPTED


def test_nothing_checked_in_any_shard(run: RunResult) -> None:
    empty = [dataclasses.replace(run, planned=(), cells=(), shard=f"{number}/2") for number in (1, 2)]
    assert merge(empty).exit_code is ExitCode.NOTHING_CHECKED


def test_no_report() -> None:
    with pytest.raises(UsageError, match="there is no report to merge"):
        merge([])


def test_an_absent_cell_is_named(run: RunResult) -> None:
    with pytest.raises(UsageError, match=r"planned, but in no report: 'smollm2/nf4', 'smollm2/w4a16', 'published'; "):
        merge([_shards(run)[0]])


def test_a_matrix_tells_what_is_absent_and_loses_nothing_else(run: RunResult) -> None:
    odd, even, empty = _shards(run)
    matrix = _matrix(run)
    merged = merge([empty, odd], matrix)
    assert merged.planned == run.planned
    assert [cell for cell in merged.cells if cell in run.cells] == [*odd.cells]
    assert [cell for cell in merged.cells if cell not in run.cells] == [*matrix.cells[::2]]
    assert {check.error for cell in merged.cells[::2] for check in cell.checks} == {LOST}
    assert (merged.matrix_path, merged.shard) == (run.matrix_path, None)
    assert merged.exit_code is ExitCode.UNVERIFIED
    assert "its job left no report" in junit.render(merged)
    assert merge([even], matrix).exit_code is ExitCode.FAILED, "a failed check says more"


def test_a_matrix_and_no_report_at_all(run: RunResult) -> None:
    merged = merge([], _matrix(run))
    assert (merged.exit_code, merged.matrix_path) == (ExitCode.UNVERIFIED, "other/spelling.yml")
    assert json_v1.render(read_report(json_v1.render(merged))) == json_v1.render(merged)
    for reporter in (junit, summary, github):
        assert "its job left no report" in reporter.render(merged)


def test_a_matrix_puts_cells_in_its_order(run: RunResult) -> None:
    single = [dataclasses.replace(run, cells=(cell,), planned=(cell.cell.id,), shard=None) for cell in run.cells]
    assert merge(single[::-1]).planned == run.planned[::-1], "nobody else knows"
    merged = merge(single[::-1], _matrix(run))
    assert merged == dataclasses.replace(run, shard=None)


def test_a_report_of_a_cell_that_the_matrix_lacks(run: RunResult) -> None:
    matrix = _matrix(run)
    part = dataclasses.replace(matrix, cells=matrix.cells[1:])
    with pytest.raises(UsageError, match=r"not a cell of other/spelling.yml: 'smollm2/nf4'; give merge the --only"):
        merge(_shards(run), part)


def test_many_absent_cells_are_counted(run: RunResult) -> None:
    planned = dataclasses.replace(run, planned=tuple("abcdefg"), cells=())
    with pytest.raises(UsageError, match=r"'a', 'b', 'c', 'd', 'e' and 2 more; merge --matrix"):
        merge([planned])


def test_a_cell_of_two_reports(run: RunResult) -> None:
    with pytest.raises(UsageError, match="cell 'smollm2/nf4' appears twice"):
        merge([run, run])


def test_a_cell_that_was_never_planned(run: RunResult) -> None:
    foreign = dataclasses.replace(run, cells=(*run.cells, _rename(run.cells[0], "x\ny")))
    with pytest.raises(UsageError, match=r"never planned: 'x\\ny'"):
        merge([foreign])


def test_different_matrices(run: RunResult) -> None:
    first, second, _ = _shards(run)
    with pytest.raises(UsageError, match="different matrices"):
        merge([first, dataclasses.replace(second, matrix_sha256="b")])
    with pytest.raises(UsageError, match="different matrices"):
        merge([first, second], dataclasses.replace(_matrix(run), sha256="b"))


def test_one_baseline_at_two_commits(run: RunResult) -> None:
    moved = dataclasses.replace(run.cells[2], baseline_revision="f" * 40)
    with pytest.raises(UsageError, match=r"baseline 'HuggingFaceTB/SmolLM2-135M@12fd25f' appears with two commits"):
        merge([dataclasses.replace(run, cells=(*run.cells[:2], moved, *run.cells[3:]))])
