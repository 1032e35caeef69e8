"""Gemma's layout: decoded as transformers does, bits by module as its expressions give them, planted faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoding import CHECKPOINTS, assert_windows_agree, decode, fixtures_of, library_values, method_of, open_fixture
from planted import FAIL, Row, as_dtype, assert_found, cut_row, dense, drop, fill, no_config, one, setting

from checker.registry import config_flaws

GEMMA = method_of("gemma")
NAMES = fixtures_of("gemma")
LAYER = "model.layers.0.self_attn.q_proj"
FIRST = "model.layers.0.mlp.down_proj.weight"


@pytest.mark.parametrize("name", NAMES)
def test_decoded_weights_equal_those_of_transformers(name: str):
    checkpoint, weights = open_fixture("gemma", name)
    expected = library_values("gemma", name)
    assert expected
    for tensor, values in expected.items():
        np.testing.assert_array_equal(decode(GEMMA, checkpoint, weights[tensor]), values)


@pytest.mark.parametrize("name", NAMES)
def test_parts_decode_as_the_whole(name: str):
    checkpoint, weights = open_fixture("gemma", name)
    for weight in list(weights.values())[:8]:
        assert_windows_agree(GEMMA, checkpoint, weight)


def _bits(config: dict[str, Any], name: str, role: str = "linear") -> Any:
    assert GEMMA.planner is not None
    return GEMMA.planner(config)((name,), role).attributes.get("bits")


def test_the_leftmost_expression_decides_then_the_first():
    """``re`` searches the joined expressions; layers.1 begins before mlp.down_proj, although it is listed later."""
    path = CHECKPOINTS / "gemma" / "mixed-embeddings" / "config.json"
    config = json.loads(path.read_text())["quantization_config"]
    assert _bits(config, "model.layers.0.mlp.down_proj") == 8
    assert _bits(config, "model.layers.1.mlp.down_proj") == 2
    assert _bits(config, "model.layers.0.mlp.up_proj") == 4
    both = {"num_bits": 4, "module_quant_configs": {"up": {"num_bits": 2}, "up_proj": {"num_bits": 8}}}
    assert _bits(both, "model.up_proj") == 2


@pytest.mark.parametrize("pattern", ["(a+)+$", "a*a*a*a*a*b", "(?=x)", "[", "x" * 300])
def test_expressions_that_could_take_for_ever_are_not_searched(pattern: str):
    config = {"num_bits": 4, "module_quant_configs": {pattern: {"num_bits": 8}}}
    assert _bits(config, "a" * 200) is None


@pytest.mark.parametrize(
    "settings", [3, {"x": 3}, {"x": {"num_bits": 3}}, {"[": {"num_bits": 4}}, {"x": {"num_bits": 4, "bits": 2}}]
)
def test_settings_outside_their_domain_are_named(settings: Any):
    config = {"quant_method": "gemma", "num_bits": 4, "module_quant_configs": settings}
    assert [flaw[0] for flaw in config_flaws(GEMMA, config)] == ["module_quant_configs"]
    _bits(config, "model.up_proj")


ROWS: list[Row] = [
    ("scale dropped", "odd-int8", drop(f"{LAYER}.weight_scale"), "layers.complete", (FAIL, f"{LAYER}.weight_scale")),
    ("activation scale dropped", "odd-int8", drop(f"{LAYER}.input_activation_scale"), "layers.complete",
     (FAIL, f"{LAYER}.input_activation_scale")),
    ("weight dropped", "odd-int4", drop(f"{LAYER}.weight"), "layers.complete", (FAIL, f"{LAYER}.weight")),
    ("embedding scale dropped", "mixed-embeddings", drop("model.embed_tokens.embedding_scale"), "layers.complete",
     (FAIL, "model.embed_tokens.embedding_scale")),
    ("scale of another dtype", "odd-int4", as_dtype(f"{LAYER}.weight_scale", "F16"), "layers.complete",
     (FAIL, f"{LAYER}.weight_scale")),
    ("scales zero", "odd-int4", fill(f"{LAYER}.weight_scale", 0), "weights.scales", (FAIL, LAYER)),
    ("one scale NaN", "odd-int2", one(f"{LAYER}.weight_scale", 3, float("nan")), "weights.scales", (FAIL, LAYER)),
    ("one scale negative", "odd-int8", one(f"{LAYER}.weight_scale", 3, -1), "weights.scales", (FAIL, LAYER)),
    ("activation scale NaN", "odd-int8", fill(f"{LAYER}.output_activation_scale", float("nan")), "layers.complete",
     (FAIL, f"{LAYER}.output_activation_scale")),
    ("a row lost", "odd-int4", cut_row(f"{LAYER}.weight"), "memory.ratio", (FAIL, f"{LAYER}.weight")),
    ("codes of another dtype", "odd-int4", as_dtype(f"{LAYER}.weight", "I16"), "dtypes.storage",
     (FAIL, f"{LAYER}.weight")),
    ("one layer dense", "odd-int4", dense("gemma", "odd-int4", LAYER), "layers.coverage", (FAIL, LAYER)),
    ("config lies about bits", "odd-int8", setting("num_bits", 4), "config.truthful", (FAIL, FIRST)),
    ("config lies about packed bits", "odd-int4", setting("num_bits", 2), "memory.ratio", (FAIL, FIRST)),
    ("embeddings declared dense", "mixed-embeddings", setting("quantize_embeddings", False), "layers.excluded",
     (FAIL, "model.embed_tokens")),
    ("listed and quantized", "odd-int8", setting("modules_to_not_convert", ["lm_head", "q_proj"]), "layers.excluded",
     (FAIL, LAYER)),
    ("config removed", "odd-int8", no_config, "config.present", (FAIL, FIRST)),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_planted_fault_is_found_and_named(row: Row, tmp_path: Path):
    assert_found("gemma", row, tmp_path)
