"""Faults planted in BitNet checkpoints: the check that finds each, and the place that it names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from decoding import CHECKPOINTS, baseline_of
from models import Damaged, damage, judge_files, read_tensors

from checker.domain import Severity

MODULE = "model.layers.0.self_attn.q_proj"
OTHER = "model.layers.1.self_attn.q_proj"
FIRST = "model.layers.0.mlp.down_proj"  # stands for all weights in a finding about the config
Fault = Callable[[Damaged], None]


def drop(part: str) -> Fault:
    def fault(file: Damaged) -> None:
        del file.tensors[f"{MODULE}.{part}"]

    return fault


def put(part: str, dtype: str, shape: list[int], size: int) -> Fault:
    def fault(file: Damaged) -> None:
        file.put(f"{MODULE}.{part}", dtype, shape, bytes(size))

    return fault


def fill(part: str, kind: str, value: float) -> Fault:
    def fault(file: Damaged) -> None:
        file.tensors[f"{MODULE}.{part}"].view(kind)[:] = value

    return fault


def roll(part: str, kind: str, by: int = 1) -> Fault:
    def fault(file: Damaged) -> None:
        values = file.tensors[f"{MODULE}.{part}"].view(kind)
        values[:] = np.roll(values, by)

    return fault


def swap_layers(*parts: str) -> Fault:
    def fault(file: Damaged) -> None:
        for part in parts:
            one, two = f"{MODULE}.{part}", f"{OTHER}.{part}"
            file.tensors[one], file.tensors[two] = file.tensors[two], file.tensors[one]

    return fault


def leave_dense(file: Damaged) -> None:
    tensors, _ = read_tensors(baseline_of(CHECKPOINTS / "bitnet" / "bitlinear") / "model.safetensors")
    for name in [name for name in file.tensors if name.startswith(f"{MODULE}.")]:
        del file.tensors[name]
    file.tensors[f"{MODULE}.weight"] = tensors[f"{MODULE}.weight"]


def declare(**changes: object) -> Fault:
    def fault(file: Damaged) -> None:
        file.quantization.update(changes)

    return fault


def no_config(file: Damaged) -> None:
    del file.config["quantization_config"]


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
