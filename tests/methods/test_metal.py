"""MLX's files and those of transformers' Metal quantizer: decoded as both do, R where theory puts it."""

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

METAL = method_of("metal")
NAMES = fixtures_of("metal")
# reference levels of R; groups of eight hold two exact values, and E4M3 scales fit those of 16 better than predicted
LEVELS = {"mlx-mxfp4": 0.9, "mlx-nvfp4": 0.83, "w4-odd": 0.75, "mlx-w2-g32": 1.05, "w8-g32": 0.95, "mlx-w8-g64": 0.98}
FEW_VALUES = 1000  # a router of four rows scatters


@pytest.mark.parametrize("name", NAMES)
def test_decoded_weights_equal_the_librarys(name: str):
    """Exactly where the library computes in float32; MLX computes affine values in bfloat16."""
    checkpoint, weights = open_fixture("metal", name)
    expected = library_values("metal", name)
    assert len(expected) >= 2
    affine = name.startswith("mlx-") and not name.startswith(("mlx-mx", "mlx-nv"))
    for tensor, values in expected.items():
        dense = tensor if tensor in weights else tensor.replace("model.language_model", "language_model.model", 1)
        decoded = decode(METAL, checkpoint, weights[dense])
        assert np.abs(decoded - values).max() <= (8e-3 if affine else 0) * np.abs(values).max()


@pytest.mark.parametrize("name", NAMES)
def test_parts_decode_as_the_whole(name: str):
    checkpoint, weights = open_fixture("metal", name)
    for weight in weights.values():
        assert_windows_agree(METAL, checkpoint, weight)


@pytest.mark.parametrize("name", NAMES)
def test_the_error_is_what_theory_predicts(name: str):
    folder = CHECKPOINTS / "metal" / name
    judged = judge_files(folder, baseline_of(folder))
    _, weights = open_fixture("metal", name)
    large = {weight.module for weight in weights.values() if np.prod(weight.grid) > FEW_VALUES}
    rows = judged.measurements["weights"]
    assert isinstance(rows, list)
    rows = [row for row in rows if row["layer"] in large]
    assert len(rows) >= 12
    assert all(abs(row["R"] - LEVELS.get(name, 0.99)) <= 0.1 for row in rows), rows
    for check in ("weights.codes", "weights.error", "memory.ratio", "layers.coverage", "layers.tied"):
        assert judged.results[check].outcome in (Outcome.PASS, Outcome.SKIP), judged.text()


@pytest.mark.parametrize("name", NAMES)
def test_headers_alone_tell_bits_and_group_size(name: str):
    """Shapes give their product; the widths that occur in the file give each."""
    checkpoint, weights = open_fixture("metal", name)
    alone = {weight.dense: weight for weight in recognise(METAL, checkpoint)}
    assert alone.keys() == weights.keys()
    for dense, weight in weights.items():
        assert alone[dense].shape == weight.shape
        assert alone[dense].attributes == weight.attributes


@pytest.mark.parametrize("name", NAMES)
def test_configs_of_the_libraries_have_no_flaw(name: str):
    config = json.loads((CHECKPOINTS / "metal" / name / "config.json").read_text())["quantization_config"]
    assert config_flaws(METAL, config) == []


def test_a_layers_own_settings_replace_those_of_the_model():
    config = {"bits": 4, "group_size": 64, "a.b": {"bits": 6, "group_size": 32}, "a.c": False}
    assert METAL.planner is not None
    planned = METAL.planner(config)
    assert planned(("a.b",), "linear").attributes == {"mode": "affine", "bits": 6, "group_size": 32}
    assert planned(("a.c",), "linear").quantized is False
    assert planned(("a.d",), "linear").open


def test_settings_out_of_range_are_flaws():
    config = {"bits": 4, "group_size": 64, "a.b": {"bits": 7, "group_size": 32}}
    [(key, text)] = config_flaws(METAL, config)
    assert key == "a.b"
    assert "1, 2, 3, 4, 5, 6, 8" in text


def test_transformers_does_not_read_every_width():
    [(key, _)] = config_flaws(METAL, {"quant_method": "metal", "bits": 3, "group_size": 64})
    assert key == "bits"
