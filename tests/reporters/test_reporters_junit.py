"""JUnit XML as its consumers read it."""

from __future__ import annotations

import dataclasses
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from reporters_any_run import patiently, runs
from reporters_reading import junit_counts

from checker.domain import CellResult, CheckResult, Finding, RunResult, Severity
from checker.errors import Unavailable
from checker.reporters import junit


def _cases(run: RunResult) -> list[ET.Element]:
    return list(ET.fromstring(junit.render(run).encode()).iter("testcase"))


def _only(run: RunResult, *checks: CheckResult) -> RunResult:
    return dataclasses.replace(run, cells=(dataclasses.replace(run.cells[0], checks=checks),))


def test_counts_are_exact_for_two_parsers(run: RunResult) -> None:
    counts = junit_counts(junit.render(run))
    assert [(suite["tests"], suite["failures"], suite["errors"], suite["skipped"]) for suite in counts] == [
        (7, 0, 0, 0),
        (7, 0, 0, 0),
        (7, 2, 0, 1),
        (9, 0, 7, 0),
        (6, 0, 0, 6),
    ]


def test_no_exponent_no_missing_time_nothing_disabled(run: RunResult) -> None:
    text = junit.render(run)
    root = ET.fromstring(text.encode())
    assert "disabled" not in text
    for element in root.iter():
        if element.tag in {"testsuites", "testsuite", "testcase"}:
            assert re.fullmatch(r"\d+\.\d{3}", element.get("time", ""))


def test_case_names_the_cell_the_check_and_the_matrix_entry(run: RunResult) -> None:
    case = _cases(run)[0]
    assert {key: case.get(key) for key in ("classname", "name", "file", "line")} == {
        "classname": "smollm2/nf4",
        "name": "config.present",
        "file": "ci/quant-verify.yml",
        "line": "4",
    }


def test_a_failure_has_message_and_body_with_all_findings(run: RunResult) -> None:
    failure = next(case for case in _cases(run) if case.get("name") == "weights.error").find("failure")
    assert failure is not None
    message = "model.layers.0.mlp.up_proj: the error is 2 times what scales and codes predict (and 12 more)"
    assert failure.get("message") == message
    body = failure.text or ""
    assert body.count("FAIL ") == 12
    assert all(word in body for word in ("WARN ", "WAIVED ", "observed: 13 R", "limit: 1.2 R", "hint: ", "until 2099"))


def test_a_message_of_nothing_but_colour_is_still_a_failure(run: RunResult) -> None:
    only = _only(run, CheckResult(id="a", findings=(Finding(message="\x1b[31m"),)))
    assert junit_counts(junit.render(only))[0]["failures"] == 1


def test_names_that_clean_to_the_same_stay_apart(run: RunResult) -> None:
    cell = dataclasses.replace(run.cells[0], checks=(CheckResult(id="a"), CheckResult(id="a\x1b[0m")))
    twin = dataclasses.replace(cell, cell=dataclasses.replace(cell.cell, id="smollm2/nf4\x1b[0m"))
    text = junit.render(dataclasses.replace(run, cells=(cell, twin)))
    junit.verify(text)
    assert [case.get("name") for case in ET.fromstring(text.encode()).iter("testcase")] == ["a", "a (2)"] * 2


def test_a_long_body_is_cut_between_findings(run: RunResult) -> None:
    many = tuple(Finding(message="x" * 900, where=str(number)) for number in range(100))
    failure = _cases(_only(run, CheckResult(id="a", findings=many)))[0].find("failure")
    assert failure is not None
    assert failure.text is not None
    assert len(failure.text.encode()) < 64_000
    shown = failure.text.count("FAIL ")
    assert failure.text.endswith(f"\n\nand {100 - shown} more, see report.json")


def test_long_and_compound_measurements_are_left_to_the_json(run: RunResult) -> None:
    measurements = {"a": {"b": 1.5, "c": [1]}, "d": "x" * 500, "e": True, "f": None, "g": float("nan")}
    cell = dataclasses.replace(run.cells[0], measurements=measurements)
    root = ET.fromstring(junit.render(dataclasses.replace(run, cells=(cell,))).encode())
    found = {item.get("name"): item.get("value") for item in root.iter("property")}
    assert {key: text for key, text in found.items() if key and key.startswith("measurement")} == {
        "measurement.a.b": "1.5",
        "measurement.e": "true",
        "measurement.g": "NaN",
    }


def test_warnings_fail_when_asked(run: RunResult) -> None:
    strict = dataclasses.replace(run, fail_on=Severity.WARN)
    assert [suite["failures"] for suite in junit_counts(junit.render(strict))] == [0, 1, 3, 0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<testsuites>", "does not parse"),
        ("\ud800", "does not parse"),
        ('<testsuites><testsuite tests="1" failures="0" errors="0" skipped="0"/></testsuites>', "counts"),
        (
            '<testsuite tests="2" failures="0" errors="0" skipped="0"><testcase/><testcase/></testsuite>',
            "two cases",
        ),
    ],
)
def test_verify_finds_what_a_consumer_would_stumble_over(text: str, message: str) -> None:
    with pytest.raises(Unavailable, match=message):
        junit.verify(text)


@given(runs)
@patiently
def test_any_run_makes_a_report_that_two_parsers_agree_on(run: RunResult) -> None:
    text = junit.render(run)
    junit.verify(text)
    for suite, cell in zip(junit_counts(text), run.cells, strict=True):
        assert suite["tests"] == len(cell.checks)
        assert suite["errors"] == sum(check.outcome == "error" for check in cell.checks)
        assert suite["failures"] == _failures(cell, run.fail_on)


def _failures(cell: CellResult, fail_on: Severity) -> int:
    bad = {"fail", "warn"} if fail_on is Severity.WARN else {"fail"}
    return sum(check.outcome in bad for check in cell.checks)
