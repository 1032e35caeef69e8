"""A step of a workflow that comments: reports to tell of, events, and what the step says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from comment_server import REPOSITORY, TOKEN, GitHub

from checker.commands.comment import comment_on_pull_request
from checker.domain import (
    Cell,
    CellResult,
    CheckError,
    CheckResult,
    Environment,
    ErrorKind,
    ExitCode,
    Finding,
    ModelRef,
    RunResult,
    Severity,
)
from checker.reporters import json_v1

PULL = 7
COMMIT = "0123456789abcdef" * 2 + "01234567"
COMMENTS = f"/repos/{REPOSITORY}/issues/{PULL}/comments"
ASIDE = f"/repos/{REPOSITORY}/issues/comments"
FAILED = CheckResult(id="weights.error", findings=(Finding(message="is wrong", where="layer.1"),))
OTHER = CheckResult(id="weights.error", findings=(Finding(message="is wrong", where="layer.2"),))
WARNED = CheckResult(id="weights.codes", findings=(Finding(message="is odd", severity=Severity.WARN),))
LOST = CheckResult(id="loading.keys", error=CheckError(kind=ErrorKind.CRASH, message="died"))
FINE = CheckResult(id="config.present")
STATES = {"passed": FINE, "warned": WARNED, "failed": FAILED, "failed elsewhere": OTHER, "not verified": LOST}


def report(
    *checks: CheckResult, name: str = "m/nf4", matrix: str | None = "quant-verify.yml", **more: Any
) -> RunResult:
    model = ModelRef(kind="folder", name="m")
    return RunResult(
        environment=Environment(python="3.12"),
        planned=(name,),
        cells=(CellResult(cell=Cell(id=name, checkpoint=model), checks=checks),),
        matrix_path=matrix,
        **more,
    )


def pull_request(number: int = PULL, head: str = REPOSITORY) -> dict[str, Any]:
    repository = {"full_name": REPOSITORY}
    return {"number": number, "head": {"sha": COMMIT, "repo": {"full_name": head}}, "base": {"repo": repository}}


def workflow_run(**changes: Any) -> dict[str, Any]:
    return {
        "id": 555,
        "run_attempt": 2,
        "event": "pull_request",
        "head_branch": "patch/1&state=all",
        "head_sha": COMMIT,
        "head_repository": {"full_name": "mallory/models", "owner": {"login": "mallory"}},
        "pull_requests": [],
    } | changes


def head(number: int, sha: str = COMMIT, fork: str = "mallory/models", base: str = REPOSITORY) -> dict[str, Any]:
    return {
        "label": "mallory:patch/1&state=all",
        "number": number,
        "head": {"sha": sha, "repo": {"full_name": fork}},
        "base": {"repo": {"full_name": base}},
    }


class Job:
    """A step of a workflow: its folder, its event, and what it says."""

    def __init__(self, folder: Path, github: GitHub, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self.github, self.capture = folder, github, capture
        self.environment = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_TOKEN": TOKEN,
            "GITHUB_API_URL": github.url,
            "GITHUB_EVENT_PATH": str(folder / "event.json"),
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_RUN_ID": "42",
            "GITHUB_RUN_ATTEMPT": "1",
        }
        self.event(pull_request=pull_request())
        self.seconds = 20.0

    def event(self, **event: Any) -> None:
        (self.folder / "event.json").write_text(json.dumps(event))

    def report(self, run: RunResult) -> None:
        (self.folder / "report.json").write_text(json_v1.render(run))

    def comment(self, mode: str = "always", run: RunResult | None = None, **options: Any) -> str:
        """The one line that is said; neither it nor anything sent elsewhere may hold the token."""
        if run is not None:
            self.report(run)
        given = {"comment": mode, "comment_key": None, "annotations": "auto", "report_dir": str(self.folder)} | options
        assert comment_on_pull_request(given, self.environment, self.seconds) is ExitCode.PASSED
        out, err = self.capture.readouterr()
        assert TOKEN not in out + err
        said = (out + err).splitlines()
        assert len(said) == (mode != "never"), said
        return said[0] if said else ""

    def bodies(self, pull: int = PULL) -> list[str]:
        return [item["body"] for item in self.github.comments.get(pull, [])]
