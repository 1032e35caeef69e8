"""AutoRound files in each of its integer packings: decoded as the tool's own code does, judged as healthy."""

from __future__ import annotations

import json
from typing import Any

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

from checker.registry import config_flaws

ID = "auto-round"
METHOD = method_of(ID)
NAMES = fixtures_of(ID)
FLOATS = [name for name in NAMES if name.startswith(("fp8", "mx", "nvfp"))]
LEVELS = {
    "nvfp4": (0.65, 0.8),
    "mxfp4": (0.9, 1.15),
    "mxfp8": (1.0, 1.6),
    "fp8-static": (0.85, 1.1),
    "tuned": (1.1, 1.7),
}


@pytest.mark.parametrize("name", NAMES)
def test_decoded_weights_equal_the_tools_after_its_cast(name: str) -> None:
    checkpoint, weights = open_fixture(ID, name)
    expected = library_values(ID, name)
    assert expected
    for dense, values in expected.items():
        decoded = decode(METHOD, checkpoint, weights[dense]).astype(np.float16)
        np.testing.assert_array_equal(decoded, values.astype(np.float16))


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_a_weight_decode_as_the_whole(name: str) -> None:
    checkpoint, weights = open_fixture(ID, name)
    for weight in list(weights.values())[:7]:
        assert_windows_agree(METHOD, checkpoint, weight)


@pytest.mark.parametrize("name", NAMES)
def test_the_error_is_what_theory_gives(name: str) -> None:
    """Rounding to the nearest: R is 1. Tuning trades weight error for the error of outputs.

    MXFP8 takes the power of two below, so that values up to an eighth too large are cut off.
    """
    folder = CHECKPOINTS / ID / name
    rows: Any = judge_files(folder, baseline_of(folder)).measurements["weights"]
    ratios = [row["R"] for row in rows]
    assert len(ratios) == len(open_fixture(ID, name)[1])
    low, high = LEVELS.get(name, (0.9, 1.1))
    assert low < min(ratios)
    assert max(ratios) < high


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("awq-asym", "gptqmodel-asym", *FLOATS)])
def test_headers_without_g_idx_are_taken_for_it(name: str) -> None:
    checkpoint, declared = open_fixture(ID, name)
    by_headers = recognise(METHOD, checkpoint)
    assert {weight.dense for weight in by_headers} == set(declared)
    for weight in by_headers:
        told = declared[weight.dense]
        assert (weight.shape, weight.attributes["bits"]) == (told.shape, told.attributes["bits"])


@pytest.mark.parametrize("name", FLOATS)
def test_floats_are_known_by_the_config_alone(name: str) -> None:
    """Their headers are those of compressed-tensors or fp8."""
    checkpoint, _ = open_fixture(ID, name)
    assert recognise(METHOD, checkpoint) == ()


@pytest.mark.parametrize("name", ["awq-asym", "gptqmodel-asym"])
def test_headers_that_are_awqs_or_gptqs_are_left_to_those(name: str) -> None:
    checkpoint, _ = open_fixture(ID, name)
    assert recognise(METHOD, checkpoint) == ()
    assert recognise(method_of("awq" if name.startswith("awq") else "gptq"), checkpoint)


@pytest.mark.parametrize("name", NAMES)
def test_the_tools_configs_have_no_flaw(name: str) -> None:
    config = json.loads((CHECKPOINTS / ID / name / "config.json").read_text())["quantization_config"]
    assert config_flaws(METHOD, config) == []


@pytest.mark.parametrize(
    ("name", "offset"),
    [("gptq-sym", 1), ("gptq-asym", 1), ("own-asym-w2-g32", 0), ("own-asym-w5-g64", 0), ("gptqmodel-asym", 0)],
)
def test_each_packing_has_its_version_of_zero_points(name: str, offset: int) -> None:
    assert {weight.attributes["zero_offset"] for weight in open_fixture(ID, name)[1].values()} == {offset}


def test_symmetric_scales_may_be_negative() -> None:
    checkpoint, weights = open_fixture(ID, "gptq-sym")
    pieces = [METHOD.decode(checkpoint, weight, None) for weight in weights.values()]  # type: ignore[misc]
    scaling = [piece.scaling for group in pieces for piece in group]
    assert all(item.negative for item in scaling)
    assert any((item.scales < 0).any() for item in scaling)


def test_layers_that_do_not_fit_are_left_dense_by_the_config() -> None:
    """The tool writes them into ``extra_config`` with 16 bits; sizes that are no multiples of 32."""
    folder = CHECKPOINTS / ID / "odd"
    judged = judge_files(folder, baseline_of(folder))
    assert judged.results["layers.coverage"].outcome == "warn"  # run times that fuse q, k and v: deserved
    assert {finding.where for finding in judged.results["layers.coverage"].findings} == {
        f"model.layers.{number}.self_attn.k_proj" for number in (0, 1)
    }
