"""Faults planted in Quark's exports: the check that finds each, and the place that it names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from decoding import CHECKPOINTS, baseline_of
from models import Damaged, damage, judge_files, read_tensors

from checker.domain import Severity

LAYER = "model.layers.0.self_attn.q_proj"
ZERO = f"{LAYER}.weight_zero_point"
FIRST = "model.layers.0.mlp.down_proj.weight"
EXPERT = "model.layers.0.mlp.experts.0.down_proj.weight"
OTHER = "model.layers.1.self_attn.q_proj"
FAIL, WARN = Severity.FAIL, Severity.WARN
Fault = Callable[[Damaged], None]


def drop(part: str) -> Fault:
    def fault(file: Damaged) -> None:
        del file.tensors[f"{LAYER}.{part}"]

    return fault


def scale_as(dtype: str, size: int) -> Fault:
    def fault(file: Damaged) -> None:
        shape = file.tensors[f"{LAYER}.weight_scale"].shape
        file.put(f"{LAYER}.weight_scale", dtype, shape, bytes(size * int(np.prod(shape))))

    return fault


def set_scale(value: float) -> Fault:
    def fault(file: Damaged) -> None:
        bits = np.float32(value).view(np.uint32) >> 16
        file.tensors[f"{LAYER}.weight_scale"].view("<u2").reshape(-1)[:] = bits

    return fault


def largest_exponent(file: Damaged) -> None:
    file.tensors[f"{LAYER}.weight_scale"].view("u1")[0] = 255


def shift_scales(file: Damaged) -> None:
    scales = file.tensors[f"{LAYER}.weight_scale"].view("<u2")
    scales[:] = np.roll(scales, 1)


def zero_points(by: int) -> Fault:
    def fault(file: Damaged) -> None:
        zeros = file.tensors[f"{LAYER}.weight_zero_point"].view("u1")
        zeros += np.uint8(by)

    return fault


def swap_codes(file: Damaged) -> None:
    codes = file.tensors[f"{LAYER}.weight"].view("u1")
    codes[:] = codes >> 4 | codes << 4


def scramble(file: Damaged) -> None:
    codes = file.tensors[f"{LAYER}.weight"].view("u1")
    codes[:] = np.roll(codes, 7)


def swap_layers(file: Damaged) -> None:
    for part in ("weight", "weight_scale", "weight_zero_point"):
        if f"{LAYER}.{part}" in file.tensors:
            one, two = file.tensors[f"{LAYER}.{part}"], file.tensors[f"{OTHER}.{part}"]
            file.tensors[f"{LAYER}.{part}"], file.tensors[f"{OTHER}.{part}"] = two, one


def config(**changes: object) -> Fault:
    def fault(file: Damaged) -> None:
        file.quantization["global_quant_config"]["weight"].update(changes)

    return fault


def exclude(*names: str) -> Fault:
    def fault(file: Damaged) -> None:
        file.quantization["exclude"] = list(names)

    return fault


def no_config(file: Damaged) -> None:
    del file.config["quantization_config"]


def misspelt(file: Damaged) -> None:
    file.quantization["exclud"] = []


def one_dense(file: Damaged) -> None:
    dense, _ = read_tensors(baseline_of(CHECKPOINTS / "quark" / "odd-w8a8-int8") / "model.safetensors")
    for part in ("weight_scale", "weight_zero_point", "input_scale", "input_zero_point"):
        file.tensors.pop(f"{LAYER}.{part}", None)
    file.tensors[f"{LAYER}.weight"] = dense[f"{LAYER}.weight"]


ROWS: list[tuple[str, str, Fault, str, tuple[Severity, str]]] = [
    ("scale dropped", "odd-w8a8-int8", drop("weight_scale"), "layers.complete", (FAIL, f"{LAYER}.weight_scale")),
    ("scale dropped, fp8", "moe-fp8", drop("weight_scale"), "layers.complete", (FAIL, f"{LAYER}.weight_scale")),
    ("zero point lost", "odd-w8a8-int8", drop("weight_zero_point"), "layers.complete", (FAIL, ZERO)),
    ("second scale dropped", "moe-nvfp4", drop("weight_scale_2"), "layers.complete", (FAIL, f"{LAYER}.weight_scale_2")),
    ("weight dropped", "odd-w8a8-int8", drop("weight"), "layers.complete", (FAIL, f"{LAYER}.weight")),
    ("input scale dropped", "odd-w8a8-int8", drop("input_scale"), "config.truthful", (FAIL, f"{LAYER}.weight")),
    ("scale of another dtype", "odd-w8a8-int8", scale_as("I8", 1), "layers.complete", (FAIL, f"{LAYER}.weight_scale")),
    ("scales zero", "odd-w8a8-int8", set_scale(0), "weights.scales", (FAIL, LAYER)),
    ("scale zero, fp8", "moe-fp8", set_scale(0), "weights.scales", (FAIL, LAYER)),
    ("scales NaN", "odd-uint8-channel", set_scale(float("nan")), "weights.scales", (FAIL, LAYER)),
    ("scales infinite", "odd-fp8-channel", set_scale(float("inf")), "weights.scales", (FAIL, LAYER)),
    ("scale beyond float32", "moe-mxfp4", largest_exponent, "weights.scales", (FAIL, LAYER)),
    ("scales shifted, rows", "odd-fp8-channel", shift_scales, "weights.error", (FAIL, LAYER)),
    ("scales shifted, groups", "moe-int4-group", shift_scales, "weights.error", (FAIL, LAYER)),
    ("zero points off by one", "odd-uint8-channel", zero_points(1), "weights.error", (FAIL, LAYER)),
    ("nibbles swapped", "moe-uint4-group", swap_codes, "weights.error", (FAIL, LAYER)),
    ("nibbles swapped, mxfp4", "moe-mxfp4", swap_codes, "weights.error", (FAIL, LAYER)),
    ("codes moved", "odd-w8a8-int8", scramble, "weights.error", (FAIL, LAYER)),
    ("codes moved, six bits", "moe-mxfp6", scramble, "weights.error", (FAIL, LAYER)),
    ("layers swapped", "odd-fp8-channel", swap_layers, "weights.error", (FAIL, LAYER)),
    ("one layer dense", "odd-w8a8-int8", one_dense, "layers.coverage", (FAIL, LAYER)),
    ("config lies about bits", "odd-w8a8-int8", config(dtype="int4"), "config.truthful", (FAIL, FIRST)),
    ("config lies about the dtype", "odd-fp8-e5m2", config(dtype="fp8_e4m3"), "config.truthful", (FAIL, FIRST)),
    ("config lies about the group", "moe-int8-group", config(group_size=64), "config.truthful", (FAIL, EXPERT)),
    ("config lies about symmetry", "odd-uint8-channel", config(symmetric=True), "config.truthful", (FAIL, FIRST)),
    ("config removed", "odd-w8a8-int8", no_config, "config.present", (FAIL, FIRST)),
    ("key misspelt", "odd-w8a8-int8", misspelt, "config.keys", (FAIL, "quantization_config.exclud")),
    ("excluded and quantized", "odd-w8a8-int8", exclude("lm_head", "*q_proj"), "layers.excluded", (FAIL, LAYER)),
    ("entry matches nothing", "odd-w8a8-int8", exclude("lm_head", "q_proj"), "layers.excluded", (WARN, "q_proj")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fixture", "fault", "check", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_a_planted_fault_is_found_and_named(
    fixture: str, fault: Fault, check: str, expected: tuple[Severity, str], tmp_path: Path
):
    healthy = CHECKPOINTS / "quark" / fixture
    with damage(healthy, tmp_path / "damaged") as file:
        fault(file)
    judged = judge_files(tmp_path / "damaged", baseline_of(healthy))
    assert expected in {(item.severity, item.where) for item in judged.results[check].findings}, judged.text()
