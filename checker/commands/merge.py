"""``merge``: the reports of several jobs as one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checker.commands.deliver import at_least_unverified
from checker.commands.options import RunArguments
from checker.commands.suite import Reports, show
from checker.domain import ExitCode
from checker.errors import UsageError
from checker.reporters.json_v1 import read_report
from checker.reporters.merge import merge


def merge_reports(paths: tuple[str, ...], options: Mapping[str, Any]) -> ExitCode:
    """Join reports, write the joined set, show it.

    Raises:
        UsageError: a file that is no report, a planned cell that no report holds, two reports that disagree.
    """
    merged = merge([read_report(_text(path), path) for path in paths])
    arguments = RunArguments(**options)
    reports = Reports(arguments)
    reports.write(merged)
    code = show(merged, arguments)
    return code if reports.failure is None else at_least_unverified(code)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"cannot read the report {path}: {reason}") from None
