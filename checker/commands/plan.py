"""``plan``: the jobs of a matrix; imports nothing that could run one."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from checker.commands import outputs
from checker.commands.deliver import warn
from checker.commands.options import RunArguments, split
from checker.commands.vocabulary import vocabulary
from checker.domain import ExitCode
from checker.errors import Unavailable
from checker.matrix import load_matrix


def plan_matrix(matrix: str, max_jobs: int, globs: tuple[str, ...], timeout: float | None) -> ExitCode:
    """``quant-verify plan``: one line of JSON on stdout."""
    from checker.matrix.jobs import plan
    from checker.matrix.select import only

    loaded = load_matrix(matrix, vocabulary(), forced=RunArguments(timeout=timeout).forced())
    cells = only(loaded.cells, split(globs)) if globs else loaded.cells
    text = json.dumps(plan(cells, max_jobs, _costs(loaded.references)))
    text = text.replace("##[", "##\\u005b")  # the runner obeys it anywhere in a line
    sys.stdout.write(f"{text}\n")
    outputs.write({"plan": text})
    return ExitCode.PASSED


def _costs(references: Path | None) -> Mapping[str, float]:
    """What the cells took when they were recorded; jobs that are out of balance are no reason to run none."""
    if references is None:
        return {}
    from checker import costs

    try:
        return costs.read(references / costs.FILE)
    except Unavailable as reason:
        warn(f"{reason}; the jobs are planned as if all cells took the same time; quant-verify record writes it anew")
        return {}
