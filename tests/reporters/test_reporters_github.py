"""Annotations, read back by the runner's own rules."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reporters_any_run import patiently, runs
from reporters_runner import commands, lines

from checker.domain import (
    Cell,
    CellResult,
    CheckError,
    CheckResult,
    ErrorKind,
    Finding,
    Location,
    ModelRef,
    RunResult,
    Severity,
)
from checker.reporters import github


def _cell(number: int, check: CheckResult) -> CellResult:
    return CellResult(cell=Cell(id=f"m/{number}", origin=Location(file="q.yml", line=number)), checks=(check,))


def _run(run: RunResult, *cells: CellResult) -> RunResult:
    return dataclasses.replace(run, cells=cells)


FAIL = CheckResult(id="a.b", findings=(Finding(message="wrong"),))
WARN = CheckResult(id="a.b", findings=(Finding(message="odd", severity=Severity.WARN),))
ERROR = CheckResult(id="a.b", error=CheckError(kind=ErrorKind.TIMEOUT, message="late"))
PASS = CheckResult(id="a.b")


def test_worst_first_and_each_level_apart(run: RunResult) -> None:
    found = commands(github.render(_run(run, _cell(1, WARN), _cell(2, ERROR), _cell(3, PASS), _cell(4, FAIL))))
    assert [(name, properties["line"], properties["title"], data) for name, properties, data in found] == [
        ("error", "4", "m/4: 1 check failed", "a.b: wrong"),
        ("error", "2", "m/2: 1 check not verified", "a.b: timeout: late"),
        ("warning", "1", "m/1: 1 check with warnings", "a.b: odd"),
    ]


def test_warnings_are_errors_when_they_fail(run: RunResult) -> None:
    strict = dataclasses.replace(_run(run, _cell(1, WARN)), fail_on=Severity.WARN)
    assert [name for name, _, _ in commands(github.render(strict))] == ["error"]


def test_all_of_a_cell_in_one(run: RunResult) -> None:
    cell = dataclasses.replace(_cell(1, FAIL), checks=(FAIL, ERROR, dataclasses.replace(ERROR, id="c.d"), WARN))
    error, warning = commands(github.render(_run(run, cell)))
    assert error[1]["title"] == "m/1: 1 check failed, 2 not verified"
    assert error[2] == "a.b: wrong\na.b, c.d: timeout: late"
    assert warning[2] == "a.b: odd"


def test_the_tenth_says_how_many_more(run: RunResult) -> None:
    found = commands(github.render(_run(run, *(_cell(number, FAIL) for number in range(1, 14)))))
    assert len(found) == 10
    assert found[9][2] == "a.b: wrong\nand 3 more cells: m/11, m/12, m/13"
    exact = commands(github.render(_run(run, *(_cell(number, FAIL) for number in range(1, 11)))))
    assert exact[9][2] == "a.b: wrong"


def test_a_long_message_is_cut_by_lines(run: RunResult) -> None:
    checks = tuple(
        CheckResult(id=f"a.{number}", findings=(Finding(message="%" * 500, hint="\U0001f600" * 300),))
        for number in range(20)
    )
    cells = [dataclasses.replace(_cell(number, FAIL), checks=checks) for number in range(1, 14)]
    for line in lines(github.render(_run(run, *cells)))[:10]:
        message = line.partition("title=")[2].partition("::")[2]
        assert len(message.encode("utf-16-le")) / 2 <= 4_096
        assert "more lines, see the report" in message


@pytest.mark.parametrize(
    ("file", "workspace", "expected"),
    [
        ("/w/ci/q.yml", "/w", "ci/q.yml"),
        ("/w/./ci/../q.yml", "/w/", "q.yml"),
        ("/elsewhere/q.yml", "/w", None),
        ("/wide/q.yml", "/w", None),
        ("/w/..q.yml", "/w", "..q.yml"),
        ("./q.yml", None, "q.yml"),
        ("../q.yml", None, None),
        ("/q.yml", None, None),
    ],
)
def test_paths_are_relative_to_the_workspace(
    run: RunResult, file: str, workspace: str | None, expected: str | None
) -> None:
    cell = CellResult(cell=Cell(id="m", origin=Location(file=file, line=7)), checks=(FAIL,))
    ((_, properties, _),) = commands(github.render(_run(run, cell), workspace))
    assert properties.get("file") == expected
    assert properties.get("line") == (None if expected is None else "7")


@pytest.mark.parametrize(
    ("checkpoint", "expected"),
    [
        (ModelRef(kind="folder", name="/w/models/a"), "models/a/config.json"),
        (ModelRef(kind="folder", name="/models/a"), None),
        (ModelRef(kind="hub", name="org/a"), None),
    ],
)
def test_without_a_matrix_the_config_is_the_place(run: RunResult, checkpoint: ModelRef, expected: str | None) -> None:
    cell = CellResult(cell=Cell(id="m", checkpoint=checkpoint), checks=(FAIL,))
    ((_, properties, _),) = commands(github.render(_run(run, cell), "/w"))
    assert properties.get("file") == expected


def test_nothing_wrong_nothing_said(run: RunResult) -> None:
    assert github.render(_run(run, _cell(1, PASS))) == ""


@given(runs, st.none() | st.just("/w"))
@patiently
def test_any_run_makes_our_commands_and_no_other(run: RunResult, workspace: str | None) -> None:
    text = github.render(run, workspace)
    for line in lines(text)[:-1]:
        ((name, properties, data),) = commands(line)
        assert name in {"error", "warning"}
        assert set(properties) <= {"file", "line", "title"}
        assert not commands(data)
        assert len(data) <= 4_096
    assert len(commands(text)) <= 20
