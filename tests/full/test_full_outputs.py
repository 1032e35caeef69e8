"""Faults in every layer of tiny models: the distance from the baseline alone tells, within the first positions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import Damaged, Judged, Zoo, damage

from checker.domain import Cell, Depth, ModelRef, Outcome, Settings
from checker.protocol import Finished, Job
from checker.worker import judge


def judge_outputs(
    scratch: Path, checkpoint: Path, baseline: Path | None, reference: Path, *checks: str, weights: str = "auto"
) -> Judged:
    """Some checks at full depth over one checkpoint, in this process."""
    cell = Cell(
        id="test/cell",
        baseline=ModelRef(kind="folder", name=str(baseline)) if baseline else ModelRef(kind="hub", name="org/model"),
        checkpoint=ModelRef(kind="folder", name=str(checkpoint)),
        settings=Settings(depth=Depth.FULL, device="cpu", weights=weights),  # type: ignore[arg-type]
    )
    job = Job(
        cell=cell,
        checks=checks,
        baseline=str(baseline) if baseline else None,
        checkpoint=str(checkpoint),
        scratch=str(scratch),
        reference=str(reference),
    )
    events: list[Any] = []
    judge(job, events.append)
    finished = [event for event in events if isinstance(event, Finished)]
    measurements = {key: value for event in finished for key, value in event.measurements.items()}
    return Judged(results={event.result.id: event.result for event in finished}, measurements=measurements)


def packed(damaged: Damaged) -> list[str]:
    return [name.partition(".quant_state.")[0] for name in damaged.tensors if ".quant_state." in name]


def swap_nibbles(damaged: Damaged) -> None:
    for weight in packed(damaged):
        codes = damaged.u8(weight)
        codes[:] = (codes << 4) | (codes >> 4)


def shift_scales(damaged: Damaged) -> None:
    for weight in packed(damaged):
        name = f"{weight}.absmax"
        stored = damaged.u8(name) if damaged.tensors[name].dtype == "U8" else damaged.f32(name)
        stored[:] = np.roll(np.sort(stored.copy()), 1)[::-1]  # tiny layers have scales much alike: turn them around


def lose_offset(damaged: Damaged) -> None:
    for weight in packed(damaged):
        state = damaged.state(weight)
        damaged.set_state(weight, {**state, "nested_offset": 0.0})


def triple_scales(damaged: Damaged) -> None:
    for weight in packed(damaged):
        damaged.f32(f"{weight}.absmax")[:] *= 3


@pytest.mark.parametrize(
    ("variant", "fault"),
    [("nf4", swap_nibbles), ("fp4", swap_nibbles), ("nf4-double", lose_offset), ("nf4", triple_scales)],
    ids=["nibbles swapped", "nibbles swapped (fp4)", "offset of the nested scales lost", "scales three times as large"],
)
@pytest.mark.parametrize("full", [True, False], ids=["cached", "recorded"])
def test_a_fault_in_every_layer_fails_divergence_alone(
    zoo: Zoo, tmp_path: Path, variant: str, fault: Callable[[Damaged], None], full: bool
):
    with damage(zoo.quantized("llama", variant), tmp_path / "damaged") as damaged:
        fault(damaged)
    reference = zoo.reference("llama", full=full)
    baseline = zoo.baseline("llama") if full else None
    judged = judge_outputs(tmp_path, tmp_path / "damaged", baseline, reference, "outputs.divergence")
    assert judged.ids(Outcome.FAIL) == {"outputs.divergence"}, judged.text()
    figures = judged.measurements["outputs.divergence"]
    assert figures["positions"] == 64
    assert figures["excess"] > 5
    assert figures["reference"] == ("cached" if full else "recorded")


@pytest.mark.parametrize("variant", ["nf4", "int8"])
def test_a_recorded_reference_needs_no_baseline(zoo: Zoo, tmp_path: Path, variant: str):
    checks = ("outputs.divergence", "outputs.finite", "outputs.modules", "weights.error", "memory.ratio")
    judged = judge_outputs(tmp_path, zoo.quantized("llama", variant), None, zoo.reference("llama", full=False), *checks)
    assert judged.ids(Outcome.PASS) == set(checks), judged.text()
    assert judged.measurements["outputs.divergence"]["expected_kl"] is not None


def test_without_decoded_weights_a_model_of_random_weights_has_nothing_to_be_judged_by(zoo: Zoo, tmp_path: Path):
    judged = judge_outputs(
        tmp_path, zoo.quantized("llama", "nf4"), None, zoo.reference("llama"), "outputs.divergence", weights="off"
    )
    assert judged.ids(Outcome.SKIP) == {"outputs.divergence"}, judged.text()
    assert judged.measurements["outputs.divergence"]["excess"] is None


def test_a_baseline_of_another_vocabulary_is_said(zoo: Zoo, tmp_path: Path):
    other = tmp_path / "other"
    config = json.loads((zoo.baseline("llama") / "config.json").read_text())
    from transformers import LlamaConfig, LlamaForCausalLM

    LlamaForCausalLM(LlamaConfig(**{**config, "vocab_size": 192})).save_pretrained(other)
    from models import save_reference

    reference = save_reference(other, tmp_path / "other.safetensors")
    judged = judge_outputs(tmp_path, zoo.quantized("llama", "nf4"), None, reference, "outputs.divergence")
    error = judged.results["outputs.divergence"].error
    assert error is not None
    assert "160 output tokens and its baseline 192" in error.message


def test_logits_that_are_no_numbers_fail_wherever_they_are(zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The first row is sound; what fails comes after it, at one position, and only because more positions are asked."""
    from checker import behaviour
    from checker.probes import forward

    true_run, calls = forward.run_row, []

    def run_row(model: Any, tokens: Any, *scratch: Path) -> Any:
        logits, finite = true_run(model, tokens, *scratch)
        calls.append(len(tokens))
        if len(calls) > 1:
            logits[3] = float("nan")
        return logits, finite

    monkeypatch.setattr(forward, "run_row", run_row)
    monkeypatch.setattr(behaviour, "STAGES", (2, 5))
    judged = judge_outputs(
        tmp_path, zoo.quantized("llama", "nf4"), zoo.baseline("llama"), zoo.reference("llama"), "outputs.divergence"
    )
    assert judged.ids(Outcome.FAIL) == {"outputs.divergence"}, judged.text()
    assert "NaN or infinite at 1 of" in judged.results["outputs.divergence"].findings[0].message
