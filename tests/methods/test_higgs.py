"""HIGGS's layout by headers and config, and planted faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from decoding import method_of, open_fixture, recognise
from models import Damaged
from planted import FAIL, Row, as_dtype, assert_found, cut_row, dense, drop, fill, no_config, one, setting

from checker.registry import config_flaws

HIGGS = method_of("higgs")
FIXTURE = "4bit-p2"
LAYER = "model.layers.0.self_attn.q_proj"
FIRST = "model.layers.0.mlp.down_proj.weight"


def test_headers_alone_tell_the_layout():
    checkpoint, weights = open_fixture("higgs", FIXTURE)
    alone = {weight.dense: weight for weight in recognise(HIGGS, checkpoint)}
    assert alone.keys() == weights.keys()
    assert all(weight.expected == weights[key].expected and not weight.flaws for key, weight in alone.items())


def test_a_rotated_weight_is_not_compared_with_the_baseline():
    _, weights = open_fixture("higgs", FIXTURE)
    assert all("rotates" in weight.incomparable for weight in weights.values())


@pytest.mark.parametrize(
    ("key", "value"),
    [("bits", 5), ("bits", "4"), ("p", 3), ("hadamard_size", 0), ("hadamard_size", 96), ("hadamard_size", None),
     ("group_size", 32), ("tune_metadata", [1]), ("tune_metadata", {"x": 1})],
)  # fmt: skip
def test_settings_outside_their_domain_are_named(key: str, value: Any):
    config = {"quant_method": "higgs", "bits": 4, "hadamard_size": 512, "group_size": 256, key: value}
    assert key in {flaw[0] for flaw in config_flaws(HIGGS, config)}


def test_the_group_divides_the_hadamard_size():
    config = {"quant_method": "higgs", "hadamard_size": 128, "group_size": 256}
    assert [flaw[0] for flaw in config_flaws(HIGGS, config)] == ["group_size"]


def untuned(file: Damaged) -> None:
    tuned = file.quantization["tune_metadata"]
    assert isinstance(tuned, dict)
    del tuned[LAYER]


ROWS: list[Row] = [
    ("scales dropped", FIXTURE, drop(f"{LAYER}.scales"), "layers.complete", (FAIL, f"{LAYER}.scales")),
    ("table dropped", FIXTURE, drop(f"{LAYER}.tables"), "layers.complete", (FAIL, f"{LAYER}.tables")),
    ("grid dropped", FIXTURE, drop(f"{LAYER}.tables2"), "layers.complete", (FAIL, f"{LAYER}.tables2")),
    ("weight dropped", FIXTURE, drop(f"{LAYER}.weight"), "layers.complete", (FAIL, f"{LAYER}.weight")),
    ("scales of another dtype", FIXTURE, as_dtype(f"{LAYER}.scales", "I16"), "layers.complete",
     (FAIL, f"{LAYER}.scales")),
    ("codes of another dtype", FIXTURE, as_dtype(f"{LAYER}.weight", "I32"), "dtypes.storage",
     (FAIL, f"{LAYER}.weight")),
    ("scales zero", FIXTURE, fill(f"{LAYER}.scales", 0), "layers.complete", (FAIL, f"{LAYER}.scales")),
    ("one scale NaN", FIXTURE, one(f"{LAYER}.scales", 5, float("nan")), "layers.complete", (FAIL, f"{LAYER}.scales")),
    ("grid infinite", FIXTURE, one(f"{LAYER}.tables2", 5, float("inf")), "layers.complete", (FAIL, f"{LAYER}.tables2")),
    ("a row of codes lost", FIXTURE, cut_row(f"{LAYER}.weight"), "dtypes.storage", (FAIL, f"{LAYER}.weight")),
    ("one layer dense", FIXTURE, dense("higgs", FIXTURE, LAYER), "layers.coverage", (FAIL, LAYER)),
    ("config lies about bits", FIXTURE, setting("bits", 2), "config.truthful", (FAIL, FIRST)),
    ("config lies about the group", FIXTURE, setting("group_size", 128), "config.truthful", (FAIL, FIRST)),
    ("not tuned", FIXTURE, untuned, "layers.complete", (FAIL, f"{LAYER}.weight")),
    ("config removed", FIXTURE, no_config, "config.present", (FAIL, FIRST)),
    ("listed and quantized", FIXTURE, setting("modules_to_not_convert", ["lm_head", "k_proj", "v_proj", "q_proj"]),
     "layers.excluded", (FAIL, LAYER)),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_planted_fault_is_found_and_named(row: Row, tmp_path: Path):
    assert_found("higgs", row, tmp_path)
