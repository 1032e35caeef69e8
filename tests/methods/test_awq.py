"""AWQ files as AutoAWQ, gptqmodel and AutoRound write them: decoded as those do, judged as healthy."""

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

ID = "awq"
METHOD = method_of(ID)
NAMES = fixtures_of(ID)
FAST = ("autoawq-gemv-fast", "llm-awq")  # zero points are stored times their scale, rounded to float16
PACKINGS = {"autoawq-gemv": "gemv", "autoawq-gemv-fast": "gemv_fast", "llm-awq": "llm-awq"}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FAST and name != "moe"])
def test_decoded_weights_equal_the_librarys_after_its_cast(name: str) -> None:
    checkpoint, weights = open_fixture(ID, name)
    expected = library_values(ID, name)
    assert expected
    for dense, values in expected.items():
        decoded = decode(METHOD, checkpoint, weights[dense]).astype(np.float16)
        np.testing.assert_array_equal(decoded, values.astype(np.float16))


def test_a_mixture_decodes_as_the_library_does() -> None:
    checkpoint, weights = open_fixture(ID, "moe")
    name = "model.layers.1.mlp.experts.3.down_proj.weight"
    decoded = decode(METHOD, checkpoint, weights[name]).astype(np.float16)
    np.testing.assert_array_equal(decoded, library_values(ID, "moe")[name].astype(np.float16))


@pytest.mark.parametrize("name", FAST)
def test_packings_for_cuda_alone_decode_to_what_was_packed(name: str) -> None:
    """The zero point is up to 15 scales, and stored times the scale in float16: up to 15 · 2^-11 of a scale is lost."""
    checkpoint, weights = open_fixture(ID, name)
    expected = library_values(ID, name)
    assert expected
    for dense, values in expected.items():
        (piece,) = METHOD.decode(checkpoint, weights[dense], None)  # type: ignore[misc]
        step = float(piece.scaling.scales.max())
        assert np.abs(decode(METHOD, checkpoint, weights[dense]) - values).max() < 0.02 * step


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_a_weight_decode_as_the_whole(name: str) -> None:
    checkpoint, weights = open_fixture(ID, name)
    for weight in list(weights.values())[:7]:
        assert_windows_agree(METHOD, checkpoint, weight)


@pytest.mark.parametrize("name", NAMES)
def test_the_error_is_what_theory_gives_once_gains_are_fitted(name: str) -> None:
    folder = CHECKPOINTS / ID / name
    rows: Any = judge_files(folder, baseline_of(folder)).measurements["weights"]
    ratios = [row["R"] for row in rows]
    assert len(ratios) == len(open_fixture(ID, name)[1])
    assert min(ratios) > 0.9
    assert max(ratios) < (1.1 if name == "auto-round-mixed" else 1.4)  # bounds that clip weights add to the error
    assert 0.9 < float(np.median(ratios)) < 1.15


@pytest.mark.parametrize("name", [name for name in NAMES if name != "autoawq-gemv"])
def test_headers_alone_tell_what_the_config_says(name: str) -> None:
    """Of gemv they do not always: with 128 inputs in groups of 64 its shapes fit GPTQ's packing as well."""
    checkpoint, declared = open_fixture(ID, name)
    by_headers = recognise(METHOD, checkpoint)
    assert {weight.dense for weight in by_headers} == set(declared)
    for weight in by_headers:
        told = declared[weight.dense]
        assert (weight.shape, weight.attributes) == (told.shape, told.attributes)


@pytest.mark.parametrize("name", NAMES)
def test_the_packing_is_seen_in_the_shapes(name: str) -> None:
    weights = open_fixture(ID, name)[1].values()
    assert {weight.attributes["packing"] for weight in weights} == {PACKINGS.get(name, "gemm")}


@pytest.mark.parametrize("name", NAMES)
def test_the_tools_configs_have_no_flaw(name: str) -> None:
    config = json.loads((CHECKPOINTS / ID / name / "config.json").read_text())["quantization_config"]
    assert config_flaws(METHOD, config) == []


@pytest.mark.parametrize("name", NAMES)
def test_asymmetric_groups_hold_an_extreme_code(name: str) -> None:
    folder = CHECKPOINTS / ID / name
    codes: Any = judge_files(folder).measurements["weights.codes"]
    assert codes["blocks_with_extreme_code"] == codes["blocks"]
    symmetric = {weight.attributes.get("symmetric") for weight in open_fixture(ID, name)[1].values()}
    assert (codes["blocks"] > 0) == (symmetric == {False})  # elsewhere nothing is promised
