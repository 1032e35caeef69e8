"""VPTQ's layout by the settings of each layer, and planted faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from decoding import CHECKPOINTS, method_of, open_fixture, recognise
from models import Damaged
from planted import FAIL, Fault, Row, as_dtype, assert_found, cut_row, dense, drop, fill, no_config, one, setting

from checker.registry import config_flaws

VPTQ = method_of("vptq")
LAYER = "model.layers.0.self_attn.q_proj"
FIRST = "model.layers.0.mlp.down_proj.indices"
PERM, OUTLIERS = "odd-v6-k64-16-perm", "moe-outliers-groups"


def test_headers_alone_find_the_layers():
    checkpoint, weights = open_fixture("vptq", PERM)
    assert {weight.dense for weight in recognise(VPTQ, checkpoint)} == set(weights)


def test_bits_count_main_and_residual_index():
    _, weights = open_fixture("vptq", PERM)  # 6 + 4 bits for 6 weights
    assert {weight.attributes["bits"] for weight in weights.values()} == {1.6667}


def _config() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CHECKPOINTS / "vptq" / PERM / "config.json").read_text())
    return dict(loaded["quantization_config"])


@pytest.mark.parametrize(
    ("key", "value"),
    [("group_size", 0), ("in_features", -1), ("out_features", 1 << 40), ("num_centroids", [-1, 60]),
     ("num_centroids", [-1, -1]), ("num_centroids", "x"), ("vector_lens", [-1]), ("vector_lens", [-1, 0]),
     ("num_res_centroids", [-1, 1 << 30]), ("outlier_size", -1), ("group_num", True)],
)  # fmt: skip
def test_settings_that_describe_no_layer_are_named(key: str, value: Any):
    config = _config()
    config["config_for_layers"][LAYER][key] = value
    assert [flaw[0] for flaw in config_flaws(VPTQ, config)] == ["config_for_layers"]
    checkpoint, _ = open_fixture("vptq", PERM)
    layer = next(weight for weight in recognise(VPTQ, checkpoint, config) if weight.module == LAYER)
    assert [flaw.where for flaw in layer.flaws] == [f"{LAYER}.indices"]


def test_shared_settings_hold_for_a_modules_last_name():
    config = _config()
    config["shared_layer_config"] = {"q_proj": config["config_for_layers"].pop(LAYER)}
    checkpoint, weights = open_fixture("vptq", PERM)
    layer = next(weight for weight in recognise(VPTQ, checkpoint, config) if weight.module == LAYER)
    assert layer == weights[f"{LAYER}.weight"]


def layer(key: str, value: Any) -> Fault:
    def fault(file: Damaged) -> None:
        layers = file.quantization["config_for_layers"]
        assert isinstance(layers, dict)
        entry = layers[LAYER]
        assert isinstance(entry, dict)
        entry[key] = value

    return fault


def unlisted(file: Damaged) -> None:
    layers = file.quantization["config_for_layers"]
    assert isinstance(layers, dict)
    del layers[LAYER]


ROWS: list[Row] = [
    ("centroids dropped", PERM, drop(f"{LAYER}.centroids.weight"), "layers.complete",
     (FAIL, f"{LAYER}.centroids.weight")),
    ("residual centroids dropped", PERM, drop(f"{LAYER}.res_centroids.weight"), "layers.complete",
     (FAIL, f"{LAYER}.res_centroids.weight")),
    ("permutation dropped", PERM, drop(f"{LAYER}.perm"), "layers.complete", (FAIL, f"{LAYER}.perm")),
    ("scale dropped", PERM, drop(f"{LAYER}.weight_scale"), "layers.complete", (FAIL, f"{LAYER}.weight_scale")),
    ("outliers dropped", OUTLIERS, drop(f"{LAYER}.outlier_indices"), "layers.complete",
     (FAIL, f"{LAYER}.outlier_indices")),
    ("indices dropped", PERM, drop(f"{LAYER}.indices"), "layers.complete", (FAIL, f"{LAYER}.indices")),
    ("scale of another dtype", PERM, as_dtype(f"{LAYER}.weight_scale", "F32"), "layers.complete",
     (FAIL, f"{LAYER}.weight_scale")),
    ("indices of another dtype", PERM, as_dtype(f"{LAYER}.indices", "I16"), "dtypes.storage",
     (FAIL, f"{LAYER}.indices")),
    ("indices cut", OUTLIERS, cut_row(f"{LAYER}.indices"), "dtypes.storage", (FAIL, f"{LAYER}.indices")),
    ("centroids zero", PERM, fill(f"{LAYER}.centroids.weight", 0), "layers.complete",
     (FAIL, f"{LAYER}.centroids.weight")),
    ("one centroid NaN", PERM, one(f"{LAYER}.centroids.weight", 9, float("nan")), "layers.complete",
     (FAIL, f"{LAYER}.centroids.weight")),
    ("bias infinite", PERM, one(f"{LAYER}.weight_bias", 9, float("inf")), "layers.complete",
     (FAIL, f"{LAYER}.weight_bias")),
    ("one layer dense", PERM, dense("vptq", PERM, LAYER), "layers.coverage", (FAIL, LAYER)),
    ("config lies about the vector", PERM, layer("vector_lens", [-1, 8]), "dtypes.storage", (FAIL, f"{LAYER}.indices")),
    ("config lies about centroids", PERM, layer("num_centroids", [-1, 256]), "layers.complete",
     (FAIL, f"{LAYER}.centroids.weight")),
    ("not in the config", PERM, unlisted, "layers.complete", (FAIL, f"{LAYER}.indices")),
    ("config removed", PERM, no_config, "config.present", (FAIL, FIRST)),
    ("trained further", PERM, setting("enable_proxy_error", True), "config.keys",
     (FAIL, "quantization_config.enable_proxy_error")),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_planted_fault_is_found_and_named(row: Row, tmp_path: Path):
    assert_found("vptq", row, tmp_path)
