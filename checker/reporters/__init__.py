"""Reporters: pure functions from a ``RunResult`` to text. The caller chooses where the text goes."""

from __future__ import annotations

from pathlib import Path

from checker.atomic import replacing
from checker.domain import RunResult
from checker.errors import Unavailable

REPORT_FILES = ("report.json", "junit.xml", "report.html", "summary.md")


def write_reports(run: RunResult, folder: Path) -> None:
    """Write junit.xml, report.json, summary.md and report.html, each whole or not at all.

    Called after every check, so that a run which is killed leaves the reports of all it knew.

    Raises:
        Unavailable: the folder cannot be made or written; names it and the reason.
    """
    from checker.reporters import html, json_v1, junit, summary

    texts = dict(zip(REPORT_FILES, (item.render(run) for item in (json_v1, junit, html, summary)), strict=True))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            with replacing(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise Unavailable(f"cannot write the reports to {folder}: {error.strerror or error}") from error
