"""SpQR's layout by headers and row offsets, and planted faults: its kernels check nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoding import fixtures_of, method_of, open_fixture, recognise
from models import Damaged
from planted import FAIL, Fault, Row, as_dtype, assert_found, cut_row, dense, drop, no_config, one, setting

from checker.registry import config_flaws

SPQR = method_of("spqr")
LAYER = "model.layers.0.self_attn.q_proj"
FIRST = "model.layers.0.mlp.down_proj.dense_weights"
OFFSETS, OUTLIERS, ORDER = (f"{LAYER}.{name}" for name in ("row_offsets", "col_vals", "in_perm"))


@pytest.mark.parametrize("name", fixtures_of("spqr"))
def test_headers_and_offsets_tell_the_layout(name: str):
    checkpoint, weights = open_fixture("spqr", name)
    alone = {weight.dense: weight for weight in recognise(SPQR, checkpoint)}
    assert alone.keys() == weights.keys()
    assert all(weight.expected == weights[key].expected and not weight.flaws for key, weight in alone.items())
    storage = {weight.attributes["storage"] for weight in weights.values()}
    assert storage == ({"ptcsr"} if "ptcsr" in name else {"csr"})


@pytest.mark.parametrize(
    ("key", "value"), [("bits", 4), ("beta1", 32), ("beta2", "16"), ("shapes", []), ("shapes", {"x": -1})]
)
def test_settings_outside_their_domain_are_named(key: str, value: Any):
    assert key in {flaw[0] for flaw in config_flaws(SPQR, {"quant_method": "spqr", key: value})}


def column(number: int) -> Fault:
    """The first outlier names that column."""

    def fault(file: Damaged) -> None:
        words = file.tensors[OUTLIERS].view("<i4")
        words[0] = words[0] & ~0xFFFF | number

    return fault


def infinite(file: Damaged) -> None:
    words = file.tensors[OUTLIERS].view("<u4")
    words[0] = words[0] & 0xFFFF | np.uint32(0x7C00) << 16


def length(name: str, value: int | None) -> Fault:
    def fault(file: Damaged) -> None:
        shapes = file.quantization["shapes"]
        assert isinstance(shapes, dict)
        if value is None:
            del shapes[f"{name}.shape"]
        else:
            shapes[f"{name}.shape"] = value

    return fault


ROWS: list[Row] = [
    ("words dropped", "odd-csr", drop(f"{LAYER}.dense_weights"), "layers.complete", (FAIL, f"{LAYER}.dense_weights")),
    ("outliers dropped", "odd-csr", drop(OUTLIERS), "layers.complete", (FAIL, OUTLIERS)),
    ("offsets of another dtype", "odd-perm", as_dtype(OFFSETS, "I16"), "layers.complete", (FAIL, OFFSETS)),
    ("permutation dropped", "odd-perm", drop(ORDER), "layers.complete", (FAIL, ORDER)),
    ("words of another dtype", "odd-csr", as_dtype(f"{LAYER}.dense_weights", "I32"), "dtypes.storage",
     (FAIL, f"{LAYER}.dense_weights")),
    ("words lost", "odd-perm", cut_row(f"{LAYER}.dense_weights"), "dtypes.storage", (FAIL, f"{LAYER}.dense_weights")),
    ("offsets fall", "odd-csr", one(OFFSETS, 5, 100_000), "layers.complete", (FAIL, OFFSETS)),
    ("offsets run past the end", "odd-csr", one(OFFSETS, -1, 100_000), "layers.complete", (FAIL, OFFSETS)),
    ("offsets do not begin at 0", "odd-csr", one(OFFSETS, 0, 1), "layers.complete", (FAIL, OFFSETS)),
    ("column beyond the row", "odd-csr", column(96), "layers.complete", (FAIL, OUTLIERS)),
    ("column beyond the row, interleaved", "moe-ptcsr", column(64), "layers.complete", (FAIL, OUTLIERS)),
    ("outlier infinite", "odd-csr", infinite, "layers.complete", (FAIL, OUTLIERS)),
    ("no permutation", "odd-perm", one(ORDER, 0, 0), "layers.complete", (FAIL, ORDER)),
    ("config lies about a length", "odd-csr", length(OUTLIERS, 3), "layers.complete", (FAIL, OUTLIERS)),
    ("config has no length", "odd-csr", length(OFFSETS, None), "layers.complete", (FAIL, OFFSETS)),
    ("one layer dense", "odd-csr", dense("spqr", "odd-csr", LAYER), "layers.coverage", (FAIL, LAYER)),
    ("config lies about bits", "odd-csr", setting("bits", 4), "config.truthful", (FAIL, FIRST)),
    ("config removed", "odd-csr", no_config, "config.present", (FAIL, FIRST)),
    ("listed and quantized", "odd-csr", setting("modules_to_not_convert", ["lm_head", "q_proj"]), "layers.excluded",
     (FAIL, LAYER)),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_planted_fault_is_found_and_named(row: Row, tmp_path: Path):
    assert_found("spqr", row, tmp_path)
