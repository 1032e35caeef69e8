"""Runs and cells with little in them, for what compares two of them."""

from __future__ import annotations

from checker.comparison import CellChange, compare
from checker.domain import (
    Cell,
    CellResult,
    CheckError,
    CheckResult,
    Environment,
    ErrorKind,
    Finding,
    Outcome,
    RunResult,
    Severity,
)

CRASH = CheckError(kind=ErrorKind.CRASH, message="the worker died")


def finding(where: str = "a", *, severity: str = "fail", message: str = "", **settings) -> Finding:
    """A finding that tells of nothing but its place."""
    return Finding(message=message or f"{where} is wrong", where=where, severity=Severity(severity), **settings)


def check(outcome: str | None, name: str = "weights.error") -> tuple[CheckResult, ...]:
    """A check of some outcome; none for None."""
    if outcome is None:
        return ()
    return (
        CheckResult(
            id=name,
            findings=(finding(severity=outcome),) if outcome in ("warn", "fail") else (),
            skip_reason="it does not apply" if outcome == "skip" else None,
            error=CRASH if outcome == "error" else None,
        ),
    )


def cell(name: str = "m/q", checks: tuple[CheckResult, ...] | None = None, **settings) -> CellResult:
    """A cell that passes one check, unless told otherwise."""
    return CellResult(cell=Cell(id=name), checks=check("pass") if checks is None else checks, **settings)


def run(*cells: CellResult, **settings) -> RunResult:
    """A run that planned the cells it holds."""
    planned = tuple(item.cell.id for item in cells)
    return RunResult(**{"environment": Environment(python="3.11"), "planned": planned, "cells": cells, **settings})


def change(old: CellResult, new: CellResult, fail_on: str = "fail") -> CellChange:
    """What changed in the one cell of two runs."""
    (found,) = compare(run(old), run(new), Severity(fail_on)).cells
    assert {found.old, found.new} <= {*Outcome}
    return found


def measured(old: dict, new: dict) -> CellChange:
    """What changed in a cell of which only measurements are known."""
    return change(cell(measurements=old), cell(measurements=new))
