"""Faults planted in BitNet checkpoints: the check that finds each, and the place that it names."""

from __future__ import annotations

from pathlib import Path

import pytest
from decoding import CHECKPOINTS, baseline_of
from layer_faults import FIRST, MODULE, Fault, declare, drop, fill, leave_dense, no_config, put, roll, swap_layers
from models import Damaged, damage, judge_files

from checker.domain import Severity


def planes_reversed(file: Damaged) -> None:
    codes = file.u8(f"{MODULE}.weight")
    codes[:] = codes >> 6 | (codes >> 2 & 12) | (codes << 2 & 48) | codes << 6


FAULTS: dict[str, tuple[str, Fault, str, str]] = {
    "no scale": ("bitlinear", drop("weight_scale"), "layers.complete", f"{MODULE}.weight_scale"),
    "scale of another dtype": (
        "bitlinear",
        put("weight_scale", "F16", [1], 2),
        "layers.complete",
        f"{MODULE}.weight_scale",
    ),
    "scale for each row": (
        "bitlinear",
        put("weight_scale", "BF16", [128], 256),
        "layers.complete",
        f"{MODULE}.weight_scale",
    ),
    "no norm": ("rms-norm", drop("rms_norm.weight"), "layers.complete", f"{MODULE}.rms_norm.weight"),
    "rows cut off": ("odd", put("weight", "U8", [12, 96], 12 * 96), "layers.complete", f"{MODULE}.weight"),
    "scale zero": ("autobitlinear", fill("weight_scale", "<u2", 0), "weights.scales", MODULE),
    "scale zero that divides": ("bitlinear", fill("weight_scale", "<u2", 0), "weights.scales", MODULE),
    "scale NaN": ("bitlinear", fill("weight_scale", "<u2", 0x7FC0), "weights.scales", MODULE),
    "scale four times as large": ("autobitlinear", fill("weight_scale", "<u2", 0x3DFF), "weights.error", MODULE),
    "codes that stand for nothing": ("bitlinear", fill("weight", "u1", 255), "weights.codes", MODULE),
    "planes in reverse order": ("bitlinear", planes_reversed, "weights.error", MODULE),
    "codes rolled by a byte": ("bitlinear", roll("weight", "u1"), "weights.error", MODULE),
    "layers swapped": ("bitlinear", swap_layers("weight", "weight_scale"), "weights.error", MODULE),
    "the other sense of the scale": (
        "bitlinear",
        declare(linear_class="autobitlinear"),
        "weights.error",
        MODULE,
    ),
    "a layer left dense": ("bitlinear", leave_dense, "layers.coverage", MODULE),
    "online declared over packed weights": (
        "bitlinear",
        declare(linear_class="autobitlinear", quantization_mode="online"),
        "layers.excluded",
        MODULE,
    ),
    "a skipped module quantized": (
        "bitlinear",
        declare(modules_to_not_convert=["lm_head", "q_proj"]),
        "layers.excluded",
        MODULE,
    ),
    "no config": ("bitlinear", no_config, "config.present", f"{FIRST}.weight"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_fault_is_found_and_named(tmp_path: Path, fault: str):
    variant, plant, check, where = FAULTS[fault]
    healthy = CHECKPOINTS / "bitnet" / variant
    with damage(healthy, tmp_path / "damaged") as file:
        plant(file)
    judged = judge_files(tmp_path / "damaged", baseline_of(healthy))
    found = {(item.where, item.severity) for item in judged.results[check].findings}
    assert (where, Severity.FAIL) in found, judged.text()
