"""Saying what a command found: stdout, and the step summary of a workflow, with an exit code that tells of losses."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import click

from checker.domain import ExitCode


@dataclass(frozen=True, slots=True)
class Said:
    """What a command has to say: to stdout, and as markdown for a workflow's step summary."""

    what: str
    print: Callable[[], None]
    markdown: Callable[[], str]


def deliver(code: ExitCode, said: Said, *, annotate: bool) -> ExitCode:
    """Say it; the exit code, which is never a success when it could not be said."""
    try:
        said.print()
    except OSError as error:  # the reader went away, or what stdout goes to is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            warn(f"cannot write the {said.what} to stdout: {error.strerror}")
            code = at_least_unverified(code)
    target = os.environ.get("GITHUB_STEP_SUMMARY")
    if target and annotate:
        try:
            with open(target, "a", encoding="utf-8") as file:  # noqa: PTH123 - appending, as the runner asks
                file.write(said.markdown())
        except OSError as error:
            warn(f"cannot write the step summary to {target}: {error.strerror}")
            code = at_least_unverified(code)
    return code


def at_least_unverified(code: ExitCode) -> ExitCode:
    """The exit code when a report is lost: never a success, but a failed check and an interrupt say more."""
    return ExitCode.UNVERIFIED if code in (ExitCode.PASSED, ExitCode.NOTHING_CHECKED) else code


def show_usage(error: click.ClickException) -> None:
    """What click says of a wrong command line, escaped: it repeats values that may come from a pull request."""
    from checker.reporters import escape

    text = io.StringIO()
    error.show(text)
    with contextlib.suppress(OSError):
        sys.stderr.write(escape.log(text.getvalue()))


def warn(text: str) -> None:
    """One line on stderr, escaped."""
    from checker.reporters import escape

    with contextlib.suppress(OSError):  # stderr may be gone; the verdict does not depend on it
        sys.stderr.write(f"quant-verify: {escape.log(text)}\n")
