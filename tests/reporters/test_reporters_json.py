"""report.json: the schema of the design, and a reader that believes nothing."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from reporters_any_run import patiently, runs

import checker
from checker.domain import Environment, ExitCode, ModelRef, RunResult, Severity
from checker.errors import UsageError
from checker.reporters import json_v1
from checker.reporters.json_v1 import read_report, render


def test_keys_are_those_of_the_design(run: RunResult) -> None:
    report = json.loads(render(run))
    assert list(report) == [
        "schema", "tool", "environment", "matrix", "shard", "planned", "fail_on", "totals", "exit_code", "cells",
    ]  # fmt: skip
    cell = report["cells"][2]
    assert list(cell) == [
        "id", "baseline", "checkpoint", "method", "depth", "device", "attempts", "origin", "outcome", "seconds",
        "checks", "measurements",
    ]  # fmt: skip
    assert list(cell["checks"][3]) == ["id", "outcome", "seconds", "skip_reason", "error", "findings"]
    assert list(cell["checks"][3]["findings"][0]) == [
        "severity", "message", "where", "observed", "limit", "unit", "hint", "waived",
    ]  # fmt: skip
    assert report["totals"] == {"cells": 5, "pass": 1, "warn": 1, "fail": 1, "error": 1, "skip": 1}


def test_what_json_lacks_is_written_as_its_name() -> None:
    value = {1: (math.nan, math.inf, -math.inf, 0.5), "a": {"b": object}, "c": True}
    assert json_v1.plain(value) == {"1": ["NaN", "Infinity", "-Infinity", 0.5], "a": {"b": str(object)}, "c": True}


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (ModelRef(kind="folder", name="./a"), "./a"),
        (ModelRef(kind="folder", name="/a@b"), "/a@b"),
        (ModelRef(kind="folder", name="a/b"), "dir:a/b"),
        (ModelRef(kind="hub", name="org/m"), "org/m"),
        (ModelRef(kind="hub", name="org/m", revision="main"), "org/m@main"),
        (ModelRef(kind="hub", name="./m"), "hf:./m"),
    ],
)
def test_references_tell_folders_from_repositories(model: ModelRef, text: str) -> None:
    assert json_v1.reference(model) == text
    assert json_v1.model_of(text) == model


def test_reading_brings_back_what_the_schema_holds(run: RunResult) -> None:
    back = read_report(render(run))
    assert render(back) == render(run)
    assert back.exit_code is run.exit_code
    assert back.planned == run.planned
    assert back.cells[4].cell.checkpoint == ModelRef(kind="folder", name="models/published")
    assert [check.outcome for check in back.cells[3].checks] == [check.outcome for check in run.cells[3].checks]


def test_an_interrupt_comes_back(run: RunResult) -> None:
    stopped = dataclasses.replace(run, interrupted=ExitCode.TERMINATED, fail_on=Severity.WARN)
    back = read_report(render(stopped))
    assert (back.interrupted, back.fail_on) == (ExitCode.TERMINATED, Severity.WARN)


def test_an_empty_report(run: RunResult) -> None:
    empty = RunResult(environment=Environment(python="3"), planned=("a",), cells=(), shard="9/9")
    assert read_report(render(empty)) == empty


def test_another_version_of_the_tool_is_read(run: RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    text = render(run)
    monkeypatch.setattr(checker, "__version__", "9.9.9")
    assert read_report(text).exit_code is ExitCode.FAILED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "r.json: not JSON: "),
        ("[" * 100_000, "r.json: not JSON: "),
        ('{"a": 1, "a": 2}', "r.json: not JSON: key 'a' stands twice in one object"),
        ('{"a": NaN}', "r.json: not JSON: NaN is no JSON number"),
        ("[]", "r.json: schema: expected 'quant-verify/report/1', found 'list'"),
        ('{"schema": "quant-verify/report/2"}', "found 'quant-verify/report/2'"),
    ],
)
def test_what_is_no_report_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        read_report(text, "r.json")


def _set(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(report: Any) -> None:
        for key in path[:-1]:
            report = report[key]
        report[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("extra", value=1), "extra: Extra inputs are not permitted"),
        (_set("a\nb", value=1), r"a\nb: Extra inputs"),
        (_set("planned", value="all"), "planned: Input should be a valid list"),
        (_set("exit_code", value="1"), "exit_code: Input should be a valid integer"),
        (_set("exit_code", value=0), "exit_code: contradicts the rest of the report"),
        (_set("totals", "pass", value=2), "totals.pass: contradicts"),
        (_set("shard", value="x"), "shard: String should match"),
        (_set("cells", 0, "outcome", value="fail"), "cells.0.outcome: contradicts"),
        (_set("cells", 0, "checks", 0, "outcome", value="green"), "cells.0.checks.0.outcome: Input should be 'pass'"),
        (_set("cells", 0, "seconds", value=-1), "cells.0.seconds: Input should be greater"),
        (_set("cells", 0, "seconds", value=True), "cells.0.seconds: Input should be a valid number"),
        (_set("cells", 0, "attempts", value=0), "cells.0.attempts: Input should be greater"),
        (_set("cells", 2, "checks", 3, "findings", 0, "message", value="a\nb"), "message: Value error, must be one"),
        (
            _set("cells", 2, "checks", 3, "findings", 0, "waived", "until", value="soon"),
            "until: Value error, Invalid isoformat",
        ),
        (_set("cells", 3, "checks", 2, "error", "kind", value="odd"), "cells.3.checks.2.error.kind: Input should be"),
        (_set("cells", 0, "baseline", value={"ref": "a"}), "cells.0.baseline.revision: Field required"),
    ],
)
def test_a_report_that_breaks_the_schema_is_refused(
    run: RunResult, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    report = json.loads(render(run))
    change(report)
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        read_report(json.dumps(report), "r.json")
    assert str(caught.value).startswith("r.json: ")
    assert "\n" not in str(caught.value)


@given(runs)
@patiently
def test_any_run_comes_back(run: RunResult) -> None:
    text = render(run)
    strict = json.loads(text, parse_constant=pytest.fail)
    assert strict["exit_code"] == run.exit_code
    assert render(read_report(text)) == text
