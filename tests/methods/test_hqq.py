"""HQQ's layers: decoded as the library does, R where measured, settings for each kind of layer, settings that lie."""

from __future__ import annotations

import json

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
from models import judge_files

from checker.domain import Outcome
from checker.methods.hqq import linear_tag
from checker.registry import config_flaws

HQQ = method_of("hqq")
NAMES = fixtures_of("hqq")
# the library optimizes zeros for fewer outliers, and R is below that of rounding: more so the fewer the bits
LEVELS = {"w1-g32": 0.66, "w2-g16": 0.76, "dynamic": 0.89, "w3-g64": 0.89, "w3-g64-axis0": 0.89}
ORDINARY = 0.92
# the library computes in 16 bits, which rounds twice; the largest deviation of a weight's largest value
ROOM = {"w1-g32": 0.0, "w4-g64-axis0": 1e-3, "w8-g64": 1e-3, "w3-g64-axis0": 1e-3, "w2-g16": 1e-3}


@pytest.mark.parametrize("name", NAMES)
def test_decoded_weights_equal_the_librarys(name: str):
    checkpoint, weights = open_fixture("hqq", name)
    expected = library_values("hqq", name)
    assert len(expected) >= 2
    for tensor, values in expected.items():
        decoded = decode(HQQ, checkpoint, weights[tensor])
        assert np.abs(decoded - values).max() <= ROOM.get(name, 8e-3) * np.abs(values).max()


@pytest.mark.parametrize("name", NAMES)
def test_parts_decode_as_the_whole(name: str):
    checkpoint, weights = open_fixture("hqq", name)
    for weight in list(weights.values())[:7]:
        assert_windows_agree(HQQ, checkpoint, weight)


@pytest.mark.parametrize("name", NAMES)
def test_the_error_is_that_of_healthy_files(name: str):
    folder = CHECKPOINTS / "hqq" / name
    judged = judge_files(folder, baseline_of(folder))
    rows = judged.measurements["weights"]
    assert isinstance(rows, list)
    assert len(rows) >= 12
    assert all(abs(row["R"] - LEVELS.get(name, ORDINARY)) <= 0.1 for row in rows), rows
    for check in ("weights.codes", "weights.error", "memory.ratio", "layers.coverage", "layers.excluded"):
        assert judged.results[check].outcome is Outcome.PASS, judged.text()


@pytest.mark.parametrize("name", NAMES)
def test_headers_alone_tell_the_layout(name: str):
    checkpoint, weights = open_fixture("hqq", name)
    alone = {weight.dense: weight for weight in recognise(HQQ, checkpoint)}
    assert {dense: weight.attributes for dense, weight in alone.items()} == {
        dense: weight.attributes for dense, weight in weights.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_configs_of_the_library_have_no_flaw(name: str):
    config = json.loads((CHECKPOINTS / "hqq" / name / "config.json").read_text())["quantization_config"]
    assert config_flaws(HQQ, config) == []


def test_the_kind_of_a_layer_is_its_name_without_numbers():
    assert linear_tag("model.layers.31.self_attn.k_proj") == "self_attn.k_proj"
    assert linear_tag("model.layers.0.mlp.experts.3.up_proj") == "mlp.experts.up_proj"


def test_each_kind_of_layer_has_its_settings():
    settings = {"weight_quant_params": {"nbits": 3, "group_size": 32, "axis": 1}}
    assert HQQ.planner is not None
    planned = HQQ.planner({"quant_config": {"mlp.up_proj": settings}, "skip_modules": ["v_proj"]})
    assert planned(("model.layers.0.mlp.up_proj",), "linear").attributes == {
        "bits": 3,
        "group_size": 32,
        "axis": 1,
        "view_as_float": False,
    }
    assert planned(("model.layers.0.mlp.down_proj",), "linear").quantized is False
    assert planned(("model.layers.0.self_attn.v_proj",), "linear").reason == "'v_proj' of skip_modules keeps it"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nbits": 7}, "nbits 7"),
        ({"nbits": 4, "group_size": 0}, "group_size 0"),
        ({"nbits": 4, "axis": 2}, "axis 2"),
    ],
)
def test_settings_out_of_range_are_flaws(settings: dict[str, int], message: str):
    config = {"quant_method": "hqq", "quant_config": {"weight_quant_params": settings}, "skip_modules": []}
    [(key, text)] = config_flaws(HQQ, config)
    assert key == "quant_config"
    assert message in text
