"""Checkpoints made by the real tools are healthy: nothing fails, with and without a baseline, whole or sampled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from decoding import CHECKPOINTS, baseline_of
from models import judge_files

from checker.checkpoint import open_checkpoint
from checker.domain import Outcome
from checker.probes.artifact import find_quantization_config, recognise
from checker.registry import all_methods, method_declared

FIXTURES = sorted(path.parent for path in CHECKPOINTS.glob("*/*/fixture.json"))
IDS = [f"{path.parent.name}/{path.name}" for path in FIXTURES]


def test_every_method_has_a_fixture():
    made = {path.parent.name for path in FIXTURES}
    ours = {"bitsandbytes-4bit", "bitsandbytes-8bit"}  # made by the library itself whenever the tests run
    assert {method.id for method in all_methods()} == made | ours


@pytest.mark.parametrize("folder", FIXTURES, ids=IDS)
def test_nothing_fails(folder: Path):
    judged = judge_files(folder, baseline_of(folder))
    assert not judged.ids(Outcome.FAIL) | judged.ids(Outcome.ERROR), judged.text()


@pytest.mark.parametrize("folder", FIXTURES, ids=IDS)
def test_nothing_fails_without_a_baseline(folder: Path):
    judged = judge_files(folder)
    assert not judged.ids(Outcome.FAIL) | judged.ids(Outcome.ERROR), judged.text()


@pytest.mark.parametrize("folder", FIXTURES, ids=IDS)
def test_a_sample_fails_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("checker.probes.sampling.SAMPLE_VALUES", 4096)
    judged = judge_files(folder, baseline_of(folder), weights="sampled")
    assert not judged.ids(Outcome.FAIL) | judged.ids(Outcome.ERROR), judged.text()


@pytest.mark.parametrize("folder", FIXTURES, ids=IDS)
def test_config_and_tensors_name_the_method(folder: Path):
    """The config alone names it; with the config the tensors are claimed by that method and no other."""
    with open_checkpoint(folder) as checkpoint:
        _, quantization_config = find_quantization_config(checkpoint.config or {})
        assert quantization_config is not None
        declared = method_declared(quantization_config)
        assert declared is not None
        assert declared.id == folder.parent.name
        stored, weights = recognise(checkpoint, declared, quantization_config)
        assert stored is declared or declared.stored_dense(quantization_config)
        note = json.loads((folder / "fixture.json").read_text("utf-8"))["note"]
        assert weights or declared.stored_dense(quantization_config), note
