"""``compare``: what changed between the reports of two runs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from checker.commands.options import RunArguments
from checker.commands.suite import at_least_unverified, warn
from checker.comparison import Comparison, compare
from checker.domain import ExitCode, RunResult, Severity
from checker.errors import UsageError
from checker.reporters import comparison_json, comparison_markdown, comparison_text, escape, terminal
from checker.reporters.json_v1 import read_report

TOOL = "quant-verify"


def compare_reports(old: str, new: str, options: Mapping[str, Any]) -> ExitCode:
    """Show what changed from the report ``old`` to the report ``new``; the options are those of the command line.

    Raises:
        UsageError: a file that is no report, or one that holds a cell twice.
    """
    fail_on = Severity(options["fail_on"])
    comparison = compare(_report(old), _report(new), fail_on)
    arguments = RunArguments(annotations=options["annotations"])
    code = comparison.exit_code
    try:
        _print(comparison, options["format"])
    except OSError as error:  # the reader went away, or what stdout goes to is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            warn(f"cannot write the comparison to stdout: {error.strerror}")
            code = at_least_unverified(code)
    target = os.environ.get("GITHUB_STEP_SUMMARY")
    if target and arguments.annotate():
        try:
            with open(target, "a", encoding="utf-8") as file:  # noqa: PTH123 - appending, as the runner asks
                file.write(comparison_markdown.render(comparison))
        except OSError as error:
            warn(f"cannot write the step summary to {target}: {error.strerror}")
            code = at_least_unverified(code)
    return code


def _report(path: str) -> RunResult:
    """The run of a report, with the version of quant-verify that wrote it among its packages.

    A newer version may judge otherwise; in the report it stands beside the environment, where the reader leaves it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"cannot read the report {path}: {reason}") from None
    run = read_report(text, path)
    packages = {TOOL: str(json.loads(text)["tool"]["version"]), **run.environment.packages}
    return replace(run, environment=replace(run.environment, packages=packages))


def _print(comparison: Comparison, form: str) -> None:
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False)
    if form == "json":
        text = comparison_json.render(comparison)
        sys.stdout.write(text.replace("##[", "##\\u005b"))  # the runner obeys it anywhere in a line
    elif form == "markdown":
        sys.stdout.write(terminal.encodable(console, escape.log(comparison_markdown.render(comparison))))
    else:
        comparison_text.render(comparison, console)
    sys.stdout.flush()
