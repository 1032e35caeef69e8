"""Which pull request a workflow is about, from the file that GitHub writes about its event.

A ``workflow_run`` that follows a pull request from a fork does not name it. It is found by what GitHub itself says of
the run that ended: the head's repository, branch and commit; never by anything that the run left behind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from checker.domain import Json
from checker.errors import NotApplicable, Unavailable
from checker.pull_request.api import Api

_LARGEST = 32 << 20  # bytes of an event file; GitHub's own limit is 25 MB
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


@dataclass(frozen=True, kw_only=True, slots=True)
class PullRequest:
    """A pull request as far as a comment needs it. ``run`` is the (id, attempt) of the run that made the report."""

    number: int
    commit: str | None = None  # the head's
    read_only: bool = False  # whether the event is one whose token may write nothing: a pull request from a fork
    run: tuple[int, int] | None = None


def read_event(path: str | None) -> Mapping[str, Json]:
    """The event, or nothing outside a workflow.

    Raises:
        Unavailable: the file cannot be read or is no event.
    """
    if not path:
        return {}
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LARGEST + 1)
        event = json.loads(data) if len(data) <= _LARGEST else None
    except OSError as error:
        raise Unavailable(f"the event file {path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        raise Unavailable(f"the event file {path} holds no event")
    return event


def pull_request_of(event: Mapping[str, Json], repository: str, api: Api) -> PullRequest:
    """The pull request that an event belongs to.

    Raises:
        NotApplicable: none; says why.
        Unavailable: GitHub does not answer.
    """
    if isinstance(event.get("workflow_run"), dict):
        return _of_run(event["workflow_run"], repository, api)
    if isinstance(event.get("pull_request"), dict):
        return _of_pull_request(event["pull_request"], repository)
    number = _number(event, "issue", "number")
    if number is not None and _table(event, "issue", "pull_request"):
        return PullRequest(number=number)  # which commit the job has checked out is not known here
    raise NotApplicable("this run belongs to no pull request")


def _of_pull_request(found: Mapping[str, Json], repository: str) -> PullRequest:
    number = _number(found, "number")
    if number is None:
        raise NotApplicable("the event names no pull request")
    return PullRequest(
        number=number,
        commit=_commit(_at(found, "head", "sha")),
        read_only=_at(found, "head", "repo", "full_name") != repository,
    )


def _of_run(run: Mapping[str, Json], repository: str, api: Api) -> PullRequest:
    if not str(run.get("event")).startswith("pull_request"):
        raise NotApplicable("the run that ended belongs to no pull request")
    owner, fork = _at(run, "head_repository", "owner", "login"), _at(run, "head_repository", "full_name")
    branch, commit = run.get("head_branch"), _commit(run.get("head_sha"))
    if not (isinstance(owner, str) and isinstance(fork, str) and isinstance(branch, str) and commit):
        raise NotApplicable("the run that ended does not say which branch it was about; its repository may be gone")
    found = [
        number
        for item in api.pages(f"/repos/{repository}/pulls", state="open", head=f"{owner}:{branch}")
        if _at(item, "head", "sha") == commit
        and _at(item, "head", "repo", "full_name") == fork
        and _at(item, "base", "repo", "full_name") == repository
        and (number := _number(item, "number")) is not None
    ]
    if not found:
        raise NotApplicable(f"no open pull request has commit {commit[:12]} as its head, or not any more")
    identity, attempt = _number(run, "id"), _number(run, "run_attempt")
    return PullRequest(
        number=max(found),  # of several with this head, the newest
        commit=commit,
        run=None if identity is None else (identity, attempt or 1),
    )


def _at(value: Json, *keys: str) -> Json:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _table(value: Json, *keys: str) -> bool:
    return isinstance(_at(value, *keys), dict)


def _number(value: Json, *keys: str) -> int | None:
    found = _at(value, *keys)
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None


def _commit(value: Json) -> str | None:
    return value if isinstance(value, str) and _COMMIT.fullmatch(value) else None
