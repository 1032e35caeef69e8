"""mxfp4: GPT-OSS's experts decoded as transformers decodes them, and faults planted in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from decoding import CHECKPOINTS, method_of, open_fixture, recognise
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
    swap,
    swap_nibbles,
    together,
    undeclared,
)
from models import Damaged, judge_files

from checker.checkpoint import Checkpoint, TensorHeader

DOWN, GATE = "model.layers.0.mlp.experts.down_proj", "model.layers.1.mlp.experts.gate_up_proj"
OTHER = "model.layers.1.mlp.experts.down_proj"


@pytest.mark.parametrize("name", ["modelopt", "torchao-floor"])
def test_decodes_as_transformers_does(name: str):
    assert_equals_library("mxfp4", name)


@pytest.mark.parametrize(
    ("name", "level"),
    [("modelopt", 0.9), ("torchao-floor", 1.04)],  # scales rounded up; rounded down, which clips (1.00 to 1.09)
)
def test_the_error_is_that_of_the_rounding_of_scales(name: str, level: float):
    assert_level("mxfp4", name, level)


def test_it_is_known_by_headers_alone():
    checkpoint, weights = open_fixture("mxfp4", "modelopt")
    assert {weight.dense: weight.shape for weight in recognise(method_of("mxfp4"), checkpoint)} == {
        name: weight.shape for name, weight in weights.items()
    }
    assert weights[DOWN].shape == (4, 96, 64)  # as in the model: experts, in, out


def another_shape(damaged: Damaged) -> None:
    damaged.tensors[f"{DOWN}_blocks"].shape = [4, 64, 48, 1]


def fewer_scales(damaged: Damaged) -> None:
    damaged.put(f"{DOWN}_scales", "U8", [4, 64, 2], bytes([118]) * 512)


FAULTS: dict[str, tuple[Fault, str, str]] = {
    "scales are lost": (drop(f"{DOWN}_scales"), "layers.complete", f"{DOWN}_scales"),
    "blocks are lost": (drop(f"{DOWN}_blocks"), "layers.complete", f"{DOWN}_blocks"),
    "scales of another dtype": (retype(f"{DOWN}_scales", "F32", 4), "layers.complete", f"{DOWN}_scales"),
    "blocks of another dtype": (retype(f"{DOWN}_blocks", "I8", 1), "dtypes.storage", f"{DOWN}_blocks"),
    "blocks of another shape": (another_shape, "layers.complete", f"{DOWN}_blocks"),
    "one scale too few for a row": (fewer_scales, "layers.complete", f"{DOWN}_scales"),
    "a scale of 255": (
        change(f"{DOWN}_scales", "u1", lambda array: array.reshape(-1).__setitem__(7, 255)),
        "weights.scales",
        DOWN,
    ),
    "scales of zero": (change(f"{DOWN}_scales", "u1", lambda array: array.fill(0)), "weights.error", DOWN),
    "scales one too high": (
        change(f"{GATE}_scales", "u1", lambda array: np.add(array, 1, out=array)),
        "weights.error",
        GATE,
    ),
    "scales of another row": (
        change(f"{GATE}_scales", "u1", lambda array: shift(array, 1)),
        "weights.error",
        GATE,
    ),
    "halves of bytes swapped": (change(f"{GATE}_blocks", "u1", swap_nibbles), "weights.error", GATE),
    "experts in another order": (
        together(
            change(f"{DOWN}_blocks", "u1", lambda array: shift(array, 0)),
            change(f"{DOWN}_scales", "u1", lambda array: shift(array, 0)),
        ),
        "weights.error",
        DOWN,
    ),
    "two layers swapped": (
        together(swap(f"{DOWN}_blocks", f"{OTHER}_blocks"), swap(f"{DOWN}_scales", f"{OTHER}_scales")),
        "weights.error",
        OTHER,
    ),
    "a layer left dense": (
        dense(DOWN, [4, 96, 64], f"{DOWN}_blocks", f"{DOWN}_scales"),
        "layers.coverage",
        DOWN,
    ),
    "experts on the skip list": (
        declare(modules_to_not_convert=["model.layers.0.mlp.experts", "lm_head"]),
        "layers.excluded",
        DOWN,
    ),
    "another method declared": (declare(quant_method="fp8"), "config.truthful", f"{DOWN}_blocks"),
    "the config is lost": (undeclared, "config.present", f"{DOWN}_blocks"),
    "a key misspelt": (
        declare(modules_to_not_converts=[]),
        "config.keys",
        "quantization_config.modules_to_not_converts",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_finds_faults(fault: str, tmp_path: Path):
    plant, check, where = FAULTS[fault]
    assert_finds(judge_fault("mxfp4", "modelopt", tmp_path, plant), check, where)


def test_without_a_baseline_the_values_are_not_compared():
    judged = judge_files(CHECKPOINTS / "mxfp4" / "modelopt")
    assert judged.results["weights.error"].skip_reason


@pytest.mark.parametrize("shape", [(), (4,), (4, 64, 3), (4, 64, 3, 15), (0, 64, 3, 16), (1 << 50, 0, 0, 16)])
def test_shapes_that_make_no_sense_are_reported_or_passed_over(shape: tuple[int, ...]):
    names = ("a.gate_up_proj_blocks", "a.gate_up_proj_scales", "_blocks", "b._scales")
    tensors = {name: TensorHeader(name, "U8", shape, 0, 0, "model.safetensors") for name in names}
    for config in (None, {"quant_method": "mxfp4"}):
        found = recognise(method_of("mxfp4"), Checkpoint(folder=Path(), tensors=tensors), config)
        assert all(weight.shape is None for weight in found)
