"""EETQ's permuted int8: undone as documented, R where theory puts it. No tool could make these files here."""

from __future__ import annotations

import inspect
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
from checker.methods.eetq import restore
from checker.registry import config_flaws

EETQ = method_of("eetq")
NAMES = fixtures_of("eetq")


@pytest.mark.parametrize("name", NAMES)
def test_decoded_weights_equal_codes_times_scales(name: str):
    checkpoint, weights = open_fixture("eetq", name)
    expected = library_values("eetq", name)
    assert len(expected) >= 2
    for tensor, values in expected.items():
        decoded = decode(EETQ, checkpoint, weights[tensor]).astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(decoded, values)


@pytest.mark.parametrize(("outputs", "inputs"), [(64, 64), (128, 64), (64, 320), (192, 128)])
def test_the_permutation_is_that_of_pytorch(outputs: int, inputs: int):
    """PyTorch has FasterTransformer's permutation for its own kernels; only its question for a device is cut."""
    torch = pytest.importorskip("torch")
    from torch.quantization import _quantized_conversions as conversions

    name = "quantized_weight_reorder_for_mixed_dtypes_linear_cutlass"
    text = inspect.getsource(getattr(conversions, name)).replace('weight.device.type != "cuda"', "False")
    scope = {"torch": torch}
    exec(text, scope)
    codes = np.random.default_rng(outputs + inputs).integers(-128, 128, (inputs, outputs), np.int8)
    stored = scope[name](torch.from_numpy(codes), torch.int8).numpy().view(np.uint8).reshape(-1)
    np.testing.assert_array_equal(restore(stored, inputs), (codes.T.astype(np.int16) + 128).astype(np.uint8))


@pytest.mark.parametrize("name", NAMES)
def test_parts_decode_as_the_whole(name: str):
    checkpoint, weights = open_fixture("eetq", name)
    for weight in weights.values():
        assert_windows_agree(EETQ, checkpoint, weight)


@pytest.mark.parametrize("name", NAMES)
def test_the_error_is_what_theory_predicts(name: str):
    folder = CHECKPOINTS / "eetq" / name
    judged = judge_files(folder, baseline_of(folder))
    rows = judged.measurements["weights"]
    assert isinstance(rows, list)
    assert len(rows) >= 7
    assert all(abs(row["R"] - 1.03) <= 0.1 for row in rows), rows
    for check in ("weights.codes", "weights.error", "memory.ratio", "layers.coverage", "layers.excluded"):
        assert judged.results[check].outcome is Outcome.PASS, judged.text()


@pytest.mark.parametrize("name", NAMES)
def test_headers_alone_tell_the_layout(name: str):
    checkpoint, weights = open_fixture("eetq", name)
    alone = {weight.dense: weight for weight in recognise(EETQ, checkpoint)}
    assert {dense: weight.shape for dense, weight in alone.items()} == {
        dense: weight.shape for dense, weight in weights.items()
    }
    config = json.loads((CHECKPOINTS / "eetq" / name / "config.json").read_text())["quantization_config"]
    assert config_flaws(EETQ, config) == []
