"""The one comment of ours: how it is known again, and when it is written.

Its first line is an HTML comment, which nobody sees, with a key, the verdict and a digest of the findings. A comment is
ours when that line is its first *and* the token's own account wrote it, so neither a quotation, nor a text in a report,
nor somebody else's comment can take its place.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from checker.domain import CheckResult, ExitCode, Json, Outcome, RunResult
from checker.errors import NotApplicable
from checker.pull_request.api import Api

_MARKER = re.compile(
    r"<!-- quant-verify:comment key=(?P<key>[0-9a-f]{16}) exit=(?P<exit>\d{1,3}) findings=(?P<findings>[0-9a-f]{32})"
    r"(?: run=(?P<run>\d{1,18})\.(?P<attempt>\d{1,9}))? -->",
    re.ASCII,
)


class Mode(StrEnum):
    """When to write; the values of ``QUANT_VERIFY_COMMENT``."""

    NEVER = "never"
    CHANGES = "changes"
    FAILURES = "failures"
    ALWAYS = "always"


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What a comment says, as far as the next one is compared with it."""

    key: str
    exit_code: int
    findings: str
    run: tuple[int, int] | None = None  # id and attempt; of two runs the newer one has the greater pair


@dataclass(frozen=True, kw_only=True, slots=True)
class Thread:
    """The comments of one pull request."""

    api: Api
    repository: str
    number: int

    @property
    def path(self) -> str:
        """Where they are listed and added to."""
        return f"/repos/{self.repository}/issues/{self.number}/comments"

    def one(self, comment: int) -> str:
        """Where one of them is."""
        return f"/repos/{self.repository}/issues/comments/{comment}"


def state_of(run: RunResult, key: str, made_by: tuple[int, int] | None = None) -> State:
    """The state of a report. Two findings are the same when check, place and severity are, as for ``compare``.

    ``key`` is any text; it tells the comments of two uses in one pull request apart.
    """
    facts = [[cell.cell.id, cell.outcome.value, *_findings(cell.checks)] for cell in run.cells]
    return State(
        key=hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:16],
        exit_code=int(run.exit_code),
        findings=hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32],
        run=made_by,
    )


def _findings(checks: Sequence[CheckResult]) -> list[list[str]]:
    found = {
        (check.id, finding.where, finding.severity.value)
        for check in checks
        for finding in check.findings
        if finding.waived is None
    }
    lost = {(check.id, "", check.error.kind.value) for check in checks if check.error is not None}
    return [list(item) for item in sorted(found | lost)]


def marker(state: State) -> str:
    """The first line of a comment; nothing in it is foreign."""
    run = "" if state.run is None else f" run={state.run[0]}.{state.run[1]}"
    return f"<!-- quant-verify:comment key={state.key} exit={state.exit_code} findings={state.findings}{run} -->"


def read_marker(body: Json) -> State | None:
    """The state in the first line of a comment."""
    match = _MARKER.fullmatch(body.partition("\n")[0].rstrip("\r")) if isinstance(body, str) else None
    if match is None:
        return None
    return State(
        key=match["key"],
        exit_code=int(match["exit"]),
        findings=match["findings"],
        run=None if match["run"] is None else (int(match["run"]), int(match["attempt"])),
    )


def quiet(run: RunResult) -> bool:
    """Whether a report has nothing to say: it passed, and without a warning."""
    return run.exit_code is ExitCode.PASSED and all(cell.outcome is not Outcome.WARN for cell in run.cells)


def reason_to_keep_silent(mode: Mode, run: RunResult, now: State, before: State | None) -> str | None:
    """Why nothing is written, or None when it is; ``before`` is what the comment that is there says."""
    if mode is Mode.NEVER:
        return "none is wanted"
    if before is None:
        return _nothing_to_begin_with(mode, run)
    if before.run is not None and now.run is not None and before.run > now.run:
        return "a newer run has written it already"
    if mode is Mode.CHANGES and (before.exit_code, before.findings) == (now.exit_code, now.findings):
        return "neither the verdict nor the findings have changed"
    if mode is Mode.FAILURES and before.exit_code == now.exit_code == ExitCode.PASSED:
        return "it says already that the run has passed"
    return None


def _nothing_to_begin_with(mode: Mode, run: RunResult) -> str | None:
    if mode is Mode.CHANGES and quiet(run):
        return "there is nothing to say"
    if mode is Mode.FAILURES and run.exit_code is ExitCode.PASSED:
        return "the run has passed"
    return None


def write(thread: Thread, mode: Mode, run: RunResult, now: State, text: str) -> str:
    """Write the comment or update it; what was done, for the log.

    Two jobs that find none at the same moment both add one. So whoever has added one looks again, and where there is
    an older one takes its own away.

    Raises:
        NotApplicable: nothing is written; says why.
        Unavailable: it cannot be written.
    """
    body = {"body": f"{marker(now)}\n{text}"}
    found = _ours(thread, now.key)
    before = None if found is None else found[1]
    silence = reason_to_keep_silent(mode, run, now, before)
    if silence is not None:
        raise NotApplicable(silence)
    if found is not None:
        thread.api.send("PATCH", thread.one(found[0]), body)
        return "updated"
    made = thread.api.send("POST", thread.path, body)
    added = made.get("id") if isinstance(made, dict) else None
    first = _ours(thread, now.key)
    if first is None or not isinstance(added, int) or first[0] >= added:
        return "written"
    if reason_to_keep_silent(Mode.ALWAYS, run, now, first[1]) is None:
        thread.api.send("PATCH", thread.one(first[0]), body)
    thread.api.send("DELETE", thread.one(added))
    return "updated"


def _ours(thread: Thread, key: str) -> tuple[int, State] | None:
    """The oldest comment with this key that the token's own account wrote: its id, and what it says."""
    viewer: tuple[str, int | None] | None = None
    for comment in thread.api.pages(thread.path):
        state, number = read_marker(comment.get("body")), comment.get("id")
        if state is None or state.key != key or not isinstance(number, int):
            continue
        viewer = viewer or thread.api.viewer()
        if _wrote(viewer, comment.get("user")):
            return number, state
    return None


def _wrote(viewer: tuple[str, int | None], user: Json) -> bool:
    """By number when both sides give one, else by name; that of an app ends in ``[bot]``, which no person's can."""
    if not isinstance(user, Mapping):
        return False
    login, number = viewer
    if number is not None and isinstance(user.get("id"), int):
        return bool(user["id"] == number)
    return isinstance(user.get("login"), str) and user["login"].casefold() == login.casefold()
