"""Reports of earlier runs, as files that another job, or somebody else, may have written."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from checker.domain import RunResult
from checker.errors import UsageError
from checker.reporters import REPORT_FILES
from checker.reporters.json_v1 import read_report

LARGEST = 256 << 20  # bytes


def report_of(path: str) -> tuple[RunResult, str]:
    """The run of a report, strictly by its schema, and the text of it; of a folder, its ``report.json``.

    Raises:
        UsageError: there is none, it is no regular file, too large to be one, or no report.
    """
    file = os.path.join(path, "report.json") if os.path.isdir(path) else path  # noqa: PTH112, PTH118 - as it was given
    text = _text(file)
    try:
        return read_report(text, file), text
    except RecursionError:
        raise UsageError(f"{file} is no report: it is nested too deeply") from None


def _text(path: str) -> str:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UsageError(f"cannot read the report {path}: it is no file")
            data = file.read(LARGEST)
            if file.read(1):
                raise UsageError(f"cannot read the report {path}: it is larger than {LARGEST >> 20} MiB")
    except OSError as error:
        raise UsageError(f"cannot read the report {path}: {error.strerror or error}") from None
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UsageError(f"cannot read the report {path}: it is not UTF-8") from None


def forget(folder: Path | None) -> None:
    """Remove the reports of an earlier run, so that none of them can pass for what this one found.

    What cannot be removed cannot be written either, which the run then says.
    """
    if folder is None:
        return
    for name in REPORT_FILES:
        with contextlib.suppress(OSError):
            (folder / name).unlink(missing_ok=True)
