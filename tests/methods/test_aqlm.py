"""AQLM's layout by headers and config, and planted faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from decoding import fixtures_of, method_of, open_fixture, recognise
from planted import FAIL, Row, as_dtype, assert_found, cut_row, dense, drop, fill, no_config, one, setting

from checker.registry import config_flaws

AQLM = method_of("aqlm")
LAYER = "model.layers.0.self_attn.q_proj"
FIRST = "model.layers.0.mlp.down_proj.codes"


@pytest.mark.parametrize("name", fixtures_of("aqlm"))
def test_headers_alone_tell_the_layout(name: str):
    checkpoint, weights = open_fixture("aqlm", name)
    alone = {weight.dense: weight for weight in recognise(AQLM, checkpoint)}
    assert {key: weight.expected for key, weight in alone.items()} == {
        key: weight.expected for key, weight in weights.items()
    }
    assert all(not weight.flaws for weight in alone.values())


def test_bits_count_all_books_over_a_group():
    _, weights = open_fixture("aqlm", "odd-2x8")
    assert {weight.attributes["bits"] for weight in weights.values()} == {2}
    _, weights = open_fixture("aqlm", "moe-1x10-g4")
    assert {weight.attributes["bits"] for weight in weights.values()} == {2.5}


@pytest.mark.parametrize("value", [0, -1, True, "8", None, 1 << 40, [8]])
def test_sizes_outside_their_domain_are_named(value: Any):
    config = {"quant_method": "aqlm", "in_group_size": value, "nbits_per_codebook": value}
    assert {flaw[0] for flaw in config_flaws(AQLM, config)} >= {"in_group_size"}
    AQLM.declared(config)


ROWS: list[Row] = [
    ("scales dropped", "odd-2x8", drop(f"{LAYER}.scales"), "layers.complete", (FAIL, f"{LAYER}.scales")),
    ("books dropped", "odd-2x8", drop(f"{LAYER}.codebooks"), "layers.complete", (FAIL, f"{LAYER}.codebooks")),
    ("codes dropped", "odd-2x8", drop(f"{LAYER}.codes"), "layers.complete", (FAIL, f"{LAYER}.codes")),
    ("scales of another dtype", "odd-2x8", as_dtype(f"{LAYER}.scales", "I16"), "layers.complete",
     (FAIL, f"{LAYER}.scales")),
    ("codes of another dtype", "odd-2x8", as_dtype(f"{LAYER}.codes", "I16"), "dtypes.storage",
     (FAIL, f"{LAYER}.codes")),
    ("scales zero", "odd-2x8", fill(f"{LAYER}.scales", 0), "layers.complete", (FAIL, f"{LAYER}.scales")),
    ("one scale NaN", "odd-2x8", one(f"{LAYER}.scales", 2, float("nan")), "layers.complete", (FAIL, f"{LAYER}.scales")),
    ("one vector infinite", "moe-1x10-g4", one(f"{LAYER}.codebooks", 7, float("inf")), "layers.complete",
     (FAIL, f"{LAYER}.codebooks")),
    ("a book lost a vector", "odd-2x8", cut_row(f"{LAYER}.codebooks"), "config.truthful", (FAIL, f"{LAYER}.codes")),
    ("a row of codes lost", "odd-2x8", cut_row(f"{LAYER}.codes"), "layers.complete", (FAIL, f"{LAYER}.scales")),
    ("one layer dense", "odd-2x8", dense("aqlm", "odd-2x8", LAYER), "layers.coverage", (FAIL, LAYER)),
    ("config lies about bits", "odd-2x8", setting("nbits_per_codebook", 16), "config.truthful", (FAIL, FIRST)),
    ("config lies about the group", "odd-2x8", setting("in_group_size", 16), "config.truthful", (FAIL, FIRST)),
    ("config lies about books", "odd-2x8", setting("num_codebooks", 1), "config.truthful", (FAIL, FIRST)),
    ("config removed", "odd-2x8", no_config, "config.present", (FAIL, FIRST)),
    ("listed and quantized", "odd-2x8", setting("linear_weights_not_to_quantize", [f"{LAYER}.weight"]),
     "layers.excluded", (FAIL, LAYER)),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_planted_fault_is_found_and_named(row: Row, tmp_path: Path):
    assert_found("aqlm", row, tmp_path)
