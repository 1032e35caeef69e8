"""Every model family with every bitsandbytes variant, quantized here, saved, loaded, run and reloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from models import FUSED_EXPERTS, MODELS, VARIANTS, Judged, Zoo

from checker.domain import Cell, Depth, ModelRef, Outcome, Settings
from checker.protocol import Finished, Job
from checker.registry import all_checks
from checker.worker import judge

EVERY_CHECK = tuple(item.id for item in all_checks())
# transformers' Switch router calls .to(float32) on its own classifier, which rewrites codes held in bfloat16
BROKEN_UPSTREAM = ("switch", "nf4-bf16-storage")
# transformers casts the input of its feed-forward layers to the dtype of the packed weight behind them
CAST_UPSTREAM = [("switch", variant) for variant in ("nf4", "nf4-double", "fp4")]
CELLS = [
    (model, variant)
    for model in MODELS
    for variant in VARIANTS
    if (model, variant) not in (BROKEN_UPSTREAM, *CAST_UPSTREAM)
]
KNOWN_FROM_EXPERTS = {"layers.coverage", "layers.classes", "memory.ratio"}


def judge_whole(
    scratch: Path, zoo: Zoo, model: str, variant: str, device: str, checkpoint: Path | None = None
) -> Judged:
    """All checks at full depth over one cell, in this process."""
    baseline = zoo.baseline(model)
    ref = ModelRef(kind="folder", name=str(baseline))
    quantization = dict(VARIANTS[variant])
    if device != "cpu" or checkpoint is not None:
        quantization.setdefault("bnb_4bit_compute_dtype", "bfloat16")
    cell = Cell(
        id=f"{baseline.parent.name}/{variant}",
        baseline=ref,
        checkpoint=ModelRef(kind="folder", name=str(checkpoint)) if checkpoint else None,
        quantization=None if checkpoint else quantization,
        settings=Settings(depth=Depth.FULL, device=device),
    )
    job = Job(
        cell=cell,
        checks=EVERY_CHECK,
        baseline=str(baseline),
        checkpoint=str(checkpoint) if checkpoint else None,
        scratch=str(scratch),
        reference=str(zoo.reference(model)),
    )
    events: list[Any] = []
    judge(job, events.append)
    finished = [event for event in events if isinstance(event, Finished)]
    measurements: dict[str, Any] = {}
    for event in finished:
        measurements |= event.measurements
    return Judged(results={event.result.id: event.result for event in finished}, measurements=measurements)


def assert_healthy(judged: Judged, model: str) -> None:
    assert set(judged.results) == set(EVERY_CHECK)
    failing, unverified = judged.ids(Outcome.FAIL), judged.ids(Outcome.ERROR)
    assert not unverified, judged.text()
    if model in FUSED_EXPERTS:
        assert failing <= KNOWN_FROM_EXPERTS, judged.text()
        assert "layers.coverage" in failing
        findings = [finding for name in failing for finding in judged.results[name].findings]
        assert all(".experts." in finding.where or finding.message.startswith("and ") for finding in findings), (
            judged.text()
        )
    else:
        assert not failing, judged.text()
        assert not judged.ids(Outcome.WARN), judged.text()


@pytest.mark.parametrize(("model", "variant"), CELLS)
def test_a_healthy_model_passes_on_the_cpu(zoo: Zoo, tmp_path: Path, model: str, variant: str) -> None:
    assert_healthy(judge_whole(tmp_path, zoo, model, variant, "cpu"), model)


def test_a_model_that_upstream_breaks_is_reported_as_not_running(zoo: Zoo, tmp_path: Path) -> None:
    model, variant = BROKEN_UPSTREAM
    judged = judge_whole(tmp_path, zoo, model, variant, "cpu")
    assert judged.ids(Outcome.FAIL) == {"outputs.finite"}, judged.text()
    assert "does not run" in judged.results["outputs.finite"].findings[0].message


@pytest.mark.parametrize(("model", "variant"), CAST_UPSTREAM)
def test_a_model_that_upstream_feeds_with_whole_numbers_fails_and_names_the_layers(
    zoo: Zoo, tmp_path: Path, model: str, variant: str
) -> None:
    judged = judge_whole(tmp_path, zoo, model, variant, "cpu")
    assert judged.ids(Outcome.FAIL) == {"outputs.modules", "outputs.divergence"}, judged.text()
    named = {finding.where.rpartition(".")[2] for finding in judged.results["outputs.modules"].findings}
    assert named == {"wo"}, judged.text()
    assert "computes in uint8" in judged.results["outputs.modules"].findings[0].message


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_published_checkpoint_passes_on_the_cpu(zoo: Zoo, tmp_path: Path, variant: str) -> None:
    checkpoint = zoo.quantized("llama", variant)
    assert_healthy(judge_whole(tmp_path, zoo, "llama", variant, "cpu", checkpoint), "llama")


@pytest.mark.gpu
@pytest.mark.parametrize(("model", "variant"), CELLS)
def test_a_healthy_model_passes_on_cuda(zoo: Zoo, tmp_path: Path, model: str, variant: str) -> None:
    assert_healthy(judge_whole(tmp_path, zoo, model, variant, "cuda:0"), model)


@pytest.mark.gpu
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_published_checkpoint_passes_on_cuda(zoo: Zoo, tmp_path: Path, variant: str) -> None:
    checkpoint = zoo.quantized("llama", variant)
    assert_healthy(judge_whole(tmp_path, zoo, "llama", variant, "cuda:0", checkpoint), "llama")
