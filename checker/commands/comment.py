"""``comment``: the report of a run as one comment on its pull request. It never fails a run."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checker.commands.deliver import warn
from checker.commands.options import RunArguments
from checker.commands.reports import report_of
from checker.domain import ErrorKind, ExitCode, RunResult
from checker.errors import NotApplicable, Unavailable, UsageError
from checker.pull_request.api import SECONDS, open_api
from checker.pull_request.event import PullRequest, pull_request_of, read_event
from checker.pull_request.sticky import Mode, Thread, state_of, write
from checker.reporters import comment, escape

_REPOSITORY = re.compile(r"\w[\w.-]*/(?!\.{1,2}$)[\w.-]+", re.ASCII)
_SERVER = re.compile(r"https://[\w.-]+(?::\d{1,5})?", re.ASCII)
_LONGEST = 200  # characters of a key


def comment_on_pull_request(
    options: Mapping[str, Any], environment: Mapping[str, str] = os.environ, seconds: float = SECONDS
) -> ExitCode:
    """Write or update the comment if the mode asks for it, and say in one line what was done or why not."""
    mode = Mode(options["comment"])
    if mode is Mode.NEVER:
        return ExitCode.PASSED
    try:
        warn(_comment(mode, options, environment, seconds))
    except NotApplicable as reason:
        warn(f"no comment: {reason}")
    except _FromFork as error:
        warn(f"no comment: {error}")
    except Unavailable as error:
        arguments = RunArguments(annotations=options["annotations"])
        if arguments.annotate(environment):
            text = escape.command_data(escape.one_line(f"no comment on the pull request: {error}"))
            sys.stdout.write(f"::warning title=quant-verify::{text}\n")
        else:
            warn(f"warning: no comment on the pull request: {error}")
    return ExitCode.PASSED


class _FromFork(Exception):
    """A token that may not write, where that was to be expected and is no reason to warn."""


def _comment(mode: Mode, options: Mapping[str, Any], environment: Mapping[str, str], seconds: float) -> str:
    event = read_event(environment.get("GITHUB_EVENT_PATH"))
    repository = environment.get("GITHUB_REPOSITORY", "")
    if not event or not _REPOSITORY.fullmatch(repository):
        raise NotApplicable("this is no workflow of a pull request")
    if not environment.get("GITHUB_TOKEN"):
        raise Unavailable("GITHUB_TOKEN is not set; give the step 'env: GITHUB_TOKEN: ${{ github.token }}'")
    root = environment.get("GITHUB_API_URL") or "https://api.github.com"
    api = open_api(root, environment["GITHUB_TOKEN"].strip(), seconds)
    request = pull_request_of(event, repository, api)
    run = _report(Path(options["report_dir"]) / "report.json")
    if run.shard is not None and run.shard.partition("/")[2] != "1":
        raise NotApplicable(f"this is shard {run.shard}; the merged report is commented on")
    key = escape.shorten(options["comment_key"] or "", _LONGEST) or run.matrix_path or ""
    now = state_of(run, key, request.run or _this_run(environment))
    text = comment.render(run, _source(key, request, repository, environment))
    try:
        done = write(Thread(api=api, repository=repository, number=request.number), mode, run, now, text)
    except Unavailable as error:
        if request.read_only and error.kind is ErrorKind.GATED:
            raise _FromFork(error) from None
        raise
    return f"comment on pull request #{request.number} {done}"


def _report(path: Path) -> RunResult:
    """The report, which another job may have written.

    Raises:
        Unavailable: there is none, or it cannot be read.
    """
    try:
        return report_of(str(path))[0]
    except UsageError as error:
        raise Unavailable(str(error)) from None


def _this_run(environment: Mapping[str, str]) -> tuple[int, int] | None:
    identity, attempt = environment.get("GITHUB_RUN_ID", ""), environment.get("GITHUB_RUN_ATTEMPT", "")
    if not re.fullmatch(r"[1-9]\d{0,17}", identity, re.ASCII):
        return None
    return int(identity), int(attempt) if re.fullmatch(r"[1-9]\d{0,8}", attempt, re.ASCII) else 1


def _source(key: str, request: PullRequest, repository: str, environment: Mapping[str, str]) -> comment.Source:
    """What the comment links to; anything that does not look as GitHub writes it is left out."""
    server = environment.get("GITHUB_SERVER_URL") or "https://github.com"
    run = request.run or _this_run(environment)
    if not _SERVER.fullmatch(server):
        return comment.Source(label=key, commit=request.commit)
    return comment.Source(
        label=key,
        commit=request.commit,
        commit_url=f"{server}/{repository}/commit/{request.commit}" if request.commit else None,
        run_url=None if run is None else f"{server}/{repository}/actions/runs/{run[0]}",
    )
