"""Outcomes and findings of two runs: what is worse, what is better, what is only told."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest
from comparison_parts import cell as make
from comparison_parts import change, check, finding

from checker.domain import CheckResult, Waived

WORSE, CHANGED, BETTER, SAME = "worse", "changed", "better", None
WAIVED = Waived(reason="known", until=dt.date(2099, 1, 1))
# what an outcome (row) became (column); None: no such check in the report
OUTCOMES = ("pass", "warn", "fail", "error", "skip", None)
TABLE = {
    "pass": (SAME, CHANGED, WORSE, WORSE, CHANGED, CHANGED),
    "warn": (BETTER, SAME, WORSE, WORSE, CHANGED, CHANGED),
    "fail": (BETTER, BETTER, SAME, CHANGED, CHANGED, CHANGED),
    "error": (BETTER, BETTER, WORSE, SAME, CHANGED, CHANGED),
    "skip": (CHANGED, CHANGED, WORSE, CHANGED, SAME, SAME),
    None: (CHANGED, CHANGED, WORSE, CHANGED, SAME, SAME),
}
WHERE_WARNINGS_FAIL = {
    ("pass", "warn"): WORSE,
    ("error", "warn"): WORSE,
    ("skip", "warn"): WORSE,
    (None, "warn"): WORSE,
    ("warn", "error"): CHANGED,  # it failed already
}


def rows(fail_on: str):
    special = WHERE_WARNINGS_FAIL if fail_on == "warn" else {}
    for old, becomes in TABLE.items():
        for new, direction in zip(OUTCOMES, becomes, strict=True):
            expected = special.get((old, new), direction)
            yield pytest.param(old, new, fail_on, expected, id=f"{old} to {new} is {expected}, fail-on {fail_on}")


@pytest.mark.parametrize(("old", "new", "fail_on", "direction"), [*rows("fail"), *rows("warn")])
def test_what_became_of_a_check(old, new, fail_on, direction):
    other = check("pass", "config.keys")  # so that neither cell is without checks
    found = change(make(checks=other + check(old)), make(checks=other + check(new)), fail_on)
    assert [item.direction for item in found.checks] == ([] if direction is None else [direction])
    assert found.status == (direction or "unchanged")


def test_what_has_no_verdict_says_why():
    reasons = [change(make(), make(checks=check(outcome))).checks[0].reason for outcome in ("error", "skip", "fail")]
    assert reasons == ["crash: the worker died", "it does not apply", ""]


def findings_changed(old, new, fail_on="fail"):
    before, now = (make(checks=(CheckResult(id="x", findings=tuple(items)),)) for items in (old, new))
    found = change(before, now, fail_on)
    assert len(found.checks) == (found.status != "unchanged")
    told = [(item.old, item.new, item.direction) for check in found.checks for item in check.findings]
    return found.status, told


A, B, A_WARNS = finding("a"), finding("b"), finding("a", severity="warn")
A_WAIVED = finding("a", waived=WAIVED)
REWORDED = finding("a", message="a is wrong by another number")


@pytest.mark.parametrize(
    ("old", "new", "status", "told"),
    [
        pytest.param([A], [A], "unchanged", [], id="the same finding"),
        pytest.param([A], [REWORDED], "unchanged", [], id="the same but for its figures"),
        pytest.param([A], [A, B], WORSE, [(None, B, WORSE)], id="one more in a check that failed already"),
        pytest.param([A, B], [B], BETTER, [(A, None, BETTER)], id="one less in a check that fails still"),
        pytest.param([A], [B], WORSE, [(None, B, WORSE), (A, None, BETTER)], id="another layer"),
        pytest.param([A], [A, A], WORSE, [(None, A, WORSE)], id="once more at the same place"),
        pytest.param(
            [A, REWORDED], [A], BETTER, [(REWORDED, None, BETTER)], id="of two at one place the right one went"
        ),
        pytest.param([A_WARNS], [A], WORSE, [(A_WARNS, A, WORSE)], id="a warning became a failure"),
        pytest.param([A], [A_WARNS], BETTER, [(A, A_WARNS, BETTER)], id="a failure became a warning"),
        pytest.param([], [A_WARNS], CHANGED, [(None, A_WARNS, CHANGED)], id="a new warning is told"),
        pytest.param([A], [A_WAIVED], CHANGED, [(A, A_WAIVED, CHANGED)], id="waived is not mended"),
        pytest.param([A_WAIVED], [A], WORSE, [(None, A, WORSE)], id="a waiver has ended"),
        pytest.param([A_WAIVED], [], "unchanged", [], id="a waived one never counted"),
        pytest.param([], [A_WAIVED], "unchanged", [], id="nor does it now"),
    ],
)
def test_what_became_of_findings(old, new, status, told):
    assert findings_changed(old, new) == (status, told)


def test_new_warnings_count_where_warnings_fail():
    assert findings_changed([A_WARNS], [A_WARNS, finding("b", severity="warn")], "warn")[0] == WORSE


def test_findings_of_a_check_without_a_verdict_are_not_gone():
    found = change(make(checks=check("fail")), make(checks=check("error")))
    assert found.checks[0].findings == ()


def test_a_verdict_is_lost_though_a_warning_is_left():
    broken = dataclasses.replace(check("error")[0], findings=(A_WARNS,))
    found = change(make(), make(checks=(broken,)))
    assert (found.status, len(found.checks[0].findings)) == (WORSE, 1)


def test_the_worst_check_comes_first_and_none_is_lost():
    old = check("fail", "a") + check("pass", "b") + check("pass", "c") + check("pass", "c")
    new = check("pass", "a") + check("warn", "b") + check("pass", "c") + check("fail", "c")
    found = change(make(checks=old), make(checks=new))
    assert [(item.id, item.direction) for item in found.checks] == [("c", WORSE), ("b", CHANGED), ("a", BETTER)]


def test_tens_of_thousands_of_findings_take_no_minute():
    names = [f"experts.{number}" for number in range(30_000)]
    old, new = ([finding(name, severity=severity) for name in names] for severity in ("warn", "fail"))
    status, told = findings_changed(old, new)
    assert status == WORSE
    assert len(told) == len(names)
