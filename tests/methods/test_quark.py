"""AMD Quark's exports: decoded as its own importer does, R where theory puts it, what the config says of each layer."""

from __future__ import annotations

import json
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
from models import judge_files

from checker.domain import Outcome
from checker.registry import config_flaws

QUARK = method_of("quark")
NAMES = fixtures_of("quark")
# of R; all others 1. The layers have 2,000 to 20,000 values, so that R scatters by up to 0.08
LEVELS = {
    "moe-mxfp4": 0.9,
    "moe-nvfp4": 0.74,
    "moe-int4-group": 1.05,  # 7.5 steps to the largest value, of which the positive end has but 7
}


@pytest.mark.parametrize("name", NAMES)
def test_decoded_weights_equal_those_of_quarks_importer(name: str):
    checkpoint, weights = open_fixture("quark", name)
    expected = library_values("quark", name)
    assert expected
    for tensor, values in expected.items():
        dense = tensor if tensor in weights else tensor.replace("model.", "model.language_model.", 1)
        np.testing.assert_array_equal(decode(QUARK, checkpoint, weights[dense]), values)


@pytest.mark.parametrize("name", NAMES)
def test_parts_decode_as_the_whole(name: str):
    checkpoint, weights = open_fixture("quark", name)
    for weight in list(weights.values())[:7]:
        assert_windows_agree(QUARK, checkpoint, weight)


@pytest.mark.parametrize("name", NAMES)
def test_the_error_is_what_theory_predicts(name: str):
    judged = judge_files(CHECKPOINTS / "quark" / name, baseline_of(CHECKPOINTS / "quark" / name))
    rows = judged.measurements["weights"]
    assert isinstance(rows, list)
    assert len(rows) >= 14
    assert all(abs(row["R"] - LEVELS.get(name, 1)) <= 0.1 for row in rows), rows
    assert judged.results["weights.codes"].outcome is Outcome.PASS
    assert judged.results["memory.ratio"].outcome is Outcome.PASS


@pytest.mark.parametrize("name", NAMES)
def test_headers_alone_tell_the_layout(name: str):
    """Without its config the weights are found as well; int4 and uint4, and both float6, are stored alike."""
    checkpoint, weights = open_fixture("quark", name)
    alone = {weight.dense: weight for weight in recognise(QUARK, checkpoint)}
    assert alone.keys() == weights.keys()
    for dense, weight in weights.items():
        assert alone[dense].shape == weight.shape
        assert alone[dense].attributes["bits"] == weight.attributes["bits"]


def _intent(config: dict[str, Any], name: str, role: str = "linear") -> Any:
    assert QUARK.planner is not None
    return QUARK.planner(config)((name,), role)


def _config(**changes: Any) -> dict[str, Any]:
    path = CHECKPOINTS / "quark" / "odd-mixed" / "config.json"
    return {**json.loads(path.read_text())["quantization_config"], **changes}


def test_settings_of_a_layer_replace_those_of_the_model():
    config = _config()
    assert _intent(config, "model.layers.0.mlp.down_proj").attributes["dtype"] == "int8"
    assert _intent(config, "model.layers.0.mlp.up_proj").attributes["dtype"] == "fp8_e4m3"


@pytest.mark.parametrize(
    ("entry", "kept"),
    [
        ("lm_head", False),
        ("model.layers.0.mlp", False),  # a parent keeps nothing below it
        ("model.layers.0.mlp.*", True),
        ("*up_proj", True),
        ("up_proj", False),
        ("[", False),
        ("*" * 1000, False),
    ],
)
def test_exclude_matches_whole_names(entry: str, kept: bool):
    intent = _intent(_config(exclude=[entry]), "model.layers.0.mlp.up_proj")
    assert intent.quantized is not kept


def test_the_head_is_quantized_unless_it_is_excluded():
    assert _intent(_config(exclude=[]), "lm_head", "head").quantized is True
    assert _intent(_config(exclude=["lm_head"]), "lm_head", "head").quantized is False


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"dtype": "int9"}, "global_quant_config"),
        ({"qscheme": "per_row"}, "global_quant_config"),
        ({"qscheme": "per_group", "group_size": 0}, "global_quant_config"),
        ({"qscheme": "per_group", "group_size": "32"}, "global_quant_config"),
    ],
)
def test_settings_outside_their_domain_are_named(change: dict[str, Any], key: str):
    config = _config()
    config["global_quant_config"]["weight"] |= change
    assert [flaw[0] for flaw in config_flaws(QUARK, config)] == [key]


def test_a_layers_settings_outside_their_domain_are_named():
    config = _config()
    config["layer_quant_config"]["*down_proj"]["weight"]["dtype"] = "int9"
    assert [flaw[0] for flaw in config_flaws(QUARK, config)] == ["layer_quant_config"]


@pytest.mark.parametrize("broken", [None, 3, [], "x", {"weight": 3}, {"weight": [None]}, {"weight": {"dtype": []}}])
def test_broken_settings_never_raise(broken: Any):
    config = _config(global_quant_config=broken, layer_quant_config={"*": broken}, exclude=[broken])
    assert config_flaws(QUARK, config)
    _intent(config, "model.layers.0.mlp.up_proj")
    QUARK.declared(config)
    QUARK.stored_dense(config)


def test_fake_quantized_exports_hold_no_packed_tensor():
    config = _config()
    assert not QUARK.stored_dense(config)
    config["export"]["weight_format"] = "fake_quantized"
    assert "fake-quantized" in QUARK.stored_dense(config)
