"""The comment on a pull request when GitHub, the report, the event or a name in them is not what it should be."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Done, quant_verify
from comment_job import ASIDE, COMMENTS, FAILED, FINE, PULL, Job, head, pull_request, report, workflow_run
from comment_server import REPOSITORY, TOKEN, Fault, GitHub

from checker.domain import CheckResult, Finding
from checker.reporters import json_v1

HOSTILE = "x`y\n::error::pwned ##[error]pwned <!-- quant-verify:comment --> @team/all https://evil.example \x1b[31m|"


@pytest.fixture
def job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Job]:
    with GitHub().running() as github:
        yield Job(tmp_path, github, capsys)


MAY_NOT = (
    "the token may not write comments here (HTTP 403: Resource not accessible by integration), as on pull requests"
)
ANSWERS: dict[str, tuple[list[Fault], str]] = {
    "403": ([Fault("POST", "comments", 403, body=b'{"message": "Resource not accessible by integration"}')], MAY_NOT),
    "403 on reading": ([Fault("GET", "comments", 403)], "may not write comments here (HTTP 403: no)"),
    "404": ([Fault("GET", "comments", 404, body=b"")], "may not write comments here (HTTP 404)"),
    "401": ([Fault("GET", "comments", 401)], "GitHub refuses (HTTP 401: no)"),
    "422": ([Fault("POST", "comments", 422, body=b'{"message": "body is too long"}')], "(HTTP 422: body is too long)"),
    "500": ([Fault("GET", "comments", 500)], "GitHub refuses (HTTP 500: no)"),
    "500 on writing": ([Fault("POST", "comments", 502, body=b"<html>")], "GitHub refuses (HTTP 502)"),
    "rate limit": ([Fault("POST", "comments", 429)], "GitHub's rate limit is reached (HTTP 429: no)"),
    "secondary limit": ([Fault("POST", "comments", 403, {"Retry-After": "60"})], "rate limit is reached (HTTP 403"),
    "primary limit": ([Fault("GET", "comments", 403, {"X-RateLimit-Remaining": "0"})], "rate limit is reached"),
    "connection cut": ([Fault("GET", "comments", cut=True)], "GitHub cannot be reached ("),
    "cut while writing": ([Fault("POST", "comments", cut=True)], "GitHub cannot be reached ("),
    "no JSON": ([Fault("GET", "comments", body=b"<html>")], "GitHub's answer is no JSON"),
    "deep JSON": ([Fault("GET", "comments", body=b"[" * 100_000)], "GitHub's answer is no JSON"),
    "no list": ([Fault("GET", "comments", body=b'{"a": 1}')], "GitHub answers with dict where a list is expected"),
    "not modified": ([Fault("GET", "comments", 304, body=b"")], "GitHub refuses (HTTP 304)"),
    "a loop": ([Fault("GET", "comments", 301, {"Location": "?again"})], "GitHub refuses (HTTP 301: no)"),
    "nowhere": ([Fault("GET", "comments", 301, {"Location": "//["})], "an address that is none"),
    "endless pages": (
        [Fault("GET", "comments", body=b"[]", headers={"Link": '<?page=2>; rel="next"'})],
        "GitHub has more than 100 pages of comments",
    ),
    "a command": (
        [Fault("GET", "comments", 401, body=b'{"message": "a\\n::error::x ##[error]y \\u001b[31m %0A"}')],
        r"GitHub refuses (HTTP 401: a\n::error::x ##\[error]y \x1b[31m %250A)",
    ),
    "our token": ([Fault("GET", "comments", 401, body=json.dumps({"message": f"bad {TOKEN}"}).encode())], "bad ***"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_whatever_github_answers_the_run_goes_on(job: Job, name: str):
    faults, expected = ANSWERS[name]
    job.github.faults = faults
    said = job.comment(run=report(FAILED))
    assert said.startswith("::warning title=quant-verify::no comment on the pull request: ")
    assert expected in said
    assert "##[" not in said
    if "may not" in said:
        assert "permissions: pull-requests: write" in said
        assert "two workflows" in said


def test_without_annotations_the_warning_is_a_plain_line(job: Job):
    job.github.faults = [Fault("POST", "comments", 403)]
    said = job.comment(run=report(FAILED), annotations="never")
    assert said.startswith("quant-verify: warning: no comment on the pull request: the token may not write")


def test_on_a_fork_it_is_to_be_expected_and_no_warning(job: Job):
    job.event(pull_request=pull_request(head="mallory/models"))
    job.github.faults = [Fault("POST", "comments", 403)]
    said = job.comment(run=report(FAILED))
    assert said.startswith("quant-verify: no comment: the token may not write comments here (HTTP 403: no)")
    job.github.faults = [Fault("POST", "comments", 500)]
    assert job.comment(run=report(FAILED)).startswith("::warning")


@pytest.mark.parametrize(("method", "times", "works"), [("GET", 1, True), ("GET", 2, False), ("POST", 1, False)])
@pytest.mark.parametrize("fault", [{"status": 503}, {"cut": True}], ids=["503", "cut"])
def test_only_what_may_be_asked_twice_is(job: Job, method: str, times: int, fault: dict[str, Any], *, works: bool):
    job.github.faults = [Fault(method, "comments", times=times, **fault)]
    said = job.comment(run=report(FAILED))
    assert said.endswith("written") is works
    assert len(job.bodies()) == works


def test_a_refusal_is_not_asked_again(job: Job):
    job.github.faults = [Fault("GET", "comments", 403)]
    job.comment(run=report(FAILED))
    assert len(job.github.log) == 1


@pytest.mark.parametrize("fault", [{"wait": 5.0}, {"drip": 0.2, "body": b" " * 100}], ids=["late", "slow"])
def test_a_slow_server_is_not_waited_for(job: Job, fault: dict[str, Any]):
    job.seconds = 0.6
    job.github.faults = [Fault("GET", "comments", **fault)]
    start = time.monotonic()
    said = job.comment(run=report(FAILED))
    assert time.monotonic() - start < 3
    assert "did not answer within" in said or "cannot be reached (timed out)" in said


def test_nobody_answers(job: Job):
    job.environment["GITHUB_API_URL"] = "http://127.0.0.1:1"
    job.seconds = 0.5
    assert "GitHub cannot be reached (Connection refused)" in job.comment(run=report(FAILED))


@pytest.fixture
def elsewhere() -> Iterator[GitHub]:
    with GitHub().running() as running:
        yield running


def lures(address: str) -> list[Fault]:
    """Answers that would send a careless client on to another host."""
    moved = [Fault(method, "comments", status, {"Location": address}, body=b"")
             for method in ("GET", "POST") for status in (301, 302, 303, 307, 308)]  # fmt: skip
    return [*moved, Fault("GET", "comments", body=b"[]", headers={"Link": f'<{address}>; rel="next"'})]


@pytest.mark.parametrize("number", range(len(lures(""))))
def test_the_token_goes_to_no_other_host(job: Job, elsewhere: GitHub, number: int):
    job.github.faults = [lures(f"{elsewhere.url}{COMMENTS}")[number]]
    said = job.comment(run=report(FAILED))
    assert said.startswith("::warning")
    assert elsewhere.log == []
    assert not job.github.comments


def test_a_redirect_to_the_same_host_is_followed_with_its_method(job: Job):
    for method in ("GET", "POST"):
        moved = {"Location": f"{COMMENTS}?moved=1"}
        job.github.faults.append(Fault(method, f"{PULL}/comments", 307, moved, body=b"", times=1))
    assert job.comment(run=report(FAILED)).endswith("written")
    assert [(asked.method, "moved" in asked.query) for asked in job.github.log[:4]] == [
        ("GET", False), ("GET", True), ("POST", False), ("POST", True),
    ]  # fmt: skip
    assert len(job.bodies()) == 1


@pytest.mark.parametrize(
    "address",
    [
        "http://api.github.com", "http://127.0.0.1.evil.example", "http://localhost.evil.example", "ftp://127.0.0.1",
        "file:///etc/passwd", "https://", "api.github.com", "https://user:word@api.github.com", "https://x.y/?q=1",
        "https://x.y/#f", "http://[::1", "https://x.y:99999", "https://x.y\n", "https://x y", "https://é.example",
        "http://10.0.0.1",
    ],
)  # fmt: skip
def test_an_address_that_gets_no_token(job: Job, address: str):
    job.environment["GITHUB_API_URL"] = address
    said = job.comment(run=report(FAILED))
    assert "::warning title=quant-verify::no comment on the pull request: GITHUB_API_URL is no https address" in said


@pytest.mark.parametrize("token", ["", "aa bb", "a\nX-Evil: 1", "tök", "\x7f"])
def test_a_token_that_is_none(job: Job, token: str):
    job.environment["GITHUB_TOKEN"] = token
    said = job.comment(run=report(FAILED))
    assert said.startswith("::warning title=quant-verify::no comment on the pull request: GITHUB_TOKEN is n")
    assert not token or token not in said.removeprefix("::warning title=quant-verify::no comment on the pull request: ")
    assert not job.github.log


def test_an_enterprise_server_is_asked_under_its_own_paths(job: Job):
    job.environment["GITHUB_API_URL"] = f"{job.github.url}/api/v3/"
    job.environment["GITHUB_SERVER_URL"] = "https://github.example.com:8443"
    job.comment(run=report(FAILED))
    job.comment(run=report(FINE))
    paths = {asked.path for asked in job.github.log}
    assert paths == {f"/api/v3{COMMENTS}", "/api/graphql", f"/api/v3{ASIDE}/1001"}
    assert f"(https://github.example.com:8443/{REPOSITORY}/actions/runs/42)" in job.bodies()[0]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GITHUB_SERVER_URL", "javascript:alert(1)//"),
        ("GITHUB_SERVER_URL", "https://a.b) [c](https://evil.example"),
        ("GITHUB_RUN_ID", "42) [c](https://evil.example"),
        ("GITHUB_RUN_ID", ""),
    ],
)
def test_a_link_is_left_out_when_it_would_be_none(job: Job, variable: str, value: str):
    job.environment[variable] = value
    job.comment(run=report(FAILED))
    assert "evil" not in job.bodies()[0]
    assert "javascript" not in job.bodies()[0]
    assert "/actions/runs/" not in job.bodies()[0]


@pytest.mark.parametrize("repository", ["a/b/c", "../x", "a", "a/b?x", "a/b#", "a/b\n", "a/é", "a/..", "a/."])
def test_a_repository_that_is_none(job: Job, repository: str):
    job.environment["GITHUB_REPOSITORY"] = repository
    assert job.comment(run=report(FAILED)).endswith("this is no workflow of a pull request")
    assert not job.github.log


def _deep(folder: Path) -> None:
    text = json_v1.render(report(FAILED))
    (folder / "report.json").write_text(
        text.replace('"measurements": {}', f'"measurements": {{"a": {"[" * 700}{"]" * 700}}}')
    )


def _sparse(folder: Path) -> None:
    with (folder / "report.json").open("wb") as file:
        file.truncate((256 << 20) + 1)


BAD_REPORTS: dict[str, Callable[[Path], Any]] = {
    "absent": lambda folder: (folder / "report.json").unlink(missing_ok=True),
    "empty": lambda folder: (folder / "report.json").write_text(""),
    "not UTF-8": lambda folder: (folder / "report.json").write_bytes(b"\xff\xfe{}"),
    "another schema": lambda folder: (folder / "report.json").write_text('{"schema": "::error::x/1"}'),
    "a lie": lambda folder: (folder / "report.json").write_text(
        json_v1.render(report(FAILED)).replace('"exit_code": 1', '"exit_code": 0')
    ),
    "deep": _deep,
    "a key of very many twice": lambda folder: (folder / "report.json").write_text(
        "{" + "".join(f'"k{number}": 0, ' for number in range(200_000)) + '"k0": 1}'
    ),
    "huge": _sparse,
    "a folder": lambda folder: (folder / "report.json").mkdir(),
    "a pipe": lambda folder: os.mkfifo(folder / "report.json"),
    "a device": lambda folder: (folder / "report.json").symlink_to("/dev/zero"),
}


SAID_OF = {
    "absent": "No such file",
    "empty": "not JSON",
    "a lie": "exit_code: contradicts the rest of the report",
    "a key of very many twice": "key 'k0' stands twice",
    "huge": "is larger than 256 MiB",
    "a pipe": "is no file",
    "a device": "is no file",
}


@pytest.mark.parametrize("name", BAD_REPORTS)
def test_a_report_that_is_none(job: Job, name: str):
    BAD_REPORTS[name](job.folder)
    said = job.comment()
    assert SAID_OF.get(name, "") in said
    assert said.startswith("::warning title=quant-verify::no comment on the pull request: ")
    assert "report.json" in said
    assert "::error::x" not in said.replace(r"\::error::x", "").replace("'::error::x/1'", "")
    assert not job.github.written()


@pytest.mark.parametrize("content", [None, b"", b"[]", b"\xff", b"[" * 100_000, b'"x"'])
def test_an_event_that_is_none(job: Job, content: bytes | None):
    path = job.folder / "event.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert "the event file" in job.comment(run=report(FAILED))


def test_hostile_names_are_shown_and_do_nothing(job: Job):
    bad = CheckResult(id=HOSTILE, findings=(Finding(message=HOSTILE.replace("\n", " "), where=HOSTILE, hint=HOSTILE),))
    job.comment(run=report(bad, name=HOSTILE, matrix=HOSTILE))
    [body] = job.bodies()
    outside = [part for line in body.splitlines()[1:] for part in line.split("``")[::2]]
    assert not any("evil" in part or "@team" in part or "<!--" in part for part in outside)
    assert "::error::pwned" not in [line.strip() for line in body.splitlines()]


def test_half_of_a_surrogate_pair_survives(job: Job):
    job.comment(run=report(FAILED, name="a\ud800b", matrix="\udfff"))
    assert job.comment(run=report(FINE, name="a\ud800b", matrix="\udfff")).endswith("updated")


@pytest.fixture
def command(job: Job) -> Callable[..., Done]:
    def call(*arguments: str, **extra: str) -> Done:
        folder = {"QUANT_VERIFY_REPORT_DIR": str(job.folder)}
        return quant_verify("comment", *arguments, cwd=job.folder, **(job.environment | folder | extra))

    return call


def test_the_command_takes_everything_from_the_environment(job: Job, command: Callable[..., Done]):
    job.report(report(FAILED))
    done = command(QUANT_VERIFY_COMMENT="always", QUANT_VERIFY_COMMENT_KEY="nightly")
    assert (done.code, done.out) == (0, "")
    assert done.err == f"quant-verify: comment on pull request #{PULL} written\n"
    assert "`nightly`" in job.bodies()[0]


@pytest.mark.parametrize("value", ["", "never"])
def test_unless_asked_the_command_does_nothing(job: Job, command: Callable[..., Done], value: str):
    job.report(report(FAILED))
    assert command(QUANT_VERIFY_COMMENT=value) == Done(code=0, out="", err="")
    assert not job.github.log


def test_a_mode_that_is_none_is_wrong_usage(command: Callable[..., Done]):
    done = command(QUANT_VERIFY_COMMENT="sometimes")
    assert done.code == 2
    assert "'sometimes' is not one of 'never', 'changes', 'failures', 'always'" in done.err


def test_a_refusal_is_one_line_and_no_failure(job: Job, command: Callable[..., Done]):
    job.report(report(FAILED))
    job.github.faults = [Fault("POST", "comments", 403, body=json.dumps({"message": f"::error::{TOKEN}"}).encode())]
    done = command(QUANT_VERIFY_COMMENT="always")
    assert (done.code, done.err) == (0, "")
    assert len(done.out.splitlines()) == 1
    assert done.out.startswith("::warning title=quant-verify::")
    assert TOKEN not in done.out


def test_a_merged_report_of_a_fork_becomes_a_comment(job: Job, command: Callable[..., Done]):
    """The second workflow for forks, from the artifact on."""
    (job.folder / "artifact").mkdir()
    (job.folder / "artifact/report.json").write_text(json_v1.render(report(FAILED, name=HOSTILE)))
    job.event(workflow_run=workflow_run())
    job.github.pulls = [head(PULL)]
    merged = quant_verify("merge", "artifact/report.json", "--report-dir", "out", "--annotations", "never",
                          cwd=job.folder, GITHUB_ACTIONS="true")  # fmt: skip
    assert (merged.code, merged.commands) == (1, [])
    done = command(QUANT_VERIFY_COMMENT="always", QUANT_VERIFY_REPORT_DIR=str(job.folder / "out"))
    assert done.err.endswith(f"#{PULL} written\n")
    assert job.bodies()[0].count("quant-verify: failed") == 1


def test_nobody_is_told_of_the_command():
    done = quant_verify("--help", cwd=Path(__file__).parent)
    assert done.code == 0
    assert "comment" not in done.out
