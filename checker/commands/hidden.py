"""Commands that the Action calls and nobody types: registered by ``checker.cli``, absent from its help."""

from __future__ import annotations

import os
from typing import Any

import click

from checker.domain import ExitCode

MODES = ["never", "changes", "failures", "always"]  # of checker.pull_request.sticky.Mode, without its imports


@click.command(hidden=True, short_help="What the inputs of the Action ask for.")
@click.pass_context
def action(context: click.Context) -> ExitCode:
    """Run the command that QUANT_VERIFY_COMMAND names, on what QUANT_VERIFY_CHECKPOINT and its like name."""
    from checker.commands.action import run_action

    group = context.find_root().command
    if not isinstance(group, click.Group):
        raise TypeError(f"action belongs to a group of commands, not to {group.name}")
    return run_action(group, os.environ)


@click.command(hidden=True, short_help="One comment on the pull request, kept up to date.")
@click.option(
    "--comment", envvar="QUANT_VERIFY_COMMENT", type=click.Choice(MODES), default="never", help="When to comment."
)
@click.option(
    "--comment-key", envvar="QUANT_VERIFY_COMMENT_KEY", metavar="KEY", help="Tells two comments apart, as matrices do."
)
@click.option(
    "--report-dir",
    envvar="QUANT_VERIFY_REPORT_DIR",
    default="quant-verify-report",
    metavar="DIR",
    help="Where report.json is.",
)
@click.option(
    "--annotations",
    envvar="QUANT_VERIFY_ANNOTATIONS",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    help="For a comment that cannot be written.",
)
def comment(**options: Any) -> ExitCode:
    """Write the verdict of report.json as a comment on the pull request of this workflow, or update it.

    Exit code 0 whatever becomes of it: the comment is a courtesy, the verdict is the run's.
    """
    from checker.commands.comment import comment_on_pull_request

    return comment_on_pull_request(options)
