"""What is recorded of a run: waivers, requirements, second attempts, and what was never reached."""

from __future__ import annotations

import datetime as dt

import pytest

from checker.board import Board, RunFacts
from checker.domain import (
    Cell,
    CheckError,
    CheckResult,
    Environment,
    ErrorKind,
    ExitCode,
    Finding,
    ModelRef,
    Outcome,
    Settings,
    Severity,
    Waiver,
)

CHECKS = ("config.keys", "layers.coverage", "weights.error")
TODAY = dt.datetime.now(tz=dt.UTC).date()
CRASH = CheckError(kind=ErrorKind.CRASH, message="the worker was ended by signal SIGKILL")


def cell(name: str = "a/nf4", **settings: object) -> Cell:
    return Cell(id=name, checkpoint=ModelRef(kind="folder", name="./m"), settings=Settings(**settings))


def board(*cells: Cell, waivers: tuple[Waiver, ...] = (), **facts: object) -> Board:
    cells = cells or (cell(),)
    run = RunFacts(environment=Environment(python="3"), planned=tuple(item.id for item in cells), **facts)
    return Board(run, [(item, CHECKS) for item in cells], waivers)


def waiver(cells: str = "a/*", check: str = "layers.coverage", where: str = "*", days: int = 0) -> Waiver:
    return Waiver(cells=cells, check=check, where=where, reason="known", until=TODAY + dt.timedelta(days=days))


def bad(check: str = "layers.coverage", *places: str) -> CheckResult:
    return CheckResult(id=check, findings=tuple(Finding(message="dense", where=where) for where in places or ("x.y",)))


def fill(target: Board, name: str = "a/nf4", **results: CheckResult) -> None:
    """Passes for all checks, but for those given (with ``_`` for the dot)."""
    for check in CHECKS:
        target.finished(name, results.get(check.replace(".", "_"), CheckResult(id=check)), {})


def outcomes(target: Board, name: str = "a/nf4") -> list[Outcome]:
    return [check.outcome for check in target.cell(name).checks]


def test_all_that_is_to_come_is_listed_as_not_run():
    result = board(cell("a/x"), cell("b/y")).result()
    assert [item.cell.id for item in result.cells] == ["a/x", "b/y"]
    assert {check.error.kind for item in result.cells for check in item.checks} == {ErrorKind.NOT_RUN}
    assert result.exit_code is ExitCode.UNVERIFIED


@pytest.mark.parametrize(
    ("item", "outcome"),
    [
        (waiver(), Outcome.PASS),
        (waiver(days=1), Outcome.PASS),
        (waiver(days=-1), Outcome.FAIL),
        (waiver(check="layers.*"), Outcome.PASS),
        (waiver(cells="*/nf4"), Outcome.PASS),
        (waiver(cells="a/int8"), Outcome.FAIL),
        (waiver(check="layers.excluded"), Outcome.FAIL),
        (waiver(where="x.*"), Outcome.PASS),
        (waiver(where="*.experts.*"), Outcome.FAIL),
    ],
)
def test_a_waiver_covers_what_it_names_until_its_day(item, outcome):
    target = board(waivers=(item,))
    fill(target, layers_coverage=bad())
    recorded = target.cell("a/nf4").checks[1]
    assert recorded.outcome is outcome
    assert len(recorded.findings) == 1, "a waived finding stays in the report"
    assert (recorded.findings[0].waived is not None) == (outcome is Outcome.PASS)
    assert target.unused_waivers() == ([] if outcome is Outcome.PASS or item.cells == "a/int8" else [item])


def test_a_waiver_covers_one_finding_and_leaves_the_others():
    target = board(waivers=(waiver(where="x.*"),))
    fill(target, layers_coverage=bad("layers.coverage", "x.y", "z"))
    assert [finding.waived is None for finding in target.cell("a/nf4").checks[1].findings] == [False, True]
    assert target.result().exit_code is ExitCode.FAILED


def test_unused_waivers_of_cells_in_another_shard_are_not_told():
    assert board(waivers=(waiver(cells="other/*"),)).unused_waivers() == []
    target = board(waivers=(waiver(), waiver(cells="other/*")))
    fill(target)
    assert target.unused_waivers() == [waiver()]


def test_nothing_is_said_of_a_waiver_while_its_check_has_no_verdict():
    items = (waiver(), waiver(check="config.keys"), waiver(check="*"))
    target = board(cell("a/x"), cell("a/y"), waivers=items)
    fill(target, "a/x")
    fill(target, "a/y", layers_coverage=CheckResult(id="layers.coverage", error=CRASH))
    assert target.unused_waivers() == [items[1]]


def test_of_two_waivers_of_one_finding_the_second_is_of_no_use():
    target = board(waivers=(waiver(), waiver(check="layers.*")))
    fill(target, layers_coverage=bad())
    assert target.unused_waivers() == [waiver(check="layers.*")]


def test_what_is_required_may_not_be_skipped():
    skip = CheckResult(id="weights.error", skip_reason="there is no baseline")
    lenient, strict = board(), board(cell(require=("weights.*",)))
    fill(lenient, weights_error=skip)
    fill(strict, weights_error=skip)
    assert lenient.result().exit_code is ExitCode.PASSED
    assert strict.result().exit_code is ExitCode.UNVERIFIED
    error = strict.cell("a/nf4").checks[2].error
    assert error.message == "required, but it does not apply: there is no baseline"


def test_what_is_required_and_fails_still_fails():
    target = board(cell(require=("*",)))
    fill(target, weights_error=bad("weights.error"))
    assert target.result().exit_code is ExitCode.FAILED


def test_a_dead_worker_is_charged_to_the_check_it_was_in():
    target = board()
    target.finished("a/nf4", CheckResult(id="config.keys"), {})
    marked = target.unverified("a/nf4", "layers.coverage", CRASH)
    assert [check.id for check in marked] == ["layers.coverage", "weights.error"]
    assert outcomes(target) == [Outcome.PASS, Outcome.ERROR, Outcome.ERROR]
    assert marked[0].error is CRASH
    assert marked[1].error.kind is ErrorKind.NOT_RUN
    assert CRASH.message in marked[1].error.message


def test_a_worker_dead_between_two_checks_is_charged_to_the_next():
    target = board()
    target.finished("a/nf4", CheckResult(id="config.keys"), {})
    assert target.unverified("a/nf4", "config.keys", CRASH)[0].error is CRASH


def test_what_a_cell_needs_and_lacks_is_charged_to_all():
    target = board()
    assert [check.error for check in target.unverified("a/nf4", None, CRASH)] == [CRASH] * 3


def test_a_real_error_outlives_the_workers_death():
    target = board()
    own = CheckError(kind=ErrorKind.NOT_RUN, message="there is no GPU")
    target.finished("a/nf4", CheckResult(id="config.keys", error=own), {})
    target.unverified("a/nf4", "layers.coverage", CRASH)
    assert target.cell("a/nf4").checks[0].error is own


def test_a_verdict_of_the_first_attempt_stands():
    target = board()
    fails = bad("config.keys")
    target.finished("a/nf4", fails, {"x": 1})
    target.finished("a/nf4", CheckResult(id="layers.coverage", error=CRASH), {})
    target.again("a/nf4", "tried twice")
    assert target.finished("a/nf4", CheckResult(id="config.keys"), {"x": 2}) == fails
    target.finished("a/nf4", CheckResult(id="layers.coverage"), {})
    target.finished("a/nf4", CheckResult(id="weights.error"), {"notes": ["more"]})
    assert outcomes(target) == [Outcome.FAIL, Outcome.PASS, Outcome.PASS]
    assert target.cell("a/nf4").measurements == {"x": 1, "notes": ["tried twice", "more"]}


def test_a_second_attempt_forgets_the_errors_of_the_first():
    target = board()
    target.unverified("a/nf4", None, CheckError(kind=ErrorKind.NETWORK, message="no network"))
    target.again("a/nf4", "tried twice")
    target.unverified("a/nf4", "config.keys", CRASH)
    assert "network" not in str(target.cell("a/nf4").checks)


def run(*results: CheckResult, **facts: object) -> ExitCode:
    target = board(**facts)
    for check, result in zip(CHECKS, results, strict=True):
        target.finished("a/nf4", CheckResult(id=check, findings=result.findings, skip_reason=result.skip_reason,
                                             error=result.error), {})  # fmt: skip
    return target.result().exit_code


PASS, FAIL, ERROR = CheckResult(id=""), bad(), CheckResult(id="", error=CRASH)
SKIP = CheckResult(id="", skip_reason="no")
WARN = CheckResult(id="", findings=(Finding(message="x", severity=Severity.WARN),))


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ((PASS, PASS, PASS), 0),
        ((PASS, WARN, SKIP), 0),
        ((PASS, FAIL, ERROR), 1),
        ((ERROR, PASS, WARN), 3),
        ((SKIP, ERROR, SKIP), 3),
        ((SKIP, SKIP, SKIP), 4),
        ((SKIP, SKIP, WARN), 0),
    ],
)
def test_exit_codes(results, code):
    assert run(*results) == code


def test_warnings_fail_when_told_to():
    assert run(PASS, WARN, PASS, fail_on=Severity.WARN) is ExitCode.FAILED
    assert run(PASS, WARN, ERROR, fail_on=Severity.WARN) is ExitCode.FAILED


def test_an_interrupt_wins_over_all():
    target = board()
    fill(target, layers_coverage=bad())
    target.interrupted = ExitCode.TERMINATED
    assert target.result().exit_code is ExitCode.TERMINATED


def test_no_cell_at_all():
    facts = RunFacts(environment=Environment(python="3"), planned=())
    assert Board(facts, []).result().exit_code is ExitCode.NOTHING_CHECKED
    sharded = RunFacts(environment=Environment(python="3"), planned=("a",), shard="2/2")
    assert Board(sharded, []).result().exit_code is ExitCode.PASSED
