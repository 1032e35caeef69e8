"""Faults planted in fp8 and mxfp8 checkpoints, each found by the right check at the right tensor."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from decoding import CHECKPOINTS, baseline_of
from float_formats import (
    Fault,
    assert_finds,
    change,
    declare,
    dense,
    drop,
    judge_fault,
    retype,
    shift,
    swap,
    swap_nibbles,
    together,
    undeclared,
)
from models import Damaged, Stored, judge_files

from checker.domain import Outcome

Q, K, UP, DOWN = (
    f"model.layers.{name}" for name in ("0.self_attn.q_proj", "1.self_attn.k_proj", "0.mlp.up_proj", "1.mlp.down_proj")
)
EXPERT = "model.layers.1.mlp.experts.2.down_proj"
FUSED = "model.layers.0.mlp.experts.gate_up_proj"
SCALE = "weight_scale_inv"


def scaled(name: str, factor: float) -> Fault:
    return change(name, "<f4", lambda array: np.multiply(array, np.float32(factor), out=array))


def set_to(name: str, dtype: str, value: float, count: int = 1) -> Fault:
    return change(name, dtype, lambda array: array.reshape(-1).__setitem__(slice(0, count), value))


def as_transformers_saves_a_mixture(damaged: Damaged) -> None:
    """Experts one by one, their scales still fused: what save_pretrained of 5.23 makes, and cannot read again."""
    for layer in (0, 1):
        prefix = f"model.layers.{layer}.mlp.experts"
        for name, parts in (("gate_up_proj", ("gate_proj", "up_proj")), ("down_proj", ("down_proj",))):
            taken = [damaged.tensors.pop(f"{prefix}.{e}.{part}.{SCALE}") for e in range(4) for part in parts]
            rows = taken[0].shape[0] * len(parts)
            data = bytearray(b"".join(item.data for item in taken))
            damaged.tensors[f"{prefix}.{name}_scale_inv"] = Stored("F32", [4, rows, taken[0].shape[1]], data)


def without_activation_scales(damaged: Damaged) -> None:
    for name in [name for name in damaged.tensors if name.endswith(".activation_scale")]:
        del damaged.tensors[name]


def short_scale(damaged: Damaged) -> None:
    damaged.put(f"{DOWN}.{SCALE}", "F32", [3, 4], b"\0\0\x80\x3c" * 12)


def nan_codes(array: np.ndarray) -> None:
    array.reshape(-1)[5:9] = 0x7F


FAULTS: dict[str, tuple[str, Fault, str, str]] = {
    "a scale is lost": ("block-32x64", drop(f"{Q}.{SCALE}"), "layers.complete", f"{Q}.{SCALE}"),
    "a weight is lost": ("block-32x64", drop(f"{Q}.weight"), "layers.complete", f"{Q}.weight"),
    "a scale of another dtype": ("block-32x64", retype(f"{K}.{SCALE}", "F16", 2), "layers.complete", f"{K}.{SCALE}"),
    "a row of scales short": ("block-32x64", short_scale, "layers.complete", f"{DOWN}.{SCALE}"),
    "a weight of another dtype": (
        "block-32x64",
        retype(f"{UP}.weight", "F8_E5M2", 1),
        "dtypes.storage",
        f"{UP}.weight",
    ),
    "scales of zero": ("block-32x64", scaled(f"{UP}.{SCALE}", 0), "weights.scales", UP),
    "a scale of NaN": ("block-32x64", set_to(f"{UP}.{SCALE}", "<f4", np.nan), "weights.scales", UP),
    "a negative scale": ("block-32x64", scaled(f"{UP}.{SCALE}", -1), "weights.scales", UP),
    "scales of another block": ("block-32x64", change(f"{UP}.{SCALE}", "<f4", shift), "weights.error", UP),
    "scales 5 % too large": ("block-128", scaled(f"{UP}.{SCALE}", 1.05), "weights.error", UP),
    "codes in another order": ("odd-partial", change(f"{Q}.weight", "u1", shift), "weights.error", Q),
    "codes that are NaN": ("block-32x64", change(f"{UP}.weight", "u1", nan_codes), "weights.codes", UP),
    "two layers swapped": (
        "block-128",
        together(
            swap(f"{Q}.weight", "model.layers.1.self_attn.q_proj.weight"),
            swap(f"{Q}.{SCALE}", f"model.layers.1.self_attn.q_proj.{SCALE}"),
        ),
        "weights.error",
        Q,
    ),
    "a layer left dense": (
        "block-32x64",
        dense(f"{UP}.weight", [256, 128], f"{UP}.{SCALE}"),
        "layers.coverage",
        UP,
    ),
    "a layer left dense beside a scale": ("block-32x64", dense(f"{K}.weight", [64, 128]), "layers.coverage", K),
    "another block size declared": (
        "block-32x64",
        declare(weight_block_size=[128, 128]),
        "config.truthful",
        "model.layers.0.mlp.down_proj.weight",
    ),
    "experts in fp4 not declared": (
        "fp4-experts",
        declare(expert_dtype="fp8"),
        "config.truthful",
        "model.layers.0.mlp.experts.0.down_proj.weight",
    ),
    "halves of fp4 bytes swapped": (
        "fp4-experts",
        change(f"{EXPERT}.weight", "u1", swap_nibbles),
        "weights.error",
        EXPERT,
    ),
    "a scale of an expert is lost": ("moe-separate", drop(f"{EXPERT}.{SCALE}"), "layers.complete", f"{EXPERT}.{SCALE}"),
    "experts as transformers saves them": (
        "moe-separate",
        as_transformers_saves_a_mixture,
        "layers.complete",
        f"{EXPERT}.{SCALE}",
    ),
    "scales of another expert": (
        "moe-fused",
        change(f"{FUSED}_scale_inv", "<f4", lambda array: shift(array, 0)),
        "weights.error",
        FUSED,
    ),
    "fused experts without scales": (
        "moe-fused",
        drop(f"{FUSED}_scale_inv"),
        "layers.complete",
        f"{FUSED}_scale_inv",
    ),
    "fused experts left dense": (
        "moe-fused",
        dense(FUSED, [4, 128, 64], f"{FUSED}_scale_inv"),
        "layers.coverage",
        FUSED,
    ),
    "an activation scale is lost": (
        "tensor-static",
        drop(f"{Q}.activation_scale"),
        "layers.complete",
        f"{Q}.activation_scale",
    ),
    "static activations, and no scales": (
        "tensor-static",
        without_activation_scales,
        "config.truthful",
        "model.layers.0.mlp.down_proj.weight",
    ),
    "the config is lost": (
        "block-32x64",
        undeclared,
        "config.present",
        "model.layers.0.mlp.down_proj.weight",
    ),
    "a skipped layer is quantized": (
        "skip-list",
        declare(modules_to_not_convert=["model.layers.0.self_attn.q_proj", "up_proj", "o_proj", "lm_head"]),
        "layers.excluded",
        Q,
    ),
    "a key misspelt": (
        "block-32x64",
        declare(weight_block_sizes=[32, 64]),
        "config.keys",
        "quantization_config.weight_block_sizes",
    ),
}

BYTE_FAULTS: dict[str, tuple[str, Fault, str, str]] = {
    "exponents are lost": ("bytes", drop(f"{Q}.{SCALE}"), "layers.complete", f"{Q}.{SCALE}"),
    "exponents of another dtype": ("bytes", retype(f"{Q}.{SCALE}", "F32", 4), "layers.complete", f"{Q}.{SCALE}"),
    "an exponent of 255": ("bytes", set_to(f"{UP}.{SCALE}", "u1", 255), "weights.scales", UP),
    "exponents of zero": ("bytes", set_to(f"{UP}.{SCALE}", "u1", 0, 1024), "weights.error", UP),
    "exponents of another group": ("e8m0", change(f"{UP}.{SCALE}", "u1", shift), "weights.error", UP),
    "exponents one too high": (
        "e8m0",
        change(f"{Q}.{SCALE}", "u1", lambda array: np.add(array, 1, out=array)),
        "weights.error",
        Q,
    ),
    "codes in another order": ("bytes", change(f"{Q}.weight", "u1", shift), "weights.error", Q),
    "a weight of another dtype": ("bytes", retype(f"{Q}.weight", "U8", 1), "dtypes.storage", f"{Q}.weight"),
    "a layer left dense": ("bytes", dense(f"{UP}.weight", [256, 128], f"{UP}.{SCALE}"), "layers.coverage", UP),
    "bytes taken for factors": ("bytes", declare(scale_fmt="float"), "layers.complete", f"{Q}.{SCALE}"),
    "scale_fmt left out": ("bytes", declare(scale_fmt=None), "config.keys", "quantization_config.scale_fmt"),
    "the block size left out": (
        "bytes",
        declare(weight_block_size=None),
        "config.keys",
        "quantization_config.weight_block_size",
    ),
    "another method declared": (
        "bytes",
        declare(quant_method="fp8", weight_block_size=[128, 128]),
        "config.truthful",
        "model.layers.0.mlp.down_proj.weight",
    ),
    "the config is lost": ("bytes", undeclared, "config.present", "model.layers.0.mlp.down_proj.weight"),
    "an expert left dense": (
        "moe-bytes",
        dense(f"{EXPERT}.weight", [64, 64], f"{EXPERT}.{SCALE}"),
        "layers.coverage",
        EXPERT,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_finds_faults_of_fp8(fault: str, tmp_path: Path):
    name, plant, check, where = FAULTS[fault]
    assert_finds(judge_fault("fp8", name, tmp_path, plant), check, where)


@pytest.mark.parametrize("fault", BYTE_FAULTS)
def test_finds_faults_of_mxfp8(fault: str, tmp_path: Path):
    name, plant, check, where = BYTE_FAULTS[fault]
    assert_finds(judge_fault("mxfp8", name, tmp_path, plant), check, where)


def test_scales_may_be_stored_as_whichever_float_the_whole_file_uses(tmp_path: Path):
    """One layer with another dtype than the others is a fault; a file that uses bfloat16 throughout is none."""
    values = np.full([4, 2], 0.01, ml_dtypes.bfloat16)

    def one(damaged: Damaged) -> None:
        damaged.put(f"{Q}.{SCALE}", "BF16", [4, 2], values.tobytes())

    assert_finds(judge_fault("fp8", "block-32x64", tmp_path, one), "layers.complete", f"{Q}.{SCALE}")
    healthy = CHECKPOINTS / "fp8" / "bfloat16-scales"
    assert not judge_files(healthy, baseline_of(healthy)).ids(Outcome.FAIL)
