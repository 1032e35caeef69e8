"""Shards joined are the run they are shards of."""

from __future__ import annotations

import dataclasses

import pytest

from checker.domain import CellResult, Environment, ExitCode, RunResult, Severity
from checker.errors import UsageError
from checker.reporters import github, json_v1, junit, summary
from checker.reporters.json_v1 import read_report
from checker.reporters.merge import merge


def _shards(run: RunResult) -> list[RunResult]:
    parts = (run.cells[1::2], run.cells[::2], ())
    return [
        dataclasses.replace(run, cells=tuple(cells), shard=f"{number}/3") for number, cells in enumerate(parts, start=1)
    ]


def _rename(cell: CellResult, name: str) -> CellResult:
    return dataclasses.replace(cell, cell=dataclasses.replace(cell.cell, id=name))


def test_reports_equal_those_of_one_run(run: RunResult) -> None:
    whole = dataclasses.replace(run, shard=None)
    merged = merge([read_report(json_v1.render(shard)) for shard in _shards(run)])
    assert merged.exit_code is whole.exit_code
    for reporter in (json_v1, junit, summary, github):
        assert reporter.render(merged) == reporter.render(whole)


def test_one_report_is_itself(run: RunResult) -> None:
    assert merge([run]) == run


def test_environments_that_differ_show_both(run: RunResult) -> None:
    first, second, _ = _shards(run)
    other = Environment(python="3.11.7", packages={"torch": "2.11.0", "extra": "1"}, device="cpu")
    merged = merge([first, dataclasses.replace(second, environment=other)]).environment
    assert (merged.python, merged.device, merged.driver) == ("3.11.7", "NVIDIA H200 / cpu", "570.1")
    assert merged.packages["torch"] == "2.10.0 / 2.11.0"
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
    with pytest.raises(UsageError, match=r"planned, but in no report: 'smollm2/nf4', 'smollm2/w4a16', 'published'$"):
        merge([_shards(run)[0]])


def test_many_absent_cells_are_counted(run: RunResult) -> None:
    planned = dataclasses.replace(run, planned=tuple("abcdefg"), cells=())
    with pytest.raises(UsageError, match=r"'a', 'b', 'c', 'd', 'e' and 2 more$"):
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


def test_one_baseline_at_two_commits(run: RunResult) -> None:
    moved = dataclasses.replace(run.cells[2], baseline_revision="f" * 40)
    with pytest.raises(UsageError, match=r"baseline 'HuggingFaceTB/SmolLM2-135M@12fd25f' appears with two commits"):
        merge([dataclasses.replace(run, cells=(*run.cells[:2], moved, *run.cells[3:]))])
