"""Quanto's layers, as optimum-quanto saves them: decoded as the library does, R where theory puts it."""

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

QUANTO = method_of("quanto")
NAMES = fixtures_of("quanto")


@pytest.mark.parametrize("name", NAMES)
def test_decoded_weights_equal_the_librarys(name: str):
    """Exactly for one product of float16; code · scale − shift is rounded twice there."""
    checkpoint, weights = open_fixture("quanto", name)
    expected = library_values("quanto", name)
    assert len(expected) == 2
    for tensor, values in expected.items():
        decoded = decode(QUANTO, checkpoint, weights[tensor])
        if weights[tensor].attributes["bits"] == 8:
            np.testing.assert_array_equal(decoded.astype(np.float16).astype(np.float32), values)
        assert np.abs(decoded - values).max() <= 1e-3 * np.abs(values).max()


@pytest.mark.parametrize("name", NAMES)
def test_parts_decode_as_the_whole(name: str):
    checkpoint, weights = open_fixture("quanto", name)
    for weight in weights.values():
        assert_windows_agree(QUANTO, checkpoint, weight)


@pytest.mark.parametrize("name", NAMES)
def test_the_error_is_what_theory_predicts(name: str):
    folder = CHECKPOINTS / "quanto" / name
    judged = judge_files(folder, baseline_of(folder))
    rows = judged.measurements["weights"]
    assert isinstance(rows, list)
    assert len(rows) >= 14
    assert all(abs(row["R"] - 0.98) <= 0.1 for row in rows), rows
    for check in ("weights.codes", "memory.ratio", "layers.coverage", "layers.excluded", "config.present"):
        assert judged.results[check].outcome is Outcome.PASS, judged.text()


@pytest.mark.parametrize("name", NAMES)
def test_headers_alone_tell_the_layout(name: str):
    checkpoint, weights = open_fixture("quanto", name)
    alone = {weight.dense: weight for weight in recognise(QUANTO, checkpoint)}
    assert {dense: (weight.shape, weight.attributes) for dense, weight in alone.items()} == {
        dense: (weight.shape, weight.attributes) for dense, weight in weights.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_map_beside_the_config_is_the_declaration(name: str):
    entries = json.loads((CHECKPOINTS / "quanto" / name / "quanto_qmap.json").read_text())
    assert config_flaws(QUANTO, {"quant_method": "quanto", "quantization_map": entries}) == []
    assert QUANTO.planner is not None
    planned = QUANTO.planner({"quantization_map": entries})
    module, entry = next(iter(entries.items()))
    assert planned((module,), "linear").attributes["quant_type"] == entry["weights"]
    assert planned(("elsewhere",), "linear").quantized is False


def test_what_transformers_writes_is_understood():
    config = {"quant_method": "quanto", "weights": "int4", "activations": None, "modules_to_not_convert": ["lm_head"]}
    assert config_flaws(QUANTO, config) == []
    assert QUANTO.declared(config) == {"bits": 4}
