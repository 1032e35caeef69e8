"""``compare``: what changed between the reports of two runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from checker.commands.deliver import Said, deliver
from checker.commands.options import RunArguments
from checker.commands.reports import report_of
from checker.comparison import Comparison, compare
from checker.domain import ExitCode, RunResult, Severity
from checker.reporters import comparison_json, comparison_markdown, comparison_text, escape, terminal

TOOL = "quant-verify"


def compare_reports(old: str, new: str, options: Mapping[str, Any]) -> ExitCode:
    """Show what changed from the report ``old`` to the report ``new``; the options are those of the command line.

    Raises:
        UsageError: a file that is no report, or one that holds a cell twice.
    """
    fail_on = Severity(options["fail_on"])
    comparison = compare(_report(old), _report(new), fail_on)
    arguments = RunArguments(annotations=options["annotations"])
    said = Said(
        "comparison",
        lambda: _print(comparison, options["format"]),
        lambda: comparison_markdown.render(comparison),
    )
    return deliver(comparison.exit_code, said, annotate=arguments.annotate())


def _report(path: str) -> RunResult:
    """The run of a report, with the version of quant-verify that wrote it among its packages.

    A newer version may judge otherwise; in the report it stands beside the environment, where the reader leaves it.
    """
    run, text = report_of(path)
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
