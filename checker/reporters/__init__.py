"""Reporters: pure functions from a ``RunResult`` to text. The caller chooses where the text goes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from checker.domain import RunResult
from checker.errors import Unavailable

_MODE = 0o644  # jobs often run as root, and what reads the reports does not


def write_reports(run: RunResult, folder: Path) -> None:
    """Write junit.xml, report.json, summary.md and report.html, each whole or not at all.

    Called after every check, so that a run which is killed leaves the reports of all it knew.

    Raises:
        Unavailable: the folder cannot be made or written; names it and the reason.
    """
    from checker.reporters import html, json_v1, junit, summary

    texts = {
        "report.json": json_v1.render(run),
        "junit.xml": junit.render(run),
        "report.html": html.render(run),
        "summary.md": summary.render(run),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            _replace(folder / name, text)
    except OSError as error:
        raise Unavailable(f"cannot write the reports to {folder}: {error.strerror or error}") from error


def _replace(path: Path, text: str) -> None:
    """Write beside the file, then rename over it, so that a reader never meets half of one."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            os.fchmod(descriptor, _MODE)
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
