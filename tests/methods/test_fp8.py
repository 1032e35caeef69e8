"""fp8 and mxfp8: decoded as transformers decodes them, at the error level of 8-bit floats, for every way of scaling."""

from __future__ import annotations

from pathlib import Path

import pytest
from decoding import CHECKPOINTS, baseline_of, fixtures_of, method_of, open_fixture, recognise
from float_formats import assert_equals_library, assert_level
from models import judge_files

from checker.checkpoint import Checkpoint, TensorHeader
from checker.inventory import Inventory

E4M3_LEVEL = 0.99  # verified on llm-compressor's checkpoints: 0.976 to 1.012
E2M1_LEVEL = 0.89  # of mxfp4: 0.889 to 0.913


@pytest.mark.parametrize("name", fixtures_of("fp8"))
def test_decodes_fp8_as_transformers_does(name: str):
    assert_equals_library("fp8", name)


@pytest.mark.parametrize("name", fixtures_of("mxfp8"))
def test_decodes_mxfp8_as_transformers_does(name: str):
    assert_equals_library("mxfp8", name)


@pytest.mark.parametrize(
    ("method", "name"),
    [(method, name) for method in ("fp8", "mxfp8") for name in fixtures_of(method) if name != "fp4-experts"],
)
def test_the_error_is_that_of_8_bit_floats(method: str, name: str):
    assert_level(method, name, E4M3_LEVEL)


def test_the_error_of_fp4_experts_is_that_of_4_bit_floats():
    folder = CHECKPOINTS / "fp8" / "fp4-experts"
    rows = judge_files(folder, baseline_of(folder), checks=("weights.error",)).measurements["weights"]
    for row in rows:
        level = E2M1_LEVEL if ".experts." in row["layer"] else E4M3_LEVEL
        assert abs(row["R"] - level) <= 0.1, row


def headers(**shapes: tuple[str, tuple[int, ...]]) -> Checkpoint:
    """A checkpoint of headers; ``__`` stands for a dot."""
    tensors = {
        name.replace("__", "."): TensorHeader(name.replace("__", "."), dtype, shape, 0, 0, "model.safetensors")
        for name, (dtype, shape) in shapes.items()
    }
    return Checkpoint(folder=Path(), tensors=tensors)


@pytest.mark.parametrize(
    ("config", "scales", "block"),
    [
        ({}, [(5, 56), (12, 12)], [128, 128]),  # 576 × 7168: the last block of rows is partial
        ({"weight_block_size": [64, 64]}, [(5, 56), (12, 12)], [128, 128]),  # the config lies
        ({"weight_block_size": [128, 128]}, [(9, 112), (24, 24)], [64, 64]),
        ({"weight_block_size": [192, 1024]}, [(3, 7), (8, 2)], [192, 1024]),  # unusual, declared, and consistent
        ({"weight_block_size": None}, [(5, 56), (12, 12)], [128, 128]),
        ({"weight_block_size": [128, 128]}, [(), ()], None),
        ({"weight_block_size": [128, 128]}, [(1,), (1,)], None),
        ({"weight_block_size": "128"}, [(5, 56), (12, 12)], [128, 128]),
        ({"weight_block_size": [0, -1]}, [(5, 56), (12, 12)], [128, 128]),
        ({}, [(576, 224), (1536, 48)], [1, 32]),
    ],
)
def test_the_block_size_is_what_all_scales_agree_on(
    config: dict[str, object], scales: list[tuple[int, ...]], block: list[int] | None
):
    checkpoint = headers(
        a__weight=("F8_E4M3", (576, 7168)),
        a__weight_scale_inv=("F32", scales[0]),
        b__weight=("F8_E4M3", (1536, 1536)),
        b__weight_scale_inv=("F32", scales[1]),
    )
    found = recognise(method_of("fp8"), checkpoint, {"quant_method": "fp8", **config})
    assert [weight.attributes["block_size"] for weight in found] == [block, block]
    for weight in found:
        assert weight.expected[1].shape == checkpoint.tensors[weight.expected[1].name].shape


def test_without_a_config_bytes_for_groups_of_32_are_mxfp8_and_nothing_else():
    for method, name, other in (("mxfp8", "bytes", "fp8"), ("mxfp8", "e8m0", "fp8"), ("fp8", "block-128", "mxfp8")):
        checkpoint, weights = open_fixture(method, name)
        assert len(recognise(method_of(method), checkpoint)) == len(weights) > 0
        assert recognise(method_of(other), checkpoint) == ()


def test_an_embedding_table_that_is_converted_has_one_scale():
    checkpoint = headers(
        model__ngram__weight=("F8_E4M3", (1000, 64)),
        model__ngram__weight_scale=("F32", (1,)),
        model__q_proj__weight=("F8_E4M3", (128, 128)),
        model__q_proj__weight_scale_inv=("F32", (1, 1)),
    )
    config = {"quant_method": "fp8", "modules_to_convert": ["ngram"]}
    found = {weight.module: weight for weight in method_of("fp8").recognise(Inventory(checkpoint, config))}
    assert [part.name for part in found["model.ngram"].expected] == ["model.ngram.weight", "model.ngram.weight_scale"]
    assert found["model.q_proj"].attributes["block_size"] == [128, 128]
    plan = method_of("fp8").planner
    assert plan is not None
    assert plan(config)(("model.ngram",), "embedding").quantized


@pytest.mark.parametrize("shape", [(), (7,), (0, 128), (128, 0), (2, 3, 4, 5), (0, 4, 4)])
@pytest.mark.parametrize("scale", [(), (0,), (0, 0), (1 << 40, 1), (3, 5, 7), (9, 9)])
@pytest.mark.parametrize("dtype", ["F8_E4M3", "I8", "U8", "F8_E5M2", "BOOL"])
def test_shapes_that_make_no_sense_are_reported_or_passed_over(
    shape: tuple[int, ...], scale: tuple[int, ...], dtype: str
):
    checkpoint = headers(
        a__weight=(dtype, shape),
        a__weight_scale_inv=("F32", scale),
        e__experts__gate_up_proj=(dtype, shape),
        e__experts__gate_up_proj_scale_inv=("U8", scale),
        b__weight_scale_inv=("F32", scale),
        c__scale=("F8_E8M0", scale),
        c__weight=("I8", shape),
    )
    for method in ("fp8", "mxfp8"):
        for config in (None, {"quant_method": method, "weight_block_size": [3, 1 << 30]}):
            for weight in recognise(method_of(method), checkpoint, config):
                assert len([part for part in weight.expected if not part.companion]) == 1
                assert weight.shape is None or 0 not in weight.shape
