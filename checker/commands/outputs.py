"""What a step of a workflow gives to the steps after it, as lines ``name=value`` in a file of the launcher's choice.

The launcher of the Action names the file in ``QUANT_VERIFY_OUTPUTS`` and takes over what it knows. The runner's own
file of outputs is not given to a process that opens models.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from checker.atomic import replacing
from checker.domain import RunResult
from checker.errors import Unavailable

VARIABLE = "QUANT_VERIFY_OUTPUTS"
COUNTS = {"cells": "cells", "passed": "pass", "failed": "fail", "warned": "warn", "errored": "error", "skipped": "skip"}
FILES = {"junit": "junit.xml", "json": "report.json", "summary": "summary.md", "html": "report.html"}


def write_run(run: RunResult, folder: Path | None) -> None:
    """How many cells there are of each outcome, and where the reports are; ``folder`` is None when there are none.

    Raises:
        Unavailable: the file cannot be written.
    """
    from checker.reporters.json_v1 import totals

    if not os.environ.get(VARIABLE):
        return
    counted = totals(run)
    counts = {name: str(counted[outcome]) for name, outcome in COUNTS.items()}
    paths = {name: _from_workspace(folder / file) for name, file in FILES.items()} if folder is not None else {}
    write(counts | paths)


def write(values: Mapping[str, str]) -> None:
    """Replace the file by these outputs; without a variable that names one, nothing happens.

    A value of several lines could pass for other outputs, and is left out: only a folder can have such a name.

    Raises:
        Unavailable: the file cannot be written.
    """
    target = os.environ.get(VARIABLE)
    if not target:
        return
    lines = [f"{name}={value}\n" for name, value in values.items() if len(value.splitlines()) == 1]
    try:
        with replacing(Path(target)) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8", newline="\n")
    except (OSError, UnicodeEncodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "a path is not UTF-8"
        raise Unavailable(f"cannot write the outputs of the step to {target}: {reason}") from error


def _from_workspace(path: Path) -> str:
    """Relative to the workspace, where an action in a container of its own finds it too; as it is outside."""
    whole = os.path.abspath(path)  # noqa: PTH100 - lexical, so that a linked folder keeps its name
    workspace = os.environ.get("GITHUB_WORKSPACE")
    inside = workspace and Path(whole).is_relative_to(workspace)
    return os.path.relpath(whole, workspace) if inside else whole
