"""Annotations as workflow commands (design §8): few, worst first, each on the matrix entry of its cell.

The runner keeps ten of a level and drops the rest without a word, hence one per cell and level, and a tenth that
says what is missing. Every string is escaped as message or as property.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import PurePath

from checker.domain import Cell, CellResult, CheckResult, Location, Outcome, RunResult, Severity
from checker.reporters import figures
from checker.reporters.escape import command_data, command_property, one_line, shorten

_PER_LEVEL = 10
_PER_CHECK = 5  # findings
_MESSAGE_LIMIT = 4_096  # UTF-16 units, as the runner counts
_LINE_LIMIT = 600  # characters, for one finding
_ROOM_FOR_MORE = 400  # kept free for what the last annotation says about the others
_TITLE_LIMIT = 200


def render(run: RunResult, workspace: str | None = None) -> str:
    """The workflow commands, one a line: errors for what fails or is not verified, warnings for the rest.

    ``workspace`` is ``GITHUB_WORKSPACE``; paths are given relative to it, and what lies outside has no place.
    """
    as_errors = {Outcome.FAIL, Outcome.ERROR} | ({Outcome.WARN} if run.fail_on is Severity.WARN else set())
    commands: list[str] = []
    for level, outcomes in (("error", as_errors), ("warning", {Outcome.WARN} - as_errors)):
        cells = [cell for cell in run.cells if any(check.outcome in outcomes for check in cell.checks)]
        cells.sort(key=lambda cell: list(Outcome).index(cell.outcome))
        hidden = cells[_PER_LEVEL:]
        for number, cell in enumerate(cells[:_PER_LEVEL], start=1):
            more = hidden if number == _PER_LEVEL else []
            commands.append(_command(level, cell, outcomes, more, workspace))
    return "".join(f"{command}\n" for command in commands)


def _command(
    level: str, cell: CellResult, outcomes: set[Outcome], hidden: list[CellResult], workspace: str | None
) -> str:
    groups = figures.by_outcome(cell.checks)
    checks = [check for outcome in groups if outcome in outcomes for check in groups[outcome]]
    place = _place(cell.cell, workspace)
    properties = {} if place is None else {"file": place.file, "line": str(place.line)}
    properties["title"] = shorten(one_line(cell.cell.id), _TITLE_LIMIT) + ": " + _counts(checks)
    shown = ",".join(f"{key}={command_property(text)}" for key, text in properties.items())
    return f"::{level} {shown}::{_message(checks, hidden)}"


def _counts(checks: list[CheckResult]) -> str:
    """``2 checks failed, 1 not verified``."""
    words = {Outcome.FAIL: "failed", Outcome.ERROR: "not verified", Outcome.WARN: "with warnings"}
    numbers = {word: sum(check.outcome is outcome for check in checks) for outcome, word in words.items()}
    parts = [f"{number} {word}" for word, number in numbers.items() if number]
    count, _, rest = ", ".join(parts).partition(" ")
    return f"{figures.plural(int(count), 'check')} {rest}"


def _message(checks: list[CheckResult], hidden: list[CellResult]) -> str:
    """The findings, as many as fit; what is measured is the encoded text, which is never the shorter one."""
    last = ""
    if hidden:
        names = ", ".join(cell.cell.id for cell in hidden)
        last = command_data("\n" + shorten(one_line(f"and {figures.plural(len(hidden), 'more cell')}: {names}"), 200))
    room = _MESSAGE_LIMIT - _ROOM_FOR_MORE - _length(last)
    lines = [*_lines(checks)]
    text = ""
    for number, line in enumerate(lines):
        piece = command_data(("\n" if number else "") + shorten(one_line(line), _LINE_LIMIT))
        if _length(text) + _length(piece) > room:
            text += command_data(f"\nand {figures.plural(len(lines) - number, 'more line')}, see the report")
            break
        text += piece
    return text + last


def _length(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _lines(checks: list[CheckResult]) -> Iterator[str]:
    for check in checks:
        yield from _findings(check)
    for same in figures.unverified(checks):
        yield f"{', '.join(check.id for check in same.checks)}: {same.kind}: {same.reason}"


def _findings(check: CheckResult) -> Iterator[str]:
    findings = [finding for finding in figures.ranked(check.findings) if finding.waived is None]
    for finding in findings[:_PER_CHECK]:
        comparison = figures.comparison(finding)
        yield f"{check.id}: {figures.sentence(finding)}" + (f" ({comparison})" if comparison else "")
    if len(findings) > _PER_CHECK:
        yield f"{check.id}: and {len(findings) - _PER_CHECK} more"
    yield from (f"hint: {hint}" for hint in dict.fromkeys(finding.hint for finding in findings) if hint)


def _place(cell: Cell, workspace: str | None) -> Location | None:
    if cell.origin is not None:
        file, line = cell.origin.file, cell.origin.line
    elif cell.checkpoint is not None and cell.checkpoint.kind == "folder":
        file, line = os.path.join(cell.checkpoint.name, "config.json"), 1  # noqa: PTH118 - lexical, as all here
    else:
        return None
    if not file:
        return None
    if workspace is not None:
        file = os.path.relpath(file, workspace)
    path = PurePath(os.path.normpath(file))
    return None if path.is_absolute() or path.parts[:1] == ("..",) else Location(file=path.as_posix(), line=line)
