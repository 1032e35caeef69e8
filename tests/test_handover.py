"""What the worker of the files leaves for the worker of the model: nothing of it may change on the way."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from decoding import CHECKPOINTS
from models import Zoo, damage

from checker import handover, subject, worker
from checker.domain import Cell, Depth, ModelRef, Settings
from checker.errors import NotApplicable, Unavailable
from checker.facts import ArtifactFacts, ModuleErrorFacts, WeightFacts
from checker.handover import FACTS, ROWS, Handed, hand_over, read_handed, read_rows
from checker.probes.decoded import decode_rows
from checker.protocol import Ended, Job
from checker.reference.identity import tokenizer_digest
from checker.subject import Subject

FIXTURES = sorted(path.parent for path in CHECKPOINTS.glob("*/*/fixture.json"))
SOME = FIXTURES[:: max(1, len(FIXTURES) // 60)]  # of every tool and kind of layout


def job(folder: Path, scratch: Path, stage: str = "files", depth: Depth = Depth.FULL, *checks: str) -> Job:
    cell = Cell(
        id="a/b",
        checkpoint=ModelRef(kind="folder", name=str(folder)),
        settings=Settings(depth=depth, device="cpu"),
    )
    return Job(cell=cell, checks=checks, baseline=None, checkpoint=str(folder), scratch=str(scratch), stage=stage)


def handed_over(folder: Path, scratch: Path, depth: Depth = Depth.FULL) -> tuple[ArtifactFacts, WeightFacts | None]:
    """The facts as they were gathered; what is left of them lies in ``scratch``."""
    with Subject(job=job(folder, scratch, "files", depth)) as found:
        artifact = found.get(ArtifactFacts)
        try:
            weights = found.get(WeightFacts)
        except (NotApplicable, Unavailable):  # a fixture without decoder
            weights = None
        hand_over(found)
    return artifact, weights


def nf4(zoo: Zoo) -> Path:
    return zoo.quantized("llama", "nf4")


@pytest.mark.parametrize("folder", SOME, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_facts_arrive_as_they_were(folder: Path, tmp_path):
    artifact, weights = handed_over(folder, tmp_path)
    handed = read_handed(tmp_path)
    assert handed.artifact == artifact
    assert handed.weights == weights
    assert handed.tokenizer is None, "there is no reference to compare it with"


def test_rows_are_those_that_the_file_gives(zoo: Zoo, tmp_path):
    artifact, _ = handed_over(nf4(zoo), tmp_path)
    rows = read_rows(tmp_path, read_handed(tmp_path).rows)
    assert list(rows) == [weight.weight for weight in artifact.weights]
    with Subject(job=job(nf4(zoo), tmp_path)) as found:
        for weight in artifact.weights:
            numbers, values = decode_rows(found.checkpoint, weight, found.stored_method)
            assert np.array_equal(rows[weight.weight][0], numbers)
            assert np.array_equal(rows[weight.weight][1], values)


def test_whoever_writes_to_rows_writes_to_a_copy(zoo: Zoo, tmp_path):
    handed_over(nf4(zoo), tmp_path)
    handed, before = read_handed(tmp_path).rows, (tmp_path / ROWS).read_bytes()
    next(iter(read_rows(tmp_path, handed).values()))[1][:] = 7.0
    assert (tmp_path / ROWS).read_bytes() == before


def refuse(*_args: object, **_options: object) -> None:
    raise AssertionError("this was handed over")


def test_the_worker_of_the_model_reads_no_weight_again(zoo: Zoo, tmp_path, monkeypatch):
    artifact, weights = handed_over(nf4(zoo), tmp_path)
    monkeypatch.setattr(subject, "gather_artifact", refuse)
    monkeypatch.setattr("checker.probes.weights.gather_weights", refuse)
    with Subject(job=job(nf4(zoo), tmp_path, "model")) as found:
        assert found.get(ArtifactFacts) == artifact
        assert found.get(WeightFacts) == weights


def test_modules_are_compared_with_the_rows_that_were_handed_over(zoo: Zoo, tmp_path, monkeypatch):
    handed_over(nf4(zoo), tmp_path)
    monkeypatch.setattr("checker.probes.module_errors.decode_rows", refuse)
    with Subject(job=job(nf4(zoo), tmp_path, "model")) as found:
        modules = found.get(ModuleErrorFacts)
    assert len(modules.errors) == len(modules.errors) + len(modules.not_compared) == 14
    assert max(fact.error for fact in modules.errors) < 0.01


@pytest.mark.parametrize("lost", [FACTS, "both"])
def test_what_is_not_there_is_gathered_again(zoo: Zoo, tmp_path, lost):
    artifact, weights = handed_over(nf4(zoo), tmp_path)
    (tmp_path / FACTS).unlink()
    if lost == "both":
        (tmp_path / ROWS).unlink()
    with Subject(job=job(nf4(zoo), tmp_path, "model")) as found:
        assert found.get(ArtifactFacts) == artifact
        assert found.get(WeightFacts) == weights
        assert not found.get(ModuleErrorFacts).not_compared


@pytest.mark.parametrize("size", [None, 0, 1000], ids=["gone", "empty", "cut short"])
def test_rows_that_cannot_be_mapped_are_decoded_again(zoo: Zoo, tmp_path, size):
    handed_over(nf4(zoo), tmp_path)
    if size is None:
        (tmp_path / ROWS).unlink()
    else:
        (tmp_path / ROWS).write_bytes((tmp_path / ROWS).read_bytes()[:size])
    with Subject(job=job(nf4(zoo), tmp_path, "model")) as found:
        modules = found.get(ModuleErrorFacts)
    assert len(modules.errors) == 14
    assert not modules.not_compared


def test_a_cell_that_is_not_divided_takes_nothing_that_lies_there(zoo: Zoo, tmp_path):
    (tmp_path / FACTS).write_text('{"artifact": null, "rows": []}')
    with Subject(job=job(nf4(zoo), tmp_path, "whole")) as found:
        assert found.get(ArtifactFacts).stored_method == "bitsandbytes-4bit"


def test_facts_that_are_too_large_are_gathered_again(zoo: Zoo, tmp_path, monkeypatch):
    monkeypatch.setattr(handover, "MOST_JSON", 100)
    handed_over(nf4(zoo), tmp_path)
    assert read_handed(tmp_path) == Handed()
    assert not (tmp_path / ROWS).exists(), "rows without facts are of no use"


def test_as_many_rows_are_handed_over_as_there_is_room_for(zoo: Zoo, tmp_path, monkeypatch):
    monkeypatch.setattr(handover, "MOST_ROWS", 40_000)
    handed_over(nf4(zoo), tmp_path)
    rows = read_handed(tmp_path).rows
    assert 0 < len(rows) < 14
    assert (tmp_path / ROWS).stat().st_size == sum(len(row.numbers) * row.inputs * 4 for row in rows) <= 40_000
    with Subject(job=job(nf4(zoo), tmp_path, "model")) as found:
        assert len(found.get(ModuleErrorFacts).errors) == 14, "the others are decoded while the model runs"


def test_no_row_is_decoded_for_a_model_that_is_not_run(zoo: Zoo, tmp_path):
    handed_over(nf4(zoo), tmp_path, Depth.LOAD)
    assert not (tmp_path / ROWS).exists()
    assert read_rows(tmp_path, read_handed(tmp_path).rows) == {}


def test_a_weight_that_cannot_be_decoded_is_left_out(zoo: Zoo, tmp_path):
    folder = tmp_path / "damaged"
    with damage(nf4(zoo), folder) as broken:
        [absmax] = [name for name in broken.tensors if name.endswith("layers.0.mlp.up_proj.weight.absmax")]
        del broken.tensors[absmax]
    handed_over(folder, tmp_path)
    names = [row.weight for row in read_handed(tmp_path).rows]
    assert len(names) == 13
    assert not [name for name in names if "layers.0.mlp.up_proj" in name]


@pytest.mark.parametrize(
    "strange",
    [
        pytest.param({"architecture": "\ud800"}, id="half of a surrogate pair"),
        pytest.param({"config": {"time_step_limit": [0.0, math.inf]}}, id="infinity in the config"),
        pytest.param({"declared": {"x": math.nan}}, id="what is no number"),
        pytest.param({"declared": {"shape": (8, 8)}}, id="a tuple would come back as a list"),
    ],
)
def test_what_would_not_arrive_as_it_is_stays_away(zoo: Zoo, tmp_path, monkeypatch, strange):
    """The cell goes on, and its other worker looks for itself."""
    gather = subject.gather_artifact
    monkeypatch.setattr(subject, "gather_artifact", lambda *args: replace(gather(*args), **strange))
    events: list[object] = []
    worker.judge(job(nf4(zoo), tmp_path, "files", Depth.FULL, "config.keys"), events.append)
    assert isinstance(events[-1], Ended)
    assert read_handed(tmp_path) == Handed()


@pytest.mark.parametrize("fault", [MemoryError(), AssertionError("ours"), KeyError("x")], ids=repr)
def test_whatever_goes_wrong_with_it_costs_no_verdict(zoo: Zoo, tmp_path, monkeypatch, fault):
    def fail(*_args: object) -> None:
        raise fault

    monkeypatch.setattr(handover, "undecodable", fail)
    events: list[object] = []
    worker.judge(job(nf4(zoo), tmp_path, "files", Depth.FULL, "config.keys"), events.append)
    assert isinstance(events[-1], Ended)
    assert read_handed(tmp_path) == Handed()


def test_without_room_for_the_rows_the_facts_still_arrive(zoo: Zoo, tmp_path, monkeypatch):
    def fail(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(handover, "_write_rows", fail)
    artifact, _ = handed_over(nf4(zoo), tmp_path)
    assert read_handed(tmp_path).artifact == artifact
    assert not (tmp_path / ROWS).exists()


def test_no_row_is_decoded_for_a_model_that_must_not_be_loaded(zoo: Zoo, tmp_path):
    folder = tmp_path / "damaged"
    with damage(nf4(zoo), folder) as broken:
        [absmax] = [name for name in broken.tensors if name.endswith("layers.0.mlp.up_proj.weight.absmax")]
        del broken.tensors[absmax]
    worker.judge(job(folder, tmp_path, "files", Depth.FULL, "config.keys"), lambda _: None)
    handed = read_handed(tmp_path)
    assert handed.artifact is not None
    assert handed.rows == ()


def test_facts_that_cannot_be_read_are_gathered_again(zoo: Zoo, tmp_path):
    (tmp_path / FACTS).write_text('{"artifact": 7}')
    with Subject(job=job(nf4(zoo), tmp_path, "model")) as found:
        assert found.get(ArtifactFacts).stored_method == "bitsandbytes-4bit"


def test_a_scratch_folder_that_cannot_be_written_is_no_error(zoo: Zoo, tmp_path):
    events: list[object] = []
    worker.judge(job(nf4(zoo), tmp_path / "gone", "files", Depth.FULL, "config.keys"), events.append)
    assert isinstance(events[-1], Ended)


def test_the_worker_of_the_files_leaves_the_digest_of_the_tokenizer(zoo: Zoo, tmp_path):
    folder, reference = nf4(zoo), zoo.reference("llama", full=False)
    files = replace(job(folder, tmp_path, "files", Depth.FULL, "config.keys"), reference=str(reference))
    worker.judge(files, lambda _: None)
    assert read_handed(tmp_path).tokenizer == tokenizer_digest(folder)
