"""compressed-tensors files as llm-compressor writes them: decoded as the library does, judged as healthy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from decoding import (
    CHECKPOINTS,
    assert_windows_agree,
    baseline_of,
    decode,
    fixtures_of,
    library_values,
    method_of,
    open_fixture,
    recognise,
)
from models import judge_files

from checker.checkpoint import open_checkpoint
from checker.domain import Severity
from checker.registry import config_flaws

ID = "compressed-tensors"
METHOD = method_of(ID)
NAMES = fixtures_of(ID)
DENSE = "frozen"  # nothing is packed in it
PACKED = [name for name in NAMES if name != DENSE]
BYTES = "w4a8-group"  # four bits in a byte each: only the config tells
CALIBRATED = ("w4a16-gptq", "w4a16-actorder-asym", "w8a16-actorder")
LEVELS = {"nvfp4-pack-quantized": 0.74, "mxfp4-pack-quantized": 0.9}  # of R; all others 1


@pytest.mark.parametrize("name", PACKED)
def test_decoded_weights_equal_the_librarys_exactly_in_its_dtype(name: str) -> None:
    checkpoint, weights = open_fixture(ID, name)
    expected = library_values(ID, name)
    assert expected
    for dense, values in expected.items():
        decoded = decode(METHOD, checkpoint, weights[dense]).astype(ml_dtypes.bfloat16).astype(np.float32)
        np.testing.assert_array_equal(decoded, values)


@pytest.mark.parametrize("name", PACKED)
def test_parts_of_a_weight_decode_as_the_whole(name: str) -> None:
    checkpoint, weights = open_fixture(ID, name)
    for weight in list(weights.values())[:7]:
        assert_windows_agree(METHOD, checkpoint, weight)


@pytest.mark.parametrize("name", PACKED)
def test_headers_alone_tell_what_the_config_says(name: str) -> None:
    checkpoint, declared = open_fixture(ID, name)
    by_headers = recognise(METHOD, checkpoint)
    assert {weight.dense for weight in by_headers} == set(declared)
    for weight in by_headers:
        assert not weight.flaws
        assert weight.shape == declared[weight.dense].shape
        for key in ("type", "symmetric") if name == BYTES else ("bits", "type", "symmetric"):
            assert weight.attributes[key] == declared[weight.dense].attributes[key], (weight.module, key)
        stored = {part.name: (part.dtype, part.shape) for part in weight.expected}
        assert stored == {part.name: (part.dtype, part.shape) for part in declared[weight.dense].expected}


@pytest.mark.parametrize("name", NAMES)
def test_a_healthy_file_fails_nothing(name: str) -> None:
    folder = CHECKPOINTS / ID / name
    for baseline in (None, baseline_of(folder)):
        judged = judge_files(folder, baseline)
        failed = [
            finding
            for result in judged.results.values()
            for finding in result.findings
            if finding.severity is Severity.FAIL
        ]
        assert not failed, judged.text()
        for check in ("config.keys", "config.truthful", "layers.coverage", "layers.excluded", "memory.ratio"):
            assert not judged.results[check].findings, judged.text()


@pytest.mark.parametrize("name", [name for name in PACKED if name != "w4a16-rotated"])
def test_every_layer_is_as_far_from_the_baseline_as_its_codes_predict(name: str) -> None:
    folder = CHECKPOINTS / ID / name
    _, weights = open_fixture(ID, name)
    formats = {weight.module: str(weight.attributes["format"]) for weight in weights.values()}
    measured: Any = judge_files(folder, baseline_of(folder)).measurements["weights"]
    assert {row["layer"] for row in measured} == set(formats)
    for row in measured:
        if name in CALIBRATED:
            assert 1 < row["R"] < 2, row
        else:
            assert abs(row["R"] - LEVELS.get(formats[row["layer"]], 1)) < 0.1, row


def test_rotated_weights_are_not_compared() -> None:
    folder = CHECKPOINTS / ID / "w4a16-rotated"
    judged = judge_files(folder, baseline_of(folder))
    assert "weights" not in judged.measurements
    assert "rotated" in str(judged.results["weights.error"])


def test_a_dense_format_is_said_to_save_no_memory() -> None:
    folder = CHECKPOINTS / ID / DENSE
    findings = judge_files(folder).results["config.present"].findings
    assert [finding.severity for finding in findings] == [Severity.WARN]
    assert "no memory is saved" in findings[0].message


def test_each_module_of_a_mixed_file_has_the_format_of_its_group() -> None:
    _, weights = open_fixture(ID, "mixed-precision")
    formats = {name.removesuffix(".weight"): weight.attributes["format"] for name, weight in weights.items()}
    assert formats["model.layers.0.self_attn.q_proj"] == "float-quantized"
    assert formats["model.layers.0.self_attn.o_proj"] == "pack-quantized"
    assert formats["model.layers.0.mlp.up_proj"] == "nvfp4-pack-quantized"
    assert "model.layers.1.self_attn.o_proj" not in formats


def test_activation_order_puts_columns_back() -> None:
    checkpoint, weights = open_fixture(ID, "w4a16-actorder-asym")
    weight = next(iter(weights.values()))
    pieces: Any = METHOD.decode(checkpoint, weight, None)  # type: ignore[misc]
    assert sorted(pieces[0].place.columns.tolist()) == list(range(weight.grid[1]))
    assert pieces[0].place.columns.tolist() != list(range(weight.grid[1]))


def test_the_cache_belongs_to_the_projections() -> None:
    checkpoint = open_checkpoint(CHECKPOINTS / ID / "fp8-kv-cache")
    parts = {part.name for weight in recognise(METHOD, checkpoint) for part in weight.expected}
    assert {"model.layers.0.self_attn.k_scale", "model.layers.1.self_attn.v_scale"} <= parts


def group(**weights: Any) -> dict[str, Any]:
    return {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "int", "strategy": "channel", **weights}}


def config(groups: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"quant_method": ID, "format": "pack-quantized", "config_groups": dict(groups), **more}


def planned(settings: dict[str, Any], module: str, role: str = "linear") -> Any:
    assert METHOD.planner is not None
    return METHOD.planner(settings)((module,), role)


def test_a_whole_name_goes_before_an_expression_and_that_before_a_class() -> None:
    settings = config(
        {
            "class": group(),
            "expression": {**group(num_bits=4), "targets": ["re:.*down_proj"]},
            "name": {**group(num_bits=2), "targets": ["model.layers.0.mlp.down_proj"]},
        }
    )
    bits = [
        planned(settings, f"model.layers.{name}").attributes["bits"]
        for name in ("0.mlp.down_proj", "1.mlp.down_proj", "1.mlp.up_proj")
    ]
    assert bits == [2, 4, 8]


@pytest.mark.parametrize(
    ("entry", "module", "role"),
    [
        ("lm_head", "lm_head", "head"),
        ("re:.*lm_head", "language_model.lm_head", "head"),
        ("re:.*\\.mlp\\.(gate|router)$", "model.layers.3.mlp.gate", "linear"),
        ("re:visual.*", "visual.blocks.0.attn.qkv", "vision"),
        ("re:model\\.layers\\.[0-9]+\\.self_attn.*", "model.layers.12.self_attn.q_proj", "linear"),
        ("re:(?!.*experts).*", "model.layers.0.mlp.up_proj", "linear"),
        ("model.visual.blocks.0.attn.qkv", "visual.blocks.0.attn.qkv", "vision"),
        ("Linear", "model.layers.0.mlp.up_proj", "linear"),
    ],
)
def test_ignored_modules_are_to_stay_dense(entry: str, module: str, role: str) -> None:
    settings = config({"all": group()}, ignore=[entry])
    assert planned(settings, module, role).quantized is False
    assert planned(config({"all": group()}), module, role).quantized is True


@pytest.mark.parametrize(
    "entry", ["lm_hea", "re:lm$", "re:mlp", "re:(?!.*mlp).*", "re:(", "re:.*[", "re:(a+)+$", "RMSNorm"]
)
def test_other_entries_ignore_nothing(entry: str) -> None:
    module = "model.layers.0.mlp.up_proj"
    assert planned(config({"all": group()}, ignore=[entry]), module).quantized is True


@pytest.mark.timeout(10)
def test_no_expression_takes_for_ever() -> None:
    module = "a" * 490
    for expression in ("(a+)+$", "a*a*a*a*a*a*b", ".*a.*a.*a.*a.*a.*a.*a.*b", "(.*a){20}b", "(a|a)*b", "a{1,400}" * 9):
        planned(config({"all": group()}, ignore=[f"re:{expression}"]), module)


def test_a_class_that_names_do_not_tell_leaves_a_module_open() -> None:
    settings = config({"attention": {**group(), "targets": ["LlamaAttention"]}})
    assert planned(settings, "model.layers.0.self_attn.q_proj").open


def test_a_router_is_left_to_the_architecture() -> None:
    assert planned(config({"all": group()}), "model.layers.0.mlp.gate", "router").quantized is None


def test_embeddings_are_quantized_only_where_a_target_says_so() -> None:
    assert planned(config({"all": group()}), "model.embed_tokens", "embedding").quantized is False
    both = {**group(), "targets": ["Linear", "Embedding"]}
    assert planned(config({"all": both}), "model.embed_tokens", "embedding").quantized is True


GROUPED = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"config_groups": {"a": group(num_bit=4)}}, "config_groups.a.weights.num_bit"),
        ({"config_groups": {"a": group(num_bits=9, type="float")}}, "config_groups.a.weights.num_bits"),
        ({"config_groups": {"a": group(strategy="group")}}, "config_groups.a.weights.group_size"),
        ({"config_groups": {"a": group(strategy="block")}}, "config_groups.a.weights.block_structure"),
        ({"config_groups": {"a": group(symmetric="yes")}}, "config_groups.a.weights.symmetric"),
        ({"config_groups": {"a": group(type="float")}}, "config_groups.a.weights"),
        ({"config_groups": {"a": {**group(), "targets": "Linear"}}}, "config_groups.a.targets"),
        ({"config_groups": {"a": {**group(), "format": "mixed-precision"}}}, "config_groups.a.format"),
        ({"config_groups": {"a": group(**GROUPED)}, "format": "nvfp4-pack-quantized"}, "config_groups.a.weights"),
        ({"config_groups": {"a": 7}}, "config_groups.a"),
        ({"config_groups": {}}, "config_groups"),
        ({"quantization_status": "calibration"}, "quantization_status"),
        ({"quantization_status": "decompressed"}, "quantization_status"),
        ({"format": "marlin-24"}, "format"),
        ({"format": "pack_quantized"}, "format"),
        ({"ignores": []}, "ignores"),
    ],
)
def test_what_the_library_would_refuse_or_misunderstand_is_named(changes: dict[str, Any], where: str) -> None:
    healthy = config({"a": group()}, quantization_status="compressed")
    assert not config_flaws(METHOD, healthy)
    assert where in [key for key, _ in config_flaws(METHOD, {**healthy, **changes})]


@pytest.mark.parametrize("value", [None, 5, "x", [1], {"a": None}, {"a": []}, {"a": {"weights": {"num_bits": []}}}])
def test_no_shape_of_config_groups_is_too_strange(value: Any) -> None:
    settings = config({}, config_groups=value)
    config_flaws(METHOD, settings)
    METHOD.declared(settings)
    METHOD.stored_dense(settings)
    planned(settings, "model.layers.0.mlp.up_proj")
    checkpoint = open_checkpoint(CHECKPOINTS / ID / "w4a16-group-sym")
    assert recognise(METHOD, checkpoint, settings)
