"""The comment on a pull request: which pull request, which comment, and when it is written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from comment_job import (
    ASIDE,
    COMMENTS,
    COMMIT,
    FAILED,
    FINE,
    LOST,
    PULL,
    STATES,
    WARNED,
    Job,
    head,
    report,
    workflow_run,
)
from comment_server import PERSON, REPOSITORY, US, Fault, GitHub

from checker.commands import hidden
from checker.domain import CheckResult, ExitCode, Finding, RunResult
from checker.pull_request import sticky
from checker.pull_request.sticky import Mode, State


@pytest.fixture
def job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Job]:
    with GitHub().running() as github:
        yield Job(tmp_path, github, capsys)


def test_the_first_run_writes_and_the_next_ones_update(job: Job):
    assert job.comment(run=report(FAILED)) == f"quant-verify: comment on pull request #{PULL} written"
    assert job.comment(run=report(FINE)) == f"quant-verify: comment on pull request #{PULL} updated"
    [body] = job.bodies()
    assert body.startswith("<!-- quant-verify:comment key=")
    assert "\n## ✅ quant-verify: passed\n" in body
    assert f"[`{COMMIT[:7]}`](https://github.com/{REPOSITORY}/commit/{COMMIT})" in body
    assert f"(https://github.com/{REPOSITORY}/actions/runs/42)" in body
    assert job.github.written() == [("PATCH", f"{ASIDE}/1001"), ("POST", COMMENTS)]


@pytest.mark.parametrize("before", [0, 2, 3, 8])
def test_the_comment_is_found_on_any_page(job: Job, before: int):
    job.github.page = 3
    for _ in range(before):
        job.github.add(PULL, "+1", PERSON)
    job.comment(run=report(FAILED))
    for _ in range(4):
        job.github.add(PULL, "thanks", PERSON)
    job.comment(run=report(FINE))
    assert [body for body in job.bodies() if "quant-verify" in body] == [job.bodies()[before]]
    assert "passed" in job.bodies()[before]


def test_only_as_many_pages_are_read_as_needed(job: Job):
    job.github.page = 2
    job.comment(run=report(FAILED))
    for _ in range(9):
        job.github.add(PULL, "thanks", PERSON)
    job.github.log.clear()
    job.comment(run=report(FINE))
    assert [asked.method for asked in job.github.log] == ["GET", "POST", "PATCH"]  # one page, who am I, the update


def test_two_uses_in_one_pull_request_keep_two_comments(job: Job):
    job.comment(run=report(FAILED, matrix="a.yml"))
    job.comment(run=report(FAILED, matrix="b.yml"))
    job.comment(run=report(FAILED, matrix="b.yml"), comment_key="nightly -->")
    assert len(job.bodies()) == 3
    job.comment(run=report(FINE, matrix="b.yml"))
    assert ["passed" in body for body in job.bodies()] == [False, True, False]
    job.comment(run=report(FINE, matrix="a.yml"))
    job.comment(run=report(FINE, matrix="c.yml"), comment_key="nightly -->")
    assert ["passed" in body for body in job.bodies()] == [True, True, True]
    assert [body.splitlines()[-1].startswith(f"<sub>`{key}") for key, body in
            zip(["a.yml", "b.yml", "nightly -->"], job.bodies(), strict=True)] == [True] * 3  # fmt: skip


def test_of_two_jobs_that_both_add_one_only_the_first_stays(job: Job):
    other = sticky.marker(sticky.state_of(report(FINE), "quant-verify.yml")) + "\nof the other job"
    job.github.before_create = lambda: job.github.add(PULL, other)
    assert job.comment(run=report(FAILED)).endswith("updated")
    [body] = job.bodies()
    assert "failed" in body
    assert [method for method, _ in job.github.written()] == ["PATCH", "DELETE", "POST"]


def test_an_older_run_does_not_write_over_a_newer_one(job: Job):
    job.environment["GITHUB_RUN_ID"] = "100"
    job.comment(run=report(FINE))
    for identity, attempt, written in (("99", "9", False), ("100", "1", True), ("100", "2", True), ("100", "1", False)):
        job.environment |= {"GITHUB_RUN_ID": identity, "GITHUB_RUN_ATTEMPT": attempt}
        before = len(job.github.written())
        said = job.comment(run=report(FAILED))
        assert (len(job.github.written()) > before) is written, (identity, attempt)
        assert said.endswith("updated" if written else "no comment: a newer run has written it already")


MARKER = sticky.marker(sticky.state_of(report(FAILED), "quant-verify.yml"))
NOT_OURS = {
    "somebody else's": (f"{MARKER}\nfooled you", PERSON),
    "of another app": (f"{MARKER}\n", {"login": "evil[bot]", "id": 1, "type": "Bot"}),
    "of a person with the name of our app": (f"{MARKER}\n", {"login": "github-actions", "id": 2, "type": "User"}),
    "of an account that took over our name": (f"{MARKER}\n", {"login": "github-actions[bot]", "id": 3}),
    "of a deleted account": (f"{MARKER}\n", None),
    "a quotation": (f"> {MARKER}\n", US),
    "further down": (f"see\n{MARKER}\n", US),
    "not alone on its line": (f"{MARKER} see\n", US),
    "of another key": (sticky.marker(sticky.state_of(report(FAILED), "other.yml")), US),
    "of another version": (MARKER.replace("comment key", "comment/2 key"), US),
    "without a body": (None, US),
}


@pytest.mark.parametrize("name", NOT_OURS)
def test_what_is_not_ours_is_left_alone(job: Job, name: str):
    body, user = NOT_OURS[name]
    theirs = job.github.add(PULL, body, user)
    assert job.comment(run=report(FAILED)).endswith("written")
    assert job.bodies()[0] == body
    assert job.comment(run=report(FINE)).endswith("updated")
    assert job.bodies()[0] == body
    assert f"{ASIDE}/{theirs['id']}" not in {path for _, path in job.github.written()}
    assert len(job.bodies()) == 2


@pytest.mark.parametrize(
    "account",
    [
        US,
        PERSON,
        {"login": "our-app[bot]", "id": 99, "type": "Bot"},
        {"login": "Octo-Cat", "id": 5, "type": "User"},
    ],
    ids=lambda account: account["login"],
)
@pytest.mark.parametrize("with_number", [True, False])
def test_our_own_comment_is_found_whatever_the_token(job: Job, account: Mapping[str, Any], *, with_number: bool):
    told = {"login": account["login"].lower()} | ({"databaseId": account["id"]} if with_number else {})
    job.github.viewer = account
    job.comment(run=report(FAILED))
    job.github.faults.append(Fault("POST", "/graphql", body=json.dumps({"data": {"viewer": told}}).encode()))
    assert job.comment(run=report(FINE)).endswith("updated")
    assert len(job.bodies()) == 1


def test_a_comment_that_windows_has_touched_is_still_ours(job: Job):
    job.github.add(PULL, f"{MARKER}\r\nold")
    assert job.comment(run=report(FINE)).endswith("updated")


@pytest.mark.parametrize(
    "answer",
    [b'{"data": null, "errors": [{"message": "no"}]}', b"[]", b'{"data": {"viewer": {"login": 1}}}', b"", b"<"],
)
def test_without_knowing_who_we_are_nothing_is_written_beside_it(job: Job, answer: bytes):
    job.comment(run=report(FAILED))
    job.github.faults.append(Fault("POST", "/graphql", body=answer))
    assert "::warning title=quant-verify::no comment on the pull request: GitHub" in job.comment(run=report(FINE))
    assert len(job.bodies()) == 1


def test_a_name_in_the_report_cannot_become_a_marker(job: Job):
    named = report(FAILED, name=f"{MARKER}\n{MARKER}", matrix=f"\n{MARKER}")
    job.comment(run=named)
    [body] = job.bodies()
    assert body.count(MARKER) == body.count(f"`{MARKER}") + body.count(f"n{MARKER}")  # in code, never at a line's start
    assert sticky.read_marker(body) == sticky.state_of(named, f"\n{MARKER}", (42, 1))
    assert [line for line in body.splitlines() if line.startswith("<!--")] == [body.splitlines()[0]]


# what is there × what is new → who writes: c changes, f failures, a always
WRITES = {
    (None, "passed"): "a",
    (None, "warned"): "ca",
    (None, "failed"): "cfa",
    (None, "not verified"): "cfa",
    ("passed", "passed"): "a",
    ("passed", "warned"): "ca",
    ("passed", "failed"): "cfa",
    ("passed", "not verified"): "cfa",
    ("warned", "passed"): "ca",
    ("warned", "warned"): "a",
    ("warned", "failed"): "cfa",
    ("warned", "not verified"): "cfa",
    ("failed", "passed"): "cfa",
    ("failed", "warned"): "cfa",
    ("failed", "failed"): "fa",
    ("failed", "failed elsewhere"): "cfa",
    ("failed", "not verified"): "cfa",
    ("not verified", "passed"): "cfa",
    ("not verified", "warned"): "cfa",
    ("not verified", "failed"): "cfa",
    ("not verified", "not verified"): "fa",
}


@pytest.mark.parametrize("mode", ["never", "changes", "failures", "always"])
@pytest.mark.parametrize(("there", "new"), WRITES, ids=str)
def test_when_it_is_written(job: Job, mode: str, there: str | None, new: str):
    if there is not None:
        job.comment(run=report(STATES[there]))
    before = (len(job.github.log), len(job.github.written()))
    said = job.comment(mode, report(STATES[new]))
    writes = mode[0] in WRITES[there, new]
    assert len(job.github.written()) - before[1] == writes
    assert len(job.bodies()) == (there is not None or writes)
    if mode == "never":
        assert len(job.github.log) == before[0], "nothing is asked either"
    elif not writes:
        assert said.startswith("quant-verify: no comment: ")


def test_the_modes_of_the_command_are_all_there_are():
    assert [mode.value for mode in Mode] == hidden.MODES


def test_a_message_or_a_time_is_no_change(job: Job):
    worded = CheckResult(id=FAILED.id, seconds=9.0, findings=(Finding(message="is 2 times wrong", where="layer.1"),))
    job.comment("changes", report(FAILED))
    assert job.comment("changes", report(worded)).endswith("neither the verdict nor the findings have changed")


@pytest.mark.parametrize(
    "changed",
    [
        report(FAILED, name="m/int8"),
        report(FAILED, FAILED, interrupted=ExitCode.TERMINATED),
        report(FAILED, WARNED),
        report(CheckResult(id="weights.codes", findings=FAILED.findings)),
        report(LOST),
    ],
    ids=["cell", "exit code", "warning", "check", "error"],
)
def test_what_is_a_change(job: Job, changed: RunResult):
    job.comment("changes", report(FAILED))
    assert job.comment("changes", changed).endswith("updated")


@pytest.mark.parametrize(("shard", "written"), [("1/1", True), ("1/3", False), ("3/3", False)])
def test_a_shard_leaves_the_comment_to_merge(job: Job, shard: str, *, written: bool):
    said = job.comment(run=report(FAILED, shard=shard))
    assert bool(job.bodies()) is written
    assert written or said.endswith(f"this is shard {shard}; the merged report is commented on")


NO_PULL_REQUEST: dict[str, dict[str, Any]] = {
    "push": {"ref": "refs/heads/main", "head_commit": {}},
    "schedule": {"schedule": "0 0 * * *"},
    "issue_comment on an issue": {"issue": {"number": 7}},
    "merge_group": {"merge_group": {"head_sha": COMMIT}},
    "no number": {"pull_request": {"number": "7"}},
    "a number that is none": {"pull_request": {"number": True}},
    "workflow_run of a push": {"workflow_run": workflow_run(event="push")},
    "workflow_run of a repository that is gone": {"workflow_run": workflow_run(head_repository=None)},
    "workflow_run without a commit": {"workflow_run": workflow_run(head_sha="main")},
    "workflow_run of what was closed": {"workflow_run": workflow_run()},
}


@pytest.mark.parametrize("name", NO_PULL_REQUEST)
def test_without_a_pull_request_it_is_quiet(job: Job, name: str):
    job.event(**NO_PULL_REQUEST[name])
    assert job.comment(run=report(FAILED)).startswith("quant-verify: no comment: ")
    assert not job.github.written()


@pytest.mark.parametrize("variable", ["GITHUB_EVENT_PATH", "GITHUB_REPOSITORY"])
@pytest.mark.parametrize("value", ["", None])
def test_outside_a_workflow_it_is_quiet(job: Job, variable: str, value: str | None):
    if value is None:
        del job.environment[variable]
    else:
        job.environment[variable] = value
    assert job.comment(run=report(FAILED)) == "quant-verify: no comment: this is no workflow of a pull request"
    assert not job.github.log


def test_a_comment_on_a_pull_request_is_an_event_of_it(job: Job):
    job.event(issue={"number": PULL, "pull_request": {"url": "…"}}, comment={"body": "/verify"})
    assert job.comment(run=report(FAILED)).endswith(f"#{PULL} written")
    assert "commit" not in job.bodies()[0].splitlines()[-1]


@pytest.mark.parametrize(
    ("pulls", "number"),
    [
        ([head(7)], 7),
        ([head(9, sha="f" * 40), head(7)], 7),
        ([head(9, fork="mallory/other"), head(7)], 7),
        ([head(9, base="team/other"), head(7)], 7),
        ([head(7), head(3)], 7),
        ([head(7, sha="f" * 40)], None),
        ([{"number": 7, "label": "mallory:patch/1&state=all", "head": {"sha": COMMIT, "repo": None}}], None),
        ([*(head(number, sha="e" * 40) for number in range(1, 7)), head(7)], 7),
    ],
    ids=["one", "older commit", "other fork", "other base", "the newest", "moved on", "fork gone", "second page"],
)
def test_after_a_run_of_a_fork_the_pull_request_is_found(job: Job, pulls: list[dict[str, Any]], number: int | None):
    job.github.pulls, job.github.page = pulls, 3
    job.event(workflow_run=workflow_run())
    said = job.comment(run=report(FAILED))
    assert (f"#{number} written" in said) is (number is not None)
    assert {key for key, thread in job.github.comments.items() if thread} == ({number} if number else set())
    asked = job.github.log[0]
    assert (asked.path, asked.query["state"]) == (f"/repos/{REPOSITORY}/pulls", ["open"])
    assert asked.query["head"] == ["mallory:patch/1&state=all"]
    if number:
        state = sticky.read_marker(job.bodies(number)[0])
        assert isinstance(state, State)
        assert state.run == (555, 2), "the run that made the report, not the one that comments"
        assert "/actions/runs/555)" in job.bodies(number)[0]
