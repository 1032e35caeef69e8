"""GPTQ files as gptqmodel and AutoRound write them: decoded as gptqmodel does, judged as healthy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoding import (
    CHECKPOINTS,
    assert_windows_agree,
    baseline_of,
    decode,
    fixtures_of,
    library_values,
    method_of,
    open_fixture,
    recognise,
)
from models import damage, judge_files

from checker.checkpoint import open_checkpoint
from checker.domain import Outcome
from checker.registry import config_flaws

ID = "gptq"
METHOD = method_of(ID)
NAMES = fixtures_of(ID)
ROUNDED = ("auto-round-mixed", "rounded-w4-g32-asym-v2")  # to the nearest; the others are calibrated
PERMUTED = ("w4-g64-act-order",)


@pytest.mark.parametrize("name", NAMES)
def test_decoded_weights_equal_the_librarys_after_its_cast(name: str) -> None:
    checkpoint, weights = open_fixture(ID, name)
    expected = library_values(ID, name)
    assert expected
    for dense, values in expected.items():
        decoded = decode(METHOD, checkpoint, weights[dense]).astype(np.float16)
        np.testing.assert_array_equal(decoded, values.astype(np.float16))


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_a_weight_decode_as_the_whole(name: str) -> None:
    checkpoint, weights = open_fixture(ID, name)
    for weight in list(weights.values())[:7]:
        assert_windows_agree(METHOD, checkpoint, weight)


@pytest.mark.parametrize("name", NAMES)
def test_the_error_is_what_theory_gives(name: str) -> None:
    """Rounding to the nearest: R is 1. GPTQ moves weights to make up for errors: never less, and at most 2.2."""
    folder = CHECKPOINTS / ID / name
    rows: Any = judge_files(folder, baseline_of(folder)).measurements["weights"]
    ratios = [row["R"] for row in rows]
    assert len(ratios) == len(open_fixture(ID, name)[1])
    if name in ROUNDED:
        assert min(ratios) > 0.9
        assert max(ratios) < 1.1
    else:
        assert min(ratios) > 1.1
        assert max(ratios) < 2.2


@pytest.mark.parametrize("name", NAMES)
def test_headers_alone_tell_what_the_config_says(name: str) -> None:
    checkpoint, declared = open_fixture(ID, name)
    by_headers = recognise(METHOD, checkpoint)
    assert {weight.dense for weight in by_headers} == set(declared)
    for weight in by_headers:
        told = declared[weight.dense]
        assert weight.shape == told.shape
        assert weight.attributes["bits"] == told.attributes["bits"]
        assert weight.attributes.get("symmetric") == told.attributes.get("symmetric")


@pytest.mark.parametrize("name", NAMES)
def test_the_tools_configs_have_no_flaw(name: str) -> None:
    config = json.loads((CHECKPOINTS / ID / name / "config.json").read_text())["quantization_config"]
    assert config_flaws(METHOD, config) == []


def test_activation_order_is_seen_where_it_is() -> None:
    for name in NAMES:
        permuted = {
            weight.module for weight in open_fixture(ID, name)[1].values() if weight.attributes.get("act_order")
        }
        if name in PERMUTED:
            assert permuted == {weight.module for weight in open_fixture(ID, name)[1].values()}
        elif name == "dynamic":  # a rule for o_proj alone
            assert permuted == {f"model.layers.{number}.self_attn.o_proj" for number in (0, 1)}
        else:
            assert not permuted


def test_settings_of_single_modules_are_read_from_their_tensors() -> None:
    weights = open_fixture(ID, "dynamic")[1]
    settings = {(weight.attributes["bits"], weight.attributes["group_size"]) for weight in weights.values()}
    assert settings == {(4, 64), (8, 32)}
    assert weights["lm_head.weight"].attributes["bits"] == 8
    assert "model.layers.0.self_attn.v_proj.weight" not in weights


def test_groups_that_do_not_divide_the_inputs_are_counted_from_their_indices() -> None:
    weight = open_fixture(ID, "odd")[1]["model.layers.0.mlp.down_proj.weight"]
    assert weight.shape == (96, 200)
    assert weight.attributes["group_size"] == 64


@pytest.mark.parametrize(
    ("name", "version"),
    [("w4-g64-sym", "gptq"), ("w3-g32-sym", "gptq"), ("w8-g128-sym", "gptq"), ("w4-g32-asym-v1", None)],
)
def test_symmetric_zero_points_tell_their_version(name: str, version: str | None) -> None:
    weights = open_fixture(ID, name)[1].values()
    assert {weight.attributes.get("zero_point_format") for weight in weights} == {version}
    assert {weight.attributes["symmetric"] for weight in weights} == {version is not None}


def test_a_config_without_format_is_version_one() -> None:
    """AutoGPTQ's first files say neither ``checkpoint_format`` nor ``format``."""
    with open_checkpoint(CHECKPOINTS / ID / "w4-g32-asym-v1") as checkpoint:
        (old, *_) = recognise(METHOD, checkpoint, {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": False})
        (new, *_) = recognise(METHOD, checkpoint, {"quant_method": "gptq", "checkpoint_format": "gptq_v2"})
    assert (old.attributes["zero_offset"], new.attributes["zero_offset"]) == (1, 0)


@pytest.mark.parametrize("baseline", [True, False])
def test_zero_biases_of_early_files_are_no_finding(baseline: bool, tmp_path: Path) -> None:
    """AutoGPTQ stored a bias of zeros for every layer, and a config of few keys."""
    healthy = CHECKPOINTS / ID / "w4-g64-sym"
    with damage(healthy, tmp_path / "early") as file:
        for name in [name for name in file.tensors if name.endswith(".scales")]:
            outputs = file.tensors[name].shape[1]
            file.put(name.replace(".scales", ".bias"), "F16", [outputs], bytes(2 * outputs))
        file.config["quantization_config"] = {
            "quant_method": "gptq",
            "bits": 4,
            "group_size": 64,
            "damp_percent": 0.1,
            "desc_act": False,
            "sym": True,
            "true_sequential": True,
            "model_name_or_path": None,
            "model_file_base_name": "model",
        }
    judged = judge_files(tmp_path / "early", baseline_of(healthy) if baseline else None)
    assert not judged.ids(Outcome.FAIL) | judged.ids(Outcome.WARN) | judged.ids(Outcome.ERROR), judged.text()
