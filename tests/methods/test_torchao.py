"""torchao's tensor subclasses: decoded as the library does, R where theory puts it, per-module configurations."""

from __future__ import annotations

import json

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

from checker.domain import Outcome
from checker.registry import config_flaws

TORCHAO = method_of("torchao")
NAMES = fixtures_of("torchao")
LAYER = "model.layers.0.self_attn.q_proj"
# reference levels of R; layers of 2,000 to 8,000 values scatter by several per cent around them
LEVELS = {
    "float8": 0.97,
    "float8-dynamic": 0.97,
    "int4-plain-odd": 0.95,
    "int4-tiled": 0.95,
    "intx4-dynamic": 1.05,  # the largest value is cut off at 7.5 steps
    "intx2-sym": 1.05,
    "mxfp4": 0.90,
    "nvfp4": 0.73,
}


def dtype_of(name: str) -> np.dtype:
    import ml_dtypes

    return np.dtype(np.float32) if name in ("int4-plain", "int4-plain-odd") else np.dtype(ml_dtypes.bfloat16)


@pytest.mark.parametrize("name", NAMES)
def test_decoded_weights_equal_the_librarys(name: str):
    """To the last bit, after the cast to the dtype that the library gives."""
    checkpoint, weights = open_fixture("torchao", name)
    expected = library_values("torchao", name)
    assert len(expected) >= 2
    for tensor, values in expected.items():
        dense = tensor if tensor in weights else tensor.replace("model.language_model", "language_model.model", 1)
        decoded = decode(TORCHAO, checkpoint, weights[dense]).astype(dtype_of(name)).astype(np.float32)
        np.testing.assert_array_equal(decoded, values)


@pytest.mark.parametrize("name", NAMES)
def test_parts_decode_as_the_whole(name: str):
    checkpoint, weights = open_fixture("torchao", name)
    for weight in list(weights.values())[:7]:
        assert_windows_agree(TORCHAO, checkpoint, weight)


@pytest.mark.parametrize("name", NAMES)
def test_the_error_is_what_theory_predicts(name: str):
    folder = CHECKPOINTS / "torchao" / name
    judged = judge_files(folder, baseline_of(folder))
    rows = judged.measurements["weights"]
    assert isinstance(rows, list)
    assert len(rows) >= (6 if name == "int4-tiled" else 7)
    assert all(abs(row["R"] - LEVELS.get(name, 1.0)) <= 0.1 for row in rows), rows
    for check in ("weights.codes", "memory.ratio", "layers.coverage", "layers.excluded", "config.truthful"):
        assert judged.results[check].outcome is Outcome.PASS, judged.text()


@pytest.mark.parametrize("name", NAMES)
def test_headers_alone_tell_the_layout(name: str):
    _, weights = open_fixture("torchao", name)
    checkpoint, _ = open_fixture("torchao", name)
    alone = {weight.dense: weight for weight in recognise(TORCHAO, checkpoint)}
    assert alone.keys() == weights.keys()
    for dense, weight in weights.items():
        assert alone[dense].shape == weight.shape
        assert alone[dense].attributes["tensor_class"] == weight.attributes["tensor_class"]


@pytest.mark.parametrize("name", NAMES)
def test_configs_of_the_library_have_no_flaw(name: str):
    config = json.loads((CHECKPOINTS / "torchao" / name / "config.json").read_text())["quantization_config"]
    assert config_flaws(TORCHAO, config) == []


def plan(entries: dict[str, object]):
    assert TORCHAO.planner is not None
    return TORCHAO.planner({"quant_type": {"default": {"_type": "FqnToConfig", "_data": {"fqn_to_config": entries}}}})


INT8 = {"_type": "Int8WeightOnlyConfig", "_data": {"granularity": {"_type": "PerRow", "_data": {}}}}
INT4 = {"_type": "Int4WeightOnlyConfig", "_data": {"group_size": 64, "int4_packing_format": {"_data": "PLAIN"}}}


def test_an_exact_name_goes_before_an_expression_and_that_before_the_default():
    planned = plan({"re:.*q_proj": INT4, LAYER: None, "_default": INT8})
    assert planned((LAYER,), "linear").quantized is False
    assert planned(("model.layers.1.self_attn.q_proj",), "linear").attributes == {
        "bits": 4,
        "tensor_class": "Int4Tensor",
        "granularity": "group",
        "group_size": 64,
    }
    assert planned(("model.layers.1.mlp.up_proj",), "linear").attributes == {
        "bits": 8,
        "tensor_class": "Int8Tensor",
        "granularity": "row",
    }


def test_an_expression_must_match_the_whole_name():
    planned = plan({"re:q_proj": INT4})
    assert planned((LAYER,), "linear").quantized is False


def test_an_expression_that_could_search_for_hours_is_taken_as_text():
    planned = plan({f"re:{'m?' * 40}{'m' * 40}": INT4, "re:(a+)+b": INT4})
    assert planned(("m" * 60,), "linear").quantized is False
    assert planned((f"{'a' * 60}",), "linear").quantized is False


def test_int4_leaves_layers_without_whole_groups_dense():
    assert TORCHAO.unfit is not None
    unfit = TORCHAO.unfit({"quant_type": {"default": INT4}})
    assert "64" not in unfit((8, 128))
    assert unfit((8, 100)) == "its 100 inputs are no multiple of the group size"


@pytest.mark.parametrize(
    ("quant_type", "message"),
    [
        ("int8_weight_only", "transformers 5 reads only a configuration object"),
        ({"other": INT8}, "the one key 'default'"),
        ({"default": {"_data": {}}}, "_type and _data"),
        ({"default": {"_type": "FqnToConfig", "_data": {"fqn_to_config": {}}}}, "names no module"),
    ],
)
def test_what_is_no_configuration_is_a_flaw(quant_type: object, message: str):
    [(key, text)] = config_flaws(TORCHAO, {"quant_method": "torchao", "quant_type": quant_type})
    assert key == "quant_type"
    assert message in text
