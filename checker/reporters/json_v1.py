"""report.json, version 1 (design §8): a contract with its own small dictionaries, never a dump of our classes.

One line per cell, so that two reports can be compared with any tool, and no indentation, because the file is written
after every check. JSON has no NaN: such a number is written as the string ``"NaN"``, ``"Infinity"`` or
``"-Infinity"``, which says more than ``null`` and reads the same in every report made from this one.

One key goes beyond the design: ``fail_on``, without which a merged report could not tell whether warnings fail.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping

import checker
from checker.domain import (
    CellResult,
    CheckResult,
    Environment,
    Finding,
    Json,
    ModelRef,
    Outcome,
    RunResult,
)

SCHEMA = "quant-verify/report/1"
_FOLDER_STARTS = ("./", "../", "/", "dir:")


def render(run: RunResult) -> str:
    """The report as text: the envelope on the first line, then one cell a line."""
    report = envelope(run)
    head = _dumps(report)[:-1]
    cells = ",\n".join(_dumps(cell_dict(cell)) for cell in run.cells)
    return f'{head}, "cells": [\n{cells}\n]}}\n' if cells else f'{head}, "cells": []}}\n'


def read_report(text: str, source: str = "report.json") -> RunResult:
    """The run that a report tells of; all that its schema holds comes back as it was.

    Not held: the quantization of a cell that was made here, settings other than the depth, details of errors. A
    number that JSON lacks comes back as its name.

    Raises:
        UsageError: not JSON, not this schema, or in contradiction with itself; names ``source`` and the key.
    """
    from checker.reporters.report_v1 import read

    return read(text, source)


def envelope(run: RunResult) -> dict[str, Json]:
    """All of the report but its cells, for what prints or sends them one by one."""
    return {
        "schema": SCHEMA,
        "tool": {"version": checker.__version__},
        "environment": _environment(run.environment),
        "matrix": {"path": run.matrix_path, "sha256": run.matrix_sha256},
        "shard": run.shard,
        "planned": list(run.planned),
        "fail_on": run.fail_on.value,
        "totals": totals(run),
        "exit_code": int(run.exit_code),
    }


def totals(run: RunResult) -> dict[str, int]:
    """How many cells there are, and how many of each outcome."""
    counts = Counter(cell.outcome for cell in run.cells)
    order = (Outcome.PASS, Outcome.WARN, Outcome.FAIL, Outcome.ERROR, Outcome.SKIP)
    return {"cells": len(run.cells)} | {outcome.value: counts[outcome] for outcome in order}


def cell_dict(cell: CellResult) -> dict[str, Json]:
    """One element of ``cells``."""
    origin = cell.cell.origin
    return {
        "id": cell.cell.id,
        "baseline": _model(cell.cell.baseline, cell.baseline_revision),
        "checkpoint": _model(cell.cell.checkpoint, cell.checkpoint_revision),
        "method": cell.method,
        "depth": cell.cell.settings.depth.value,
        "device": cell.device,
        "attempts": cell.attempts,
        "origin": None if origin is None else {"file": origin.file, "line": origin.line},
        "outcome": cell.outcome.value,
        "seconds": cell.seconds,
        "checks": [_check(check) for check in cell.checks],
        "measurements": {**cell.measurements},
    }


def plain(value: Json) -> Json:
    """The value as strict JSON has it: no NaN, no tuple, only text as keys; anything else as its text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else non_finite(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value)


def non_finite(value: float) -> str:
    """The name of a number that JSON lacks, as JavaScript spells it."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def reference(model: ModelRef) -> str:
    """A model as a matrix spells it (design §6), so that folder and Hub repository cannot be confused."""
    if model.kind == "folder":
        return model.name if model.name.startswith(_FOLDER_STARTS[:3]) else f"dir:{model.name}"
    prefix = "hf:" if model.name.startswith((*_FOLDER_STARTS, "hf:")) else ""
    return f"{prefix}{model}"


def model_of(text: str) -> ModelRef:
    """The inverse of ``reference``."""
    if text.startswith(_FOLDER_STARTS):
        return ModelRef(kind="folder", name=text.removeprefix("dir:"))
    name, _, revision = text.removeprefix("hf:").partition("@")
    return ModelRef(kind="hub", name=name, revision=revision or None)


def _environment(environment: Environment) -> dict[str, Json]:
    return {
        "python": environment.python,
        "packages": {**environment.packages},
        "device": environment.device,
        "driver": environment.driver,
    }


def _model(model: ModelRef | None, revision: str | None) -> dict[str, Json] | None:
    return None if model is None else {"ref": reference(model), "revision": revision}


def _check(check: CheckResult) -> dict[str, Json]:
    error = check.error
    return {
        "id": check.id,
        "outcome": check.outcome.value,
        "seconds": check.seconds,
        "skip_reason": check.skip_reason,
        "error": None if error is None else {"kind": error.kind.value, "message": error.message},
        "findings": [_finding(finding) for finding in check.findings],
    }


def _finding(finding: Finding) -> dict[str, Json]:
    waived = finding.waived
    return {
        "severity": finding.severity.value,
        "message": finding.message,
        "where": finding.where,
        "observed": finding.observed,
        "limit": finding.limit,
        "unit": finding.unit,
        "hint": finding.hint,
        "waived": None if waived is None else {"reason": waived.reason, "until": waived.until.isoformat()},
    }


def _dumps(value: dict[str, Json]) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):  # rare, and several times slower: a number that JSON lacks, a foreign type
        return json.dumps(plain(value), allow_nan=False)
