"""Faults planted in HQQ checkpoints: the check that finds each, and the place that it names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from decoding import CHECKPOINTS, baseline_of
from layer_faults import FIRST, MODULE, Fault, declare, drop, fill, leave_dense, no_config, put, roll, swap_layers
from models import Damaged, damage, judge_files

from checker.domain import Severity


def number(part: str, value: int) -> Fault:
    return fill(part, "<i4", value)


def text(part: str, value: str) -> Fault:
    def fault(file: Damaged) -> None:
        file.put(f"{MODULE}.{part}", "U8", [len(value)], value.encode())

    return fault


def shape(*sizes: int) -> Fault:
    def fault(file: Damaged) -> None:
        file.tensors[f"{MODULE}.shape"].view("<i8")[:] = sizes

    return fault


def nibbles_swapped(file: Damaged) -> None:
    codes = file.u8(f"{MODULE}.W_q")
    codes[:] = codes >> 4 | codes << 4


def zeros_off_by_one(file: Damaged) -> None:
    zeros = file.tensors[f"{MODULE}.zero"].view("<f2")
    zeros += np.float16(1)


def settings(**changes: object) -> Fault:
    def fault(file: Damaged) -> None:
        file.quantization["quant_config"]["weight_quant_params"].update(changes)

    return fault


def forget_a_kind(file: Damaged) -> None:
    del file.quantization["quant_config"]["self_attn.q_proj"]


W_Q = f"{MODULE}.W_q"
FAULTS: dict[str, tuple[str, Fault, str, str]] = {
    "no scale": ("w4-g64", drop("scale"), "layers.complete", f"{MODULE}.scale"),
    "no zero": ("w4-g64", drop("zero"), "layers.complete", f"{MODULE}.zero"),
    "no codes": ("w4-g64", drop("W_q"), "layers.complete", W_Q),
    "no packing": ("w4-g64", drop("packing"), "layers.complete", f"{MODULE}.packing"),
    "scales of another dtype": ("w4-g64", put("scale", "F32", [256, 1], 1024), "layers.complete", f"{MODULE}.scale"),
    "codes cut short": ("w4-g64", put("W_q", "U8", [64, 64], 4096), "dtypes.storage", W_Q),
    "group size zero": ("w4-g64", number("group_size", 0), "layers.complete", f"{MODULE}.group_size"),
    "group size of no divisor": ("w4-g64", number("group_size", 7), "layers.complete", f"{MODULE}.group_size"),
    "another group size": ("w4-g64", number("group_size", 128), "config.truthful", W_Q),
    "seven bits": ("w4-g64", number("nbits", 7), "layers.complete", f"{MODULE}.nbits"),
    "axis two": ("w4-g64", number("axis", 2), "layers.complete", f"{MODULE}.axis"),
    "a negative shape": ("w4-g64", shape(-128, 128), "layers.complete", f"{MODULE}.shape"),
    "an enormous shape": ("w4-g64", shape(1 << 40, 1 << 40), "layers.complete", f"{MODULE}.shape"),
    "code in place of a dtype": (
        "w4-g64",
        text("compute_dtype", "exit()"),
        "layers.complete",
        f"{MODULE}.compute_dtype",
    ),
    "a packing for other bits": ("w4-g64", text("packing", "2bit_u8"), "layers.complete", f"{MODULE}.packing"),
    "scales zero": ("w8-g64", fill("scale", "<f2", 0), "weights.scales", MODULE),
    "scales NaN": ("w8-g64", fill("scale", "<f2", np.nan), "weights.scales", MODULE),
    "zeros infinite": ("w8-g64", fill("zero", "<f2", np.inf), "weights.scales", MODULE),
    "scales shifted by a group": ("w4-g64", roll("scale", "<u2"), "weights.error", MODULE),
    "zeros off by one": ("w4-g64-axis0", zeros_off_by_one, "weights.error", MODULE),
    "halves of the rows swapped": ("w4-g64", nibbles_swapped, "weights.error", MODULE),
    "words rolled": ("w3-g64", roll("W_q", "<u4"), "weights.error", MODULE),
    "layers swapped": ("w4-g64", swap_layers("W_q", "scale", "zero"), "weights.error", MODULE),
    "a layer left dense": ("w4-g64", leave_dense, "layers.coverage", MODULE),
    "other bits declared": ("w4-g64", settings(nbits=3), "config.truthful", f"{FIRST}.W_q"),
    "another axis declared": ("w4-g64", settings(axis=0), "config.truthful", f"{FIRST}.W_q"),
    "a kind forgotten": ("dynamic", forget_a_kind, "layers.excluded", MODULE),
    "a skipped module quantized": ("w4-g64", declare(skip_modules=["lm_head", "q_proj"]), "layers.excluded", MODULE),
    "no config": ("w4-g64", no_config, "config.present", f"{FIRST}.W_q"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_fault_is_found_and_named(tmp_path: Path, fault: str):
    variant, plant, check, where = FAULTS[fault]
    healthy = CHECKPOINTS / "hqq" / variant
    with damage(healthy, tmp_path / "damaged") as file:
        plant(file)
    judged = judge_files(tmp_path / "damaged", baseline_of(healthy))
    found = {(item.where, item.severity) for item in judged.results[check].findings}
    assert (where, Severity.FAIL) in found, judged.text()
