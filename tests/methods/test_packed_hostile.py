"""Configs and headers of packed integers that lie on purpose: no exception, no hang, nothing allocated."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from decoding import CHECKPOINTS, baseline_of, method_of

from checker.checkpoint import Checkpoint, TensorHeader, open_checkpoint
from checker.checks.config import config_keys, config_truthful
from checker.checks.layers import layers_complete, layers_coverage, layers_excluded
from checker.checks.memory import memory_ratio
from checker.inventory import Inventory
from checker.methods._packed_plan import dynamic_rule, dynamic_rules, matches
from checker.probes.artifact import gather_artifact

METHODS = {"gptq": "w4-g64-sym", "awq": "w4-g64-gemm", "auto-round": "gptq-sym"}
KEYS = (
    "bits",
    "group_size",
    "sym",
    "zero_point",
    "desc_act",
    "format",
    "checkpoint_format",
    "version",
    "packing_format",
    "dynamic",
    "extra_config",
    "block_name_to_quantize",
    "modules_to_not_convert",
    "modules_in_block_to_quantize",
    "lm_head",
    "data_type",
    "weight_block_size",
)
VALUES: tuple[Any, ...] = (
    None, 0, -1, -2, 1, 3, 7, 16, 1 << 40, 1 << 70, 1.5, True, "", "4", "x" * 10_000, [], ["", 3, None], [[["a"]]], {},
    "mx_fp", "nv_fp", "mx_int", "fp", [128, 128], [0, -1], {"": 4},
    {"(": {"bits": 8}}, {"-:(": {}}, {".*": {"bits": 1 << 70, "group_size": 0}}, {".*": "8"}, {".*": False},
)  # fmt: skip

CHECKS = (config_keys, config_truthful, layers_complete, layers_coverage, layers_excluded, memory_ratio)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("method", METHODS)
def test_no_value_of_a_key_raises(method: str, key: str) -> None:
    """Neither while the artifact is read nor in what its checks say of it."""
    folder = CHECKPOINTS / method / METHODS[method]
    with open_checkpoint(folder) as checkpoint, open_checkpoint(baseline_of(folder)) as baseline:
        config = checkpoint.config or {}
        for value in VALUES:
            quantization = {**config["quantization_config"], key: value}  # type: ignore[dict-item]
            changed = replace(checkpoint, config={**config, "quantization_config": quantization})
            facts = gather_artifact(changed, baseline)
            floats = "data_type" in facts.declared  # and so none of these integers is one of its weights
            assert len(facts.weights) == (0 if floats else 14)
            for check in () if floats else CHECKS:
                list(check(facts))


SHAPES: tuple[tuple[int, ...], ...] = (
    (),
    (0,),
    (0, 0),
    (0, 128),
    (128, 0),
    (1, 1),
    (7, 13),
    (16, 128, 1),
    (1 << 40, 1),
)


@pytest.mark.parametrize("part", ["weight", "weight_packed", "weight_scale", "weight_scale_inv", "input_scale"])
@pytest.mark.parametrize("kind", ["mx_fp", "mx_int", "nv_fp", "fp"])
def test_no_shape_or_type_of_a_float_is_an_internal_error(kind: str, part: str) -> None:
    usual = {"weight_packed": ("U8", (16, 64)), "weight_scale": ("U8", (16, 4))}
    for dtype in ("I32", "F16", "BF16", "F32", "F8_E4M3", "U8"):
        for shape in SHAPES:
            parts = {**usual, part: (dtype, shape)}
            tensors = {f"model.layers.0.x.{name}": _header(name, *given) for name, given in parts.items()}
            config = {"quant_method": "auto-round", "data_type": kind, "bits": 4, "weight_block_size": [128, 128]}
            inventory = Inventory(Checkpoint(folder=Path(), tensors=tensors), config)
            for weight in method_of("auto-round").recognise(inventory):
                assert sum(not tensor.companion for tensor in weight.expected) == 1
                assert weight.shape is None or min(weight.shape) > 0


@pytest.mark.parametrize("part", ["qweight", "qzeros", "scales", "g_idx", "bias", "scaled_zeros"])
@pytest.mark.parametrize("method", METHODS)
def test_no_shape_or_type_of_a_tensor_is_an_internal_error(method: str, part: str) -> None:
    """Headers alone, as a file with gaps could hold them; every method looks, declared or not."""
    usual = {"qweight": ("I32", (16, 128)), "qzeros": ("I32", (2, 16)), "scales": ("F16", (2, 128))}
    for dtype in ("I32", "I16", "F16", "BF16", "F8_E4M3", "U8"):
        for shape in SHAPES:
            parts = {**usual, part: (dtype, shape)}
            tensors = {f"model.layers.0.x.{name}": _header(name, *given) for name, given in parts.items()}
            checkpoint = Checkpoint(folder=Path(), tensors=tensors)
            for config in (None, {"quant_method": method, "bits": 4, "group_size": 64}):
                for weight in method_of(method).recognise(Inventory(checkpoint, config)):
                    assert sum(not tensor.companion for tensor in weight.expected) == 1
                    assert weight.shape is None or min(weight.shape) > 0


def _header(name: str, dtype: str, shape: tuple[int, ...]) -> TensorHeader:
    return TensorHeader(name=f"model.layers.0.x.{name}", dtype=dtype, shape=shape, file="f", begin=0, end=0)


@pytest.mark.parametrize(
    "rule",
    [
        "(a+)+$",
        "(.*.*)*x",
        ".*a.*a.*a.*a.*a.*a.*x",
        "(a|aa)*b",
        ".*.*.*.*.*.*.*.*x",
        "a?" * 40,
        "(" * 200,
        "[",
        "x" * 501,
    ],
)
def test_rules_that_could_take_for_ever_match_nothing(rule: str) -> None:
    began = time.monotonic()
    assert not matches(rule, "a" * 250)
    assert not matches(rule, "a" * 250, anywhere=True)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("rule", "name", "matched"),
    [
        (r".*\.down_proj$", "model.layers.0.mlp.down_proj", True),
        (r"down_proj", "model.layers.0.mlp.down_proj", False),  # from the start
        (r"model\.layers\.[0-3]\.mlp\.(up|gate)_proj", "model.layers.2.mlp.gate_proj", True),
        (r"model\.layers\.[0-3]\.mlp\.(up|gate)_proj", "model.layers.4.mlp.gate_proj", False),
        (r".*experts\.\d+\..*", "model.layers.0.mlp.experts.17.up_proj", True),
    ],
)
def test_rules_match_as_in_the_tool(rule: str, name: str, matched: bool) -> None:
    assert matches(rule, name) is matched


def test_negative_rules_are_asked_first_and_then_the_first_that_matches() -> None:
    rules = dynamic_rules({r".*q_proj": {"bits": 8}, r"+:.*_proj": {"bits": 2}, r"-:.*\.0\..*q_proj": {}})
    first, second = (dynamic_rule(rules, (f"model.layers.{number}.self_attn.q_proj",)) for number in (0, 1))
    assert first is not None
    assert first.settings is None
    assert second is not None
    assert second.settings == {"bits": 8}
    assert dynamic_rule(rules, ("lm_head",)) is None
