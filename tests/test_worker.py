"""The child process from within: what becomes of what checks and probes raise."""

from __future__ import annotations

import errno
import io
import json
import math
from dataclasses import replace

import pytest
from models import VARIANTS, Zoo

from checker import worker
from checker.domain import (
    Cell,
    CheckResult,
    Depth,
    ErrorKind,
    Finding,
    Limit,
    Measurement,
    ModelRef,
    Outcome,
    Prompt,
    Settings,
    Severity,
)
from checker.errors import NotApplicable, Unavailable
from checker.facts import ORDER, ArtifactFacts, OutputFacts
from checker.protocol import Ended, Finished, Job, Known, Started, parse_event
from checker.registry import Check, Need, all_checks


def job(folder, *checks, baseline=None, **settings) -> Job:
    settings = {"depth": Depth.STATIC} | settings
    cell = Cell(id="a/b", checkpoint=ModelRef(kind="folder", name=str(folder)), settings=Settings(**settings))
    return Job(
        cell=cell,
        checks=checks,
        baseline=str(baseline) if baseline else None,
        checkpoint=str(folder),
        scratch="/nowhere",
    )


def check_of(function, *needs: Need) -> Check:
    return replace(all_checks()[0], id="x.y", function=function, limits={}, needs=needs, guards_load=False)


def result_of(function, *needs: Need, subject=None) -> Finished:
    class Stub:
        detail = "the load's traceback"
        job = job("/m")
        method = None

        def get(self, kind):
            raise AssertionError(kind)

    return worker.run_check(check_of(function, *needs), subject or Stub())


def raises(error: BaseException):
    def check():
        yield Finding(message="seen before", severity=Severity.WARN)
        raise error

    return check


def test_a_check_that_yields_nothing_has_passed():
    assert result_of(lambda: iter(())).result.outcome is Outcome.PASS


def test_findings_and_measurements_are_told_apart():
    said = result_of(lambda: iter((Finding(message="bad"), Measurement(key="k", value=1))))
    assert said.result.outcome is Outcome.FAIL
    assert said.measurements == {"k": 1}


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (Unavailable("no network", ErrorKind.NETWORK), ErrorKind.NETWORK, "no network"),
        (MemoryError(), ErrorKind.OUT_OF_MEMORY, "out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), ErrorKind.OUT_OF_MEMORY, "use a larger device"),
        (type("OutOfMemoryError", (RuntimeError,), {})("x"), ErrorKind.OUT_OF_MEMORY, "depth static"),
        (ImportError("No module named 'x'"), ErrorKind.NOT_RUN, "pip install 'quant-verify[torch]'"),
        (OSError(errno.ENOSPC, "No space left on device"), ErrorKind.NOT_RUN, "free some space"),
        (FileNotFoundError(2, "No such file", "/m/x"), ErrorKind.NOT_RUN, "vanished"),
        (AssertionError(), ErrorKind.INTERNAL, "AssertionError"),
        (KeyError("one\ntwo"), ErrorKind.INTERNAL, "--verbose shows where"),
        (ValueError("x" * 10_000 + "\ny"), ErrorKind.INTERNAL, "ValueError: xxx"),
        (RecursionError("deep"), ErrorKind.INTERNAL, "deep"),
    ],
)
def test_what_a_check_raises_is_one_sentence(error, kind, says):
    result = result_of(raises(error)).result
    assert result.outcome is Outcome.ERROR
    assert result.error.kind is kind
    assert says in result.error.message
    assert "\n" not in result.error.message
    assert len(result.error.message) < 600
    assert "Traceback" not in result.error.message
    assert result.error.detail


def test_the_end_of_the_process_is_not_held_up():
    with pytest.raises(KeyboardInterrupt):
        result_of(raises(KeyboardInterrupt()))


def test_not_applicable_is_a_skip_unless_something_was_found():
    def nothing():
        raise NotApplicable("no baseline")
        yield

    assert result_of(nothing).result.skip_reason == "no baseline"
    assert result_of(raises(NotApplicable("late"))).result.outcome is Outcome.WARN


def test_the_worst_findings_come_first_and_the_rest_is_counted():
    def check():
        yield from (Finding(message=f"warn {n}", severity=Severity.WARN) for n in range(worker.MOST_FINDINGS))
        yield Finding(message="fail")

    findings = result_of(check).result.findings
    assert len(findings) == worker.MOST_FINDINGS + 1
    assert findings[0].message == "fail"
    assert findings[-1].message == "and 1 more like these"


@pytest.mark.parametrize(
    "event",
    [
        Finished(result=CheckResult(id="x.y", findings=(Finding(message="\ud800"),))),
        Finished(result=CheckResult(id="x.y"), measurements={"k": object()}),
    ],
    ids=["a lone surrogate", "a foreign type"],
)
def test_a_result_that_cannot_be_sent_costs_one_check(event):
    pipe = io.BytesIO()
    worker._send(pipe, event)
    said = parse_event(pipe.getvalue())
    assert said.result.id == "x.y"
    assert said.result.error.kind is ErrorKind.INTERNAL
    assert "cannot be sent" in said.result.error.message


def test_numbers_that_json_lacks_do_not_end_the_worker():
    pipe = io.BytesIO()
    worker._send(pipe, Finished(result=CheckResult(id="x", findings=(Finding(message="m", observed=math.inf),))))
    assert isinstance(parse_event(pipe.getvalue()), Finished)


def judged(given: Job) -> list[object]:
    events: list[object] = []
    worker.judge(given, events.append)
    return events


def results(events: list[object]) -> dict[str, CheckResult]:
    return {event.result.id: event.result for event in events if isinstance(event, Finished)}


def test_checks_are_announced_answered_and_ended(zoo: Zoo):
    events = judged(job(zoo.quantized("llama", "nf4"), "weights.scales", "config.present"))
    kinds = [type(event) for event in events if type(event) in (Started, Finished, Known, Ended)]
    assert kinds == [Started, Finished, Known, Started, Finished, Ended]
    assert [event.check for event in events if isinstance(event, Started)] == ["config.present", "weights.scales"]
    assert next(event for event in events if isinstance(event, Known)).method == "bitsandbytes-4bit"


def test_a_job_without_checks_ends(zoo: Zoo):
    assert judged(job(zoo.baseline("llama"))) == [Ended()]


def test_limits_of_the_cell_reach_the_check(zoo: Zoo):
    limits = {"weights.error.R": Limit(fail=0.001)}
    given = job(zoo.quantized("llama", "nf4"), "weights.error", baseline=zoo.baseline("llama"), limits=limits)
    assert results(judged(given))["weights.error"].outcome is Outcome.FAIL


def test_what_a_guard_refuses_is_not_loaded(zoo: Zoo, monkeypatch):
    """Guards are judged although nobody selected them."""
    guard = next(item for item in all_checks() if item.guards_load)

    def fails(facts):
        yield Finding(message="hostile")

    table = [
        replace(item, function=fails, limits={}, needs=(Need(ArtifactFacts),)) if item is guard else item
        for item in all_checks()
    ]
    monkeypatch.setattr(worker, "all_checks", lambda: tuple(table))
    found = results(judged(job(zoo.quantized("llama", "nf4"), "loading.keys", depth=Depth.LOAD)))["loading.keys"]
    assert found.error.kind is ErrorKind.NOT_RUN
    assert found.error.message.startswith(f"not loaded: {guard.id} fails")


def full(folder, **settings) -> dict[str, CheckResult]:
    checks = tuple(item.id for item in all_checks() if item.depth is not Depth.STATIC)
    return results(judged(job(folder, *checks, depth=Depth.FULL, device="cpu", **settings)))


def test_prompts_without_a_tokenizer_are_not_verified(zoo: Zoo, tmp_path):
    prompts = (Prompt(text="The capital of France is", accept={"*": ("Paris",)}),)
    given = job(zoo.quantized("llama", "int8"), "outputs.known-good", depth=Depth.FULL, device="cpu", prompts=prompts)
    found = results(judged(given))["outputs.known-good"]
    assert found.outcome is Outcome.ERROR
    assert "there is no tokenizer in the checkpoint" in found.error.message


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError("cannot allocate"), ErrorKind.OUT_OF_MEMORY),
        (ImportError("Using bitsandbytes requires: pip install bitsandbytes"), ErrorKind.NOT_RUN),
        (OSError(errno.ENOSPC, "No space left on device"), ErrorKind.NOT_RUN),
    ],
)
def test_a_load_that_the_machine_cannot_do_is_no_verdict_on_the_model(zoo: Zoo, monkeypatch, error, kind):
    import transformers

    def from_pretrained(*_args, **_options):
        raise error

    monkeypatch.setattr(transformers.LlamaForCausalLM, "from_pretrained", from_pretrained)
    found = full(zoo.quantized("llama", "nf4"))
    assert {result.outcome for result in found.values()} <= {Outcome.ERROR, Outcome.SKIP}
    assert found["loading.keys"].error.kind is kind


def test_a_model_out_of_memory_in_its_forward_is_no_verdict(zoo: Zoo, monkeypatch):
    import transformers

    def forward(*_args, **_options):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:1] data. DefaultCPUAllocator: out of memory")

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", forward)
    found = full(zoo.quantized("llama", "int8"))
    assert found["outputs.finite"].error.kind is ErrorKind.OUT_OF_MEMORY
    assert found["loading.keys"].outcome is Outcome.PASS


def test_a_baseline_that_cannot_be_quantized_is_tried_once(zoo: Zoo, monkeypatch, tmp_path):
    from checker.probes import quantize

    tried = []

    def load_model(*_args, **_options):
        tried.append(1)
        raise Unavailable("no memory", ErrorKind.OUT_OF_MEMORY)

    monkeypatch.setattr(quantize, "load_model", load_model)
    baseline = zoo.baseline("llama")
    cell = Cell(
        id="a/b", baseline=ModelRef(kind="folder", name=str(baseline)), quantization=VARIANTS["nf4"],
        settings=Settings(device="cpu"),
    )  # fmt: skip
    checks = tuple(item.id for item in all_checks())
    found = results(
        judged(Job(cell=cell, checks=checks, baseline=str(baseline), checkpoint=None, scratch=str(tmp_path)))
    )
    assert {result.outcome for result in found.values()} == {Outcome.ERROR}
    assert tried == [1]


def test_the_forward_is_what_outputs_need():
    assert OutputFacts in ORDER


def test_events_are_one_line_each():
    pipe = io.BytesIO()
    worker._send(pipe, Finished(result=CheckResult(id="x", findings=(Finding(message="m", where="a\nb"),))))
    assert pipe.getvalue().count(b"\n") == 1
    assert json.loads(pipe.getvalue())["result"]["findings"][0]["where"] == "a\nb"
