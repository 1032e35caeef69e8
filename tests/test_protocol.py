"""What a worker may say, and what is refused without being quoted."""

from __future__ import annotations

import json

import pytest

from checker.domain import Cell, CheckError, CheckResult, ErrorKind, Finding, Limit, ModelRef, Prompt, Settings
from checker.protocol import EVENT, JOB, Doing, Ended, Finished, Job, Known, Started, parse_event

EVENTS = (
    Started(check="a.b"),
    Finished(
        result=CheckResult(id="a.b", seconds=0.5, findings=(Finding(message="x", where="w", observed=[1, None]),)),
        measurements={"weights": [{"layer": "l", "R": 1.0}]},
    ),
    Finished(result=CheckResult(id="a.b", error=CheckError(kind=ErrorKind.GATED, message="m", detail="d"))),
    Finished(result=CheckResult(id="a.b", skip_reason="because")),
    Known(method="m", device="cuda:0"),
    Doing(what="reading"),
    Ended(),
)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_what_is_sent_arrives(event):
    line = EVENT.dump_json(event)
    assert b"\n" not in line
    assert parse_event(line) == event


def test_a_job_arrives_as_it_was():
    settings = Settings(
        limits={"weights.error.R": Limit(fail=2.0)}, prompts=(Prompt(text="a\nb", accept={"*": ("c",)}),), timeout=3.5
    )
    ref = ModelRef(kind="hub", name="org/model", revision="v1")
    cell = Cell(id="a/b", baseline=ref, quantization={"load_in_4bit": True, "nested": {"x": [1]}}, settings=settings)
    job = Job(cell=cell, checks=("a.b",), baseline="/b", checkpoint=None, scratch="/s", hub_files=("x.bin",))
    assert JOB.validate_json(JOB.dump_json(job)) == job


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"kind": "exec", "what": "::error::x"}',
        b'{"kind": "started"}',
        b'{"kind": "started", "check": 1}',
        b'{"kind": "doing", "what": {"a": "::error::x"}}',
        b'{"kind": "finished", "result": {"id": "a", "findings": [{"message": ""}]}}',
        b'{"kind": "finished", "result": {"id": "a", "findings": [{"message": "two\\nlines"}]}}',
        b'{"kind": "finished", "result": {"id": "a", "findings": [{"message": "x", "severity": "fatal"}]}}',
        b'{"kind": "finished", "result": {"id": "a", "error": {"kind": "::error::x", "message": "m"}}}',
        b'{"kind": "finished", "result": {"id": "a", "seconds": "long"}}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_event_is_refused_and_not_quoted(line):
    with pytest.raises(ValueError, match="a worker said something that is no event") as caught:
        parse_event(line)
    assert "::" not in str(caught.value)


def test_a_finding_with_a_lone_surrogate_is_no_line():
    with pytest.raises(ValueError, match="surrogate"):
        EVENT.dump_json(Doing(what="\ud800"))


def test_an_outcome_cannot_be_claimed():
    said = json.loads(EVENT.dump_json(EVENTS[1]))
    said["result"]["outcome"] = "pass"
    assert parse_event(json.dumps(said).encode()).result.outcome == "fail"
