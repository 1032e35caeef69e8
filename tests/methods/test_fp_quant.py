"""fp_quant: real and pseudo-quantized weights decoded to what the kernels gave, and faults planted in both."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from decoding import CHECKPOINTS, baseline_of, fixtures_of, method_of, open_fixture, recognise
from float_formats import (
    Fault,
    assert_equals_library,
    assert_finds,
    assert_level,
    change,
    declare,
    dense,
    drop,
    judge_fault,
    retype,
    shift,
    swap_nibbles,
    undeclared,
)
from models import judge_files

from checker.methods._float_numbers import transform_of

Q, UP, FIRST = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj", "model.layers.0.mlp.down_proj"
NESTED = "language_model.model.layers.0.self_attn.q_proj"
PARTS = (
    "scales",
    "weight_global_scale",
    "act_global_scale",
    "forward_hadamard_matrix",
    "backward_hadamard_matrix",
)
PACKED = [name for name in fixtures_of("fp_quant") if name != "master-weights"]


@pytest.mark.parametrize("name", PACKED)
def test_decodes_to_what_the_kernels_gave(name: str):
    assert_equals_library("fp_quant", name)


@pytest.mark.parametrize(
    ("name", "level"),
    [("nvfp4-identity", 0.74), ("pseudo-mxfp4-identity", 1.0)],  # NVFP4 0.687 to 0.751; MXFP4 rounded down 1.00 to 1.09
)
def test_the_error_is_that_of_the_format(name: str, level: float):
    assert_level("fp_quant", name, level)


@pytest.mark.parametrize("name", ["mxfp4", "pseudo-nvfp4", "pseudo-mxfp4-gsr"])
def test_rotated_weights_are_not_compared(name: str):
    folder = CHECKPOINTS / "fp_quant" / name
    judged = judge_files(folder, baseline_of(folder))
    assert "rotated" in (judged.results["weights.error"].skip_reason or "")


@pytest.mark.parametrize(
    ("name", "transform"),
    [
        ("mxfp4", "hadamard"),
        ("nvfp4-identity", "identity"),
        ("pseudo-nvfp4", "hadamard"),
        ("pseudo-mxfp4-gsr", "gsr"),
        ("pseudo-mxfp4-identity", "identity"),
    ],
)
def test_the_transform_is_told_by_its_matrix(name: str, transform: str):
    _, weights = open_fixture("fp_quant", name)
    assert {weight.attributes["transform_init"] for weight in weights.values()} == {transform}


def test_any_other_matrix_is_none_of_them():
    assert transform_of(np.full((16, 16), 0.25, np.float32)) == "other"
    assert transform_of(np.full((16, 16), np.nan, np.float32)) == "other"


def test_it_is_known_by_headers_alone():
    for name in PACKED:
        checkpoint, weights = open_fixture("fp_quant", name)
        assert {weight.dense for weight in recognise(method_of("fp_quant"), checkpoint)} == set(weights)


def test_master_weights_pack_nothing_and_that_is_said():
    folder = CHECKPOINTS / "fp_quant" / "master-weights"
    judged = judge_files(folder, baseline_of(folder))
    assert "store_master_weights" in judged.results["config.present"].findings[0].message


def noise(array: np.ndarray) -> None:
    array[...] = np.random.default_rng(0).normal(0, 0.02, array.shape).astype(ml_dtypes.bfloat16).view("<u2")


def no_rotation(array: np.ndarray) -> None:
    array[...] = np.eye(len(array)).astype(ml_dtypes.bfloat16).view("<u2")


FAULTS: dict[str, tuple[str, Fault, str, str]] = {
    "scales are lost": ("mxfp4", drop(f"{Q}.scales"), "layers.complete", f"{Q}.scales"),
    "codes are lost": ("mxfp4", drop(f"{Q}.qweight"), "layers.complete", f"{Q}.qweight"),
    "the global scale is lost": (
        "mxfp4",
        drop(f"{Q}.weight_global_scale"),
        "layers.complete",
        f"{Q}.weight_global_scale",
    ),
    "the transform is lost": (
        "mxfp4",
        drop(f"{Q}.forward_hadamard_matrix"),
        "layers.complete",
        f"{Q}.forward_hadamard_matrix",
    ),
    "scales of another dtype": ("mxfp4", retype(f"{Q}.scales", "F32", 4), "layers.complete", f"{Q}.scales"),
    "codes of another dtype": ("mxfp4", retype(f"{Q}.qweight", "I8", 1), "dtypes.storage", f"{Q}.qweight"),
    "a scale of 255": (
        "mxfp4",
        change(f"{Q}.scales", "u1", lambda array: array.reshape(-1).__setitem__(3, 255)),
        "weights.scales",
        Q,
    ),
    "scales that are NaN": (
        "nvfp4-identity",
        change(f"{Q}.scales", "u1", lambda array: array.reshape(-1).__setitem__(3, 0x7F)),
        "weights.scales",
        Q,
    ),
    "a global scale of zero": (
        "nvfp4-identity",
        change(f"{Q}.weight_global_scale", "<u2", lambda array: array.fill(0)),
        "weights.scales",
        Q,
    ),
    "scales of another block": ("nvfp4-identity", change(f"{Q}.scales", "u1", shift), "weights.error", Q),
    "halves of bytes swapped": ("nvfp4-identity", change(f"{Q}.qweight", "u1", swap_nibbles), "weights.error", Q),
    "another transform declared": (
        "mxfp4",
        declare(transform_init="identity"),
        "config.truthful",
        f"{FIRST}.qweight",
    ),
    "the transform of one layer changed": (
        "mxfp4",
        change(f"{Q}.forward_hadamard_matrix", "<u2", no_rotation),
        "config.truthful",
        f"{Q}.qweight",
    ),
    "another type declared": (
        "mxfp4",
        declare(forward_dtype="nvfp4"),
        "config.truthful",
        f"{FIRST}.qweight",
    ),
    "pseudo-quantization declared": (
        "mxfp4",
        declare(pseudoquantization=True),
        "config.truthful",
        f"{FIRST}.qweight",
    ),
    "pseudo-quantization not declared": (
        "pseudo-nvfp4",
        declare(pseudoquantization=False),
        "config.truthful",
        f"language_model.{FIRST}.dqweight",
    ),
    "pseudo-quantized values that are none": (
        "pseudo-nvfp4",
        change(f"{NESTED}.dqweight", "<u2", noise),
        "weights.codes",
        NESTED,
    ),
    "pseudo-quantized values of another row": (
        "pseudo-mxfp4-identity",
        change(f"{NESTED}.dqweight", "<u2", lambda array: shift(array, 0)),
        "weights.error",
        NESTED,
    ),
    "a layer left dense": (
        "mxfp4",
        dense(f"{UP}.weight", [256, 128], f"{UP}.qweight", *(f"{UP}.{part}" for part in PARTS)),
        "layers.coverage",
        UP,
    ),
    "a skipped layer is quantized": (
        "mxfp4",
        declare(modules_to_not_convert=["lm_head", "q_proj"]),
        "layers.excluded",
        Q,
    ),
    "the config is lost": ("mxfp4", undeclared, "config.present", f"{FIRST}.qweight"),
    "a key misspelt": ("mxfp4", declare(forward_type="mxfp4"), "config.keys", "quantization_config.forward_type"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_finds_faults(fault: str, tmp_path: Path):
    name, plant, check, where = FAULTS[fault]
    assert_finds(judge_fault("fp_quant", name, tmp_path, plant), check, where)
