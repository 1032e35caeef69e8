"""Checkpoints in the forms that well-known repositories publish are judged without a false alarm.

Small copies, written after the published files and their tools, not downloaded: configs have their keys, lists are
cut to two layers, numbers are round-to-nearest codes of random weights. The table names what fails or warns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import published_floats
import published_integers
import published_vision
import pytest
from models import Judged, judge_files
from published import CONFIGS, Published, write

from checker.checkpoint import open_checkpoint
from checker.domain import Outcome
from checker.probes.artifact import gather_artifact
from checker.registry import config_flaws, method_declared

CASES: Mapping[str, Published] = {
    **published_integers.CASES,
    **published_floats.CASES,
    **published_vision.CASES,
}
KEYS: Mapping[str, Any] = json.loads((Path(__file__).parent / "published_keys.json").read_text(encoding="utf-8"))
NUMBERS = {"weights.scales", "weights.codes"}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Published, Path]:
    return CASES[request.param], make(tmp_path, request.param)


def make(folder: Path, name: str) -> Path:
    return write(folder / "checkpoint", CASES[name], CONFIGS[name])


def test_nothing_is_alleged_that_is_not_so(case: tuple[Published, Path]) -> None:
    entry, folder = case
    judged = judge_files(folder)
    assert judged.ids(Outcome.FAIL) == set(entry.failures), judged.text()
    assert judged.ids(Outcome.WARN) == set(entry.warnings), judged.text()
    assert judged.ids(Outcome.ERROR) == (NUMBERS if "layers.complete" in entry.failures else set()), judged.text()
    assert_read(judged, entry)


def assert_read(judged: Judged, entry: Published) -> None:
    """The checks that find most have run: an alarm is not avoided by looking away."""
    if entry.failures:
        return
    passed = judged.ids(Outcome.PASS) | set(entry.warnings)
    wanted = {"config.truthful", "layers.complete", "layers.coverage", "dtypes.storage", "memory.ratio"}
    assert wanted <= passed, judged.text()
    assert passed >= NUMBERS or entry.method == "aqlm"


def test_the_method_is_recognised_in_every_layer_that_has_it(case: tuple[Published, Path]) -> None:
    entry, folder = case
    with open_checkpoint(folder) as checkpoint:
        artifact = gather_artifact(checkpoint, None)
    assert artifact.declared_method == entry.method
    if entry.method is not None:
        assert artifact.stored_method == entry.method
        assert len(artifact.weights) == sum(
            name.endswith((".qweight", ".weight_packed", "_blocks", ".codes"))
            or (name.endswith(".weight") and fact.dtype in ("U8", "U32", "I8", "F8_E4M3"))
            for name, fact in artifact.tensors.items()
        )


def test_every_config_has_a_checkpoint() -> None:
    assert set(CASES) == set(CONFIGS)


@pytest.mark.parametrize("name", KEYS)
def test_no_key_of_a_published_config_is_called_wrong(name: str) -> None:
    config = KEYS[name]["quantization_config"]
    method = method_declared(config)
    assert method is not None
    assert method.id == KEYS[name]["method"]
    assert config_flaws(method, config) == []


def test_an_unknown_method_is_named(tmp_path: Path) -> None:
    folder = make(tmp_path, "nvidia/Llama-3.1-8B-Instruct-FP8")
    findings = judge_files(folder).results["config.method"].findings
    assert [finding.message for finding in findings] == ["quant_method 'modelopt' is not known"]


@pytest.mark.parametrize("name", ["neuralmagic/Meta-Llama-3-8B-Instruct-FP8 (AutoFP8)"])
def test_scales_under_another_name_are_explained_once(tmp_path: Path, name: str) -> None:
    findings = judge_files(make(tmp_path, name)).results["layers.complete"].findings
    explained = [finding for finding in findings if "AutoFP8" in finding.message]
    assert len(explained) == 1
    assert explained[0].message.startswith("14 weights have their scale as weight_scale")
