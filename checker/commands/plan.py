"""``plan``: the jobs of a matrix; imports nothing that could run one."""

from __future__ import annotations

import json
import sys

from checker.commands.options import split
from checker.commands.vocabulary import vocabulary
from checker.domain import ExitCode
from checker.matrix import load_matrix


def plan_matrix(matrix: str, max_jobs: int, globs: tuple[str, ...]) -> ExitCode:
    """``quant-verify plan``: one line of JSON on stdout."""
    from checker.matrix.select import only, plan

    loaded = load_matrix(matrix, vocabulary())
    cells = only(loaded.cells, split(globs)) if globs else loaded.cells
    sys.stdout.write(json.dumps(plan(cells, max_jobs)) + "\n")
    return ExitCode.PASSED
