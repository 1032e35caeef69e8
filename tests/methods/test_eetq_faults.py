"""Faults planted in EETQ checkpoints: the check that finds each, and the place that it names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from decoding import CHECKPOINTS, baseline_of
from layer_faults import FIRST, MODULE, Fault, declare, drop, fill, leave_dense, no_config, put, roll, swap_layers
from models import Damaged, damage, judge_files

from checker.domain import Severity


def unpermuted(file: Damaged) -> None:
    """Codes in plain order, as the shape suggests."""
    from checker.methods.eetq import restore

    stored = file.u8(f"{MODULE}.weight")
    plain = (restore(stored, 128).astype(np.int16) - 128).astype(np.int8)
    stored[:] = np.ascontiguousarray(plain.T).view(np.uint8).reshape(-1)


FAULTS: dict[str, tuple[str, Fault, str, str]] = {
    "no scales": ("int8", drop("weight_scales"), "layers.complete", f"{MODULE}.weight_scales"),
    "no codes": ("int8", drop("weight"), "layers.complete", f"{MODULE}.weight"),
    "scales of another dtype": (
        "int8",
        put("weight_scales", "F32", [128], 512),
        "layers.complete",
        f"{MODULE}.weight_scales",
    ),
    "scales of another shape": (
        "int8",
        put("weight_scales", "F16", [64], 128),
        "layers.complete",
        f"{MODULE}.weight_scales",
    ),
    "codes of another dtype": (
        "int8",
        put("weight", "U8", [128, 128], 128 * 128),
        "dtypes.storage",
        f"{MODULE}.weight",
    ),
    "a width that EETQ refuses": (
        "int8",
        put("weight", "I8", [96, 128], 96 * 128),
        "layers.complete",
        f"{MODULE}.weight",
    ),
    "scales zero": ("int8", fill("weight_scales", "<f2", 0), "weights.scales", MODULE),
    "scales NaN": ("int8", fill("weight_scales", "<f2", np.nan), "weights.scales", MODULE),
    "scales negative": ("int8", fill("weight_scales", "<f2", -1e-3), "weights.scales", MODULE),
    "scales shifted by an output": ("int8", roll("weight_scales", "<f2"), "weights.error", MODULE),
    "codes not permuted": ("int8", unpermuted, "weights.error", MODULE),
    "codes rolled by a byte": ("int8", roll("weight", "u1"), "weights.error", MODULE),
    "layers swapped": ("int8", swap_layers("weight", "weight_scales"), "weights.error", MODULE),
    "a layer left dense": ("int8", leave_dense, "layers.coverage", MODULE),
    "a skipped module quantized": (
        "int8",
        declare(modules_to_not_convert=["lm_head", "q_proj"]),
        "layers.excluded",
        MODULE,
    ),
    "no config": ("int8", no_config, "config.present", f"{FIRST}.weight"),
    "another width declared": ("int8", declare(weights="int4"), "config.keys", "quantization_config.weights"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_fault_is_found_and_named(tmp_path: Path, fault: str):
    variant, plant, check, where = FAULTS[fault]
    healthy = CHECKPOINTS / "eetq" / variant
    with damage(healthy, tmp_path / "damaged") as file:
        plant(file)
    judged = judge_files(tmp_path / "damaged", baseline_of(healthy))
    found = {(item.where, item.severity) for item in judged.results[check].findings}
    assert (where, Severity.FAIL) in found, judged.text()
