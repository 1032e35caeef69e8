"""BitNet's ternary weights: decoded as transformers does, with either sense of the scale."""

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

BITNET = method_of("bitnet")
NAMES = fixtures_of("bitnet")
PACKED = [name for name in NAMES if name != "online"]


@pytest.mark.parametrize("name", PACKED)
def test_decoded_weights_equal_the_librarys(name: str):
    checkpoint, weights = open_fixture("bitnet", name)
    expected = library_values("bitnet", name)
    assert len(expected) >= 2
    for tensor, values in expected.items():
        np.testing.assert_array_equal(decode(BITNET, checkpoint, weights[tensor]), values)


@pytest.mark.parametrize("name", PACKED)
def test_parts_decode_as_the_whole(name: str):
    checkpoint, weights = open_fixture("bitnet", name)
    for weight in weights.values():
        assert_windows_agree(BITNET, checkpoint, weight)


@pytest.mark.parametrize("name", PACKED)
def test_the_error_is_between_that_of_normal_and_of_laplace_weights(name: str):
    """0.9 to 1.9 times the prediction; rows and columns of different size, as here, have tails in between."""
    folder = CHECKPOINTS / "bitnet" / name
    judged = judge_files(folder, baseline_of(folder))
    rows = judged.measurements["weights"]
    assert isinstance(rows, list)
    assert len(rows) >= 12
    assert all(1.4 <= row["R"] <= 1.95 for row in rows), rows
    for check in ("weights.codes", "weights.error", "memory.ratio", "layers.coverage", "layers.excluded"):
        assert judged.results[check].outcome is Outcome.PASS, judged.text()


def test_the_prediction_is_that_of_normal_weights():
    """What a zero and another code cost at scale mean|W|: the two numbers of the module."""
    from checker.methods.bitnet import ONE_VARIANCE, ZERO_VARIANCE

    values = np.random.default_rng(0).standard_normal(1 << 22)
    values /= np.abs(values).mean()
    codes = np.clip(np.rint(values), -1, 1)
    error = (values - codes) ** 2
    assert abs(error[codes == 0].mean() - ZERO_VARIANCE) < 1e-3
    assert abs(error[codes != 0].mean() - ONE_VARIANCE) < 3e-3


@pytest.mark.parametrize("name", PACKED)
def test_headers_alone_tell_the_layout(name: str):
    checkpoint, weights = open_fixture("bitnet", name)
    alone = {weight.dense: weight for weight in recognise(BITNET, checkpoint)}
    assert {dense: weight.shape for dense, weight in alone.items()} == {
        dense: weight.shape for dense, weight in weights.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_configs_of_the_library_have_no_flaw(name: str):
    config = json.loads((CHECKPOINTS / "bitnet" / name / "config.json").read_text())["quantization_config"]
    assert config_flaws(BITNET, config) == []


def test_online_quantization_packs_nothing_and_says_so():
    folder = CHECKPOINTS / "bitnet" / "online"
    judged = judge_files(folder, baseline_of(folder))
    [finding] = judged.results["config.present"].findings
    assert "online quantization keeps the weights dense" in finding.message
    assert judged.results["memory.ratio"].outcome is Outcome.PASS


def test_bitlinear_has_no_online_mode():
    [(key, _)] = config_flaws(BITNET, {"quant_method": "bitnet", "quantization_mode": "online"})
    assert key == "quantization_mode"
