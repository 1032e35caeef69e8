"""Making references of tiny models, and what the checks of weights read from a recorded one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from models import STATIC, Damaged, Judged, Zoo, damage, judge_files

from checker.checkpoint import open_checkpoint
from checker.domain import Cell, Depth, ModelRef, Outcome, Settings
from checker.protocol import Finished, Job
from checker.reference import ROW_LENGTHS, read_reference
from checker.reference.recorded import open_recorded
from checker.worker import judge


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5"])
def test_a_reference_holds_what_the_checks_need(zoo: Zoo, name: str):
    full, recorded = (read_reference(zoo.reference(name, full=full)) for full in (True, False))
    assert (full.recorded, recorded.recorded) == (False, True)
    assert len(full.rows) == len(ROW_LENGTHS)
    for one, other in zip(full.rows, recorded.rows, strict=True):
        assert one.tokens == other.tokens
        logs = one.log_probabilities
        np.testing.assert_allclose(np.exp(logs).sum(axis=1), 1, rtol=1e-4)
        np.testing.assert_array_equal(one.most_likely, logs.argmax(axis=1))
        np.testing.assert_array_equal(one.true_log_probabilities, logs[np.arange(one.positions), one.tokens[1:]])
        kept = np.take_along_axis(logs, other.likely, axis=1)
        np.testing.assert_allclose(kept, other.log_probabilities, atol=1e-6)
        assert 0 < other.noise.mean() <= one.noise.mean() * 1.01
    for reference in (full, recorded):
        noise = np.concatenate([row.noise for row in reference.rows]).mean()
        floor = np.concatenate([row.self_noise for row in reference.rows]).mean()
        assert 0 < floor < noise / 4
    assert full.summary.parameters > 10_000
    assert full.hidden


def test_sampled_rows_are_those_of_the_file(zoo: Zoo):
    reference = read_reference(zoo.reference("llama", full=False))
    recorded = open_recorded(reference)
    with open_checkpoint(zoo.baseline("llama")) as baseline:
        assert recorded.config == baseline.config
        assert {name: header.shape for name, header in recorded.tensors.items()} == {
            name: header.shape for name, header in baseline.tensors.items()
        }
        for sample in reference.summary.samples:
            rows = slice(sample.first, sample.first + sample.rows)
            ours = recorded.part(sample.name, rows.start, rows.stop)
            np.testing.assert_array_equal(ours, baseline.part(sample.name, rows.start, rows.stop))
            norm = np.linalg.norm(baseline.float32(sample.name))
            assert reference.summary.norms[sample.name] == pytest.approx(norm, rel=1e-5)


def judge_with_recorded(folder: Path, reference: Path) -> Judged:
    """The static checks over a checkpoint whose baseline is known by a recorded reference alone."""
    cell = Cell(
        id="test/cell",
        baseline=ModelRef(kind="hub", name="org/model"),
        checkpoint=ModelRef(kind="folder", name=str(folder)),
        settings=Settings(depth=Depth.STATIC),
    )
    job = Job(
        cell=cell, checks=STATIC, baseline=None, checkpoint=str(folder), scratch="", reference=str(reference)
    )  # fmt: skip
    events: list[object] = []
    judge(job, events.append)
    finished = [event for event in events if isinstance(event, Finished)]
    measurements = {key: value for event in finished for key, value in event.measurements.items()}
    return Judged(results={event.result.id: event.result for event in finished}, measurements=measurements)


@pytest.mark.parametrize("variant", ["nf4", "nf4-double", "fp4", "int8"])
def test_a_healthy_checkpoint_passes_beside_a_recorded_reference(zoo: Zoo, variant: str):
    folder = zoo.quantized("llama", variant)
    judged = judge_with_recorded(folder, zoo.reference("llama", full=False))
    assert judged.ids(Outcome.PASS) | {"layers.tied"} == set(STATIC), judged.text()
    whole = judge_files(folder, zoo.baseline("llama"))
    ours, theirs = ({row["layer"]: row["R"] for row in item.measurements["weights"]} for item in (judged, whole))
    assert ours.keys() == theirs.keys()
    for layer, ratio in ours.items():
        assert ratio == pytest.approx(theirs[layer], rel=0.25), layer
    assert judged.measurements["memory.ratio"] == whole.measurements["memory.ratio"]


def test_a_damaged_layer_is_named_by_a_recorded_reference(zoo: Zoo, tmp_path: Path):
    weight = "model.layers.1.mlp.up_proj.weight"

    def swap(damaged: Damaged) -> None:
        codes = damaged.u8(weight)
        codes[:] = (codes << 4) | (codes >> 4)

    with damage(zoo.quantized("llama", "nf4"), tmp_path / "damaged") as damaged:
        swap(damaged)
    judged = judge_with_recorded(tmp_path / "damaged", zoo.reference("llama", full=False))
    assert judged.ids(Outcome.FAIL) == {"weights.error"}, judged.text()
    assert [item.where for item in judged.results["weights.error"].findings] == [weight.removesuffix(".weight")]
