"""A comparison for programs: schema ``quant-verify/comparison/1``.

::

    {"schema": "quant-verify/comparison/1", "tool": {"version"}, "fail_on": "fail|warn", "exit_code": 0 | 1 | 4,
     "totals": {"worse", "gone", "appeared", "changed", "better", "unchanged"},
     "surroundings": [{"what", "old", "new"}],                        # versions, devices, and what changed in all cells
     "cells": [{"id", "status", "note",                               # status: one of the keys of totals
                "outcome": {"old", "new"},                            # pass|warn|fail|error|skip, null: not in it
                "facts": [{"what", "old", "new"}],
                "checks": [{"id", "direction": "worse|changed|better", "old", "new", "reason",
                            "findings": [{"direction", "old": null | finding, "new": null | finding}]}],
                "figures": [{"id", "check", "where", "unit", "direction", "old": figure, "new": figure}],
                "texts": [{"prompt", "old", "new", "position"}],      # position: how many characters are the same
                "seconds": null | {"old", "new"}}]}                   # only where they moved

A finding is ``{"severity", "message", "where", "observed", "limit", "unit", "waived"}``, the last one true or false. A
figure is ``{"value"}``, and ``{"value", "low", "high"}`` where it has a 95 % interval. Its id is its path in the
measurements of report.json. The cells of both reports are all there, the worst first, one a line. A number that JSON
lacks is given by its name, as in report.json.
"""

from __future__ import annotations

import json

import checker
from checker.comparison import CellChange, CheckChange, Comparison, FigureChange, Interval, Replaced, Status
from checker.domain import Finding, Json, Outcome
from checker.reporters.json_v1 import plain

SCHEMA = "quant-verify/comparison/1"


def render(comparison: Comparison) -> str:
    """The comparison as text: what concerns all on the first line, then one cell a line."""
    head = _dumps(
        {
            "schema": SCHEMA,
            "tool": {"version": checker.__version__},
            "fail_on": comparison.fail_on.value,
            "exit_code": int(comparison.exit_code),
            "totals": {status.value: len(comparison.of(status)) for status in Status},
            "surroundings": [_replaced(fact) for fact in comparison.surroundings],
        }
    )[:-1]
    cells = ",\n".join(_dumps(_cell(cell)) for cell in comparison.cells)
    return f'{head}, "cells": [\n{cells}\n]}}\n' if cells else f'{head}, "cells": []}}\n'


def _cell(cell: CellChange) -> dict[str, Json]:
    return {
        "id": cell.id,
        "status": cell.status.value,
        "note": cell.note,
        "outcome": {"old": _outcome(cell.old), "new": _outcome(cell.new)},
        "facts": [_replaced(fact) for fact in cell.facts],
        "checks": [_check(check) for check in cell.checks],
        "figures": [_figure(figure) for figure in cell.figures],
        "texts": [
            {"prompt": text.prompt, "old": text.old, "new": text.new, "position": text.position} for text in cell.texts
        ],
        "seconds": None if cell.seconds is None else {"old": cell.seconds[0], "new": cell.seconds[1]},
    }


def _outcome(outcome: Outcome | None) -> str | None:
    return None if outcome is None else outcome.value


def _replaced(fact: Replaced) -> dict[str, Json]:
    return {"what": fact.what, "old": fact.old, "new": fact.new}


def _check(check: CheckChange) -> dict[str, Json]:
    return {
        "id": check.id,
        "direction": check.direction.value,
        "old": _outcome(check.old),
        "new": _outcome(check.new),
        "reason": check.reason,
        "findings": [
            {"direction": item.direction.value, "old": _finding(item.old), "new": _finding(item.new)}
            for item in check.findings
        ],
    }


def _figure(figure: FigureChange) -> dict[str, Json]:
    return {
        "id": figure.id,
        "check": figure.check,
        "where": figure.where,
        "unit": figure.unit,
        "direction": figure.direction.value,
        "old": _side(figure.old, figure.old_interval),
        "new": _side(figure.new, figure.new_interval),
    }


def _side(value: float, interval: Interval | None) -> dict[str, float]:
    return {"value": value} if interval is None else {"value": value, "low": interval.low, "high": interval.high}


def _finding(finding: Finding | None) -> dict[str, Json] | None:
    if finding is None:
        return None
    return {
        "severity": finding.severity.value,
        "message": finding.message,
        "where": finding.where,
        "observed": finding.observed,
        "limit": finding.limit,
        "unit": finding.unit,
        "waived": finding.waived is not None,
    }


def _dumps(value: dict[str, Json]) -> str:
    return json.dumps(plain(value), allow_nan=False)
