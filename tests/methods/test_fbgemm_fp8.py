"""fbgemm_fp8: rows decoded as the library multiplies them, and faults planted in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from decoding import decode, fixtures_of, method_of, open_fixture, recognise
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
    together,
    undeclared,
)
from models import Stored, write_tensors

from checker.checkpoint import Checkpoint, TensorHeader, open_checkpoint

Q, K, UP = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.k_proj", "model.layers.0.mlp.up_proj"
FIRST = "model.layers.0.mlp.down_proj.weight"


@pytest.mark.parametrize("name", fixtures_of("fbgemm_fp8"))
def test_decodes_as_the_product_does(name: str):
    assert_equals_library("fbgemm_fp8", name)


@pytest.mark.parametrize("name", fixtures_of("fbgemm_fp8"))
def test_the_error_is_that_of_8_bit_floats(name: str):
    assert_level("fbgemm_fp8", name, 0.99)


def test_its_layers_are_also_those_of_compressed_tensors():
    """Without a config nothing tells the two apart, so that only one claims them."""
    checkpoint, weights = open_fixture("fbgemm_fp8", "default")
    assert recognise(method_of("fbgemm_fp8"), checkpoint) == ()
    assert len(recognise(method_of("compressed-tensors"), checkpoint)) == len(weights)


def test_experts_of_llama_4_have_a_scale_for_each_column(tmp_path: Path):
    """Quantized here as ``FbgemmFp8Quantize`` does: transposed, by rows, and transposed back."""
    import ml_dtypes

    rng = np.random.default_rng(1)
    tensors, dense_values = {}, {}
    for name, shape, turned in (("gate_up_proj", (3, 16, 40), (3, 1, 40)), ("down_proj", (3, 20, 16), (3, 16, 1))):
        values = rng.normal(0, 0.02, shape).astype(np.float32)
        scale = np.abs(values).max(axis=1) / np.float32(448)
        codes = (values / scale[:, None, :]).astype(ml_dtypes.float8_e4m3fn)
        full = f"model.layers.0.feed_forward.experts.{name}"
        tensors[full] = Stored("F8_E4M3", list(shape), bytearray(codes.tobytes()))
        tensors[f"{full}_scale"] = Stored("F32", list(turned), bytearray(scale.astype(np.float32).tobytes()))
        dense_values[full] = codes.astype(np.float32) * scale[:, None, :]
    write_tensors(tmp_path / "model.safetensors", tensors, {"format": "pt"})
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "fbgemm_fp8"}}')
    checkpoint = open_checkpoint(tmp_path)
    method = method_of("fbgemm_fp8")
    weights = recognise(method, checkpoint, {"quant_method": "fbgemm_fp8"})
    assert {weight.weight for weight in weights} == set(dense_values)
    for weight in weights:
        np.testing.assert_array_equal(decode(method, checkpoint, weight), dense_values[weight.weight])
        assert weight.expected[1].shape == checkpoint.tensors[weight.expected[1].name].shape


FAULTS: dict[str, tuple[str, Fault, str, str]] = {
    "a scale is lost": ("default", drop(f"{Q}.weight_scale"), "layers.complete", f"{Q}.weight_scale"),
    "a weight is lost": ("default", drop(f"{Q}.weight"), "layers.complete", f"{Q}.weight"),
    "a scale of another dtype": (
        "default",
        retype(f"{Q}.weight_scale", "F16", 2),
        "layers.complete",
        f"{Q}.weight_scale",
    ),
    "a weight of another dtype": ("default", retype(f"{Q}.weight", "F8_E5M2", 1), "dtypes.storage", f"{Q}.weight"),
    "scales of zero": (
        "default",
        change(f"{UP}.weight_scale", "<f4", lambda array: array.fill(0)),
        "weights.scales",
        UP,
    ),
    "a scale of NaN": (
        "default",
        change(f"{UP}.weight_scale", "<f4", lambda array: array.reshape(-1).__setitem__(3, np.nan)),
        "weights.scales",
        UP,
    ),
    "scales of the next row": (
        "default",
        change(f"{UP}.weight_scale", "<f4", lambda array: shift(array, 0)),
        "weights.error",
        UP,
    ),
    "codes of the next row": ("odd", change(f"{Q}.weight", "u1", lambda array: shift(array, 0)), "weights.error", Q),
    "codes that are NaN": (
        "default",
        change(f"{Q}.weight", "u1", lambda array: array.reshape(-1).__setitem__(slice(0, 5), 0xFF)),
        "weights.codes",
        Q,
    ),
    "two layers swapped": (
        "default",
        together(
            swap(f"{K}.weight", "model.layers.0.self_attn.k_proj.weight"),
            swap(f"{K}.weight_scale", "model.layers.0.self_attn.k_proj.weight_scale"),
        ),
        "weights.error",
        K,
    ),
    "a layer left dense": (
        "default",
        dense(f"{UP}.weight", [256, 128], f"{UP}.weight_scale"),
        "layers.coverage",
        UP,
    ),
    "a skipped tower is quantized": (
        "llava",
        declare(modules_to_not_convert=["model.vision_tower", "model.multi_modal_projector", "q_proj", "lm_head"]),
        "layers.excluded",
        "language_model.model.layers.0.self_attn.q_proj",
    ),
    "another method declared": ("default", declare(quant_method="mxfp4"), "config.truthful", FIRST),
    "the config is lost": ("default", undeclared, "config.present", FIRST),
    "a key misspelt": (
        "default",
        declare(activation_scale=1200.0),
        "config.keys",
        "quantization_config.activation_scale",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_finds_faults(fault: str, tmp_path: Path):
    name, plant, check, where = FAULTS[fault]
    assert_finds(judge_fault("fbgemm_fp8", name, tmp_path, plant), check, where)


@pytest.mark.parametrize("shape", [(), (4,), (0, 4), (2, 0, 3), (2, 3, 4, 5)])
def test_shapes_that_make_no_sense_are_reported(shape: tuple[int, ...]):
    names = ("a.weight", "a.weight_scale", "b.weight_scale", "e.gate_up_proj", "e.gate_up_proj_scale")
    kinds = ("F8_E4M3", "F32", "F32", "F8_E4M3", "F32")
    tensors = {
        name: TensorHeader(name, kind, shape, 0, 0, "model.safetensors")
        for name, kind in zip(names, kinds, strict=True)
    }
    checkpoint = Checkpoint(folder=Path(), tensors=tensors)
    found = recognise(method_of("fbgemm_fp8"), checkpoint, {"quant_method": "fbgemm_fp8"})
    assert [weight.weight for weight in found] == ["a.weight", "b.weight", "e.gate_up_proj"]
    assert all(weight.shape is None and (weight.flaws or weight.weight == "b.weight") for weight in found)
