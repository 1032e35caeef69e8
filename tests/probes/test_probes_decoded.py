"""Some rows of a weight, decoded from the file: equal to the libraries' own values, whatever the layout."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from decoding import CHECKPOINTS, decode, library_values, method_of, open_fixture, recognise

from checker.checkpoint import open_checkpoint
from checker.errors import NotApplicable
from checker.probes.decoded import ROWS, decode_rows
from checker.registry import all_methods

COUNT = 8  # of small fixtures: few enough that they are not decoded whole
KNOWN = [
    (method.id, folder.parent.name)
    for method in all_methods()
    if method.decode is not None
    for folder in sorted((CHECKPOINTS / method.id).glob("*/dequantized.tensors"))
]
IN_BFLOAT16 = 2.0**-7  # relative to the largest value of a row: what rounding to bfloat16 may cost, twice


@pytest.mark.parametrize(("method_id", "name"), KNOWN, ids=str)
def test_rows_are_what_the_tool_decodes(method_id: str, name: str):
    method = method_of(method_id)
    checkpoint, weights = open_fixture(method_id, name)
    expected = library_values(method_id, name)
    matrices = {dense: weight for dense, weight in weights.items() if weight.shape and len(weight.shape) == 2}
    for dense, weight in matrices.items():
        numbers, found = decode_rows(checkpoint, weight, method, COUNT)
        assert found.shape == (numbers.size, weight.shape[1])
        assert min(COUNT, weight.shape[0]) <= numbers.size == np.unique(numbers).size
        np.testing.assert_array_equal(found, decode(method, checkpoint, weight)[numbers])
        if dense in expected:
            wanted = expected[dense].reshape(weight.shape)[numbers]
            assert (np.abs(found - wanted) <= IN_BFLOAT16 * np.abs(wanted).max(axis=1, keepdims=True)).all(), dense
    assert matrices.keys() & expected.keys() or not matrices or "llava" in name, "the tool names modules otherwise"


def test_rows_are_spread_over_the_weight():
    checkpoint, weights = open_fixture("compressed-tensors", "w8a8-dynamic")
    weight = max(weights.values(), key=lambda item: item.shape[0])
    numbers, _ = decode_rows(checkpoint, weight, method_of("compressed-tensors"), COUNT)
    assert numbers.size == COUNT
    assert numbers[0] == 0
    assert numbers[-1] == weight.shape[0] - 1
    assert np.diff(numbers).max() > weight.shape[0] // 5


@pytest.mark.parametrize("shape", [(640, 128), (130, 72), (200, 65), (7, 64), (64, 5)], ids=str)
@pytest.mark.parametrize("nested", [False, True], ids=["plain", "double"])
def test_blocks_that_run_on_from_row_to_row(tmp_path: Path, shape: tuple[int, int], nested: bool):
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("bitsandbytes.functional")
    save_file = pytest.importorskip("safetensors.torch").save_file
    dense = torch.randn(shape, generator=torch.Generator().manual_seed(math.prod(shape)))
    packed, state = functional.quantize_4bit(dense, quant_type="nf4", compress_statistics=nested)
    parts = {f"layer.weight.{name}": tensor for name, tensor in state.as_dict(packed=True).items()}
    save_file({"layer.weight": packed, **parts}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    checkpoint, method = open_checkpoint(tmp_path), method_of("bitsandbytes-4bit")
    [weight] = recognise(method, checkpoint)
    numbers, found = decode_rows(checkpoint, weight, method)
    assert numbers.size >= min(ROWS, shape[0])
    np.testing.assert_array_equal(found, functional.dequantize_4bit(packed, state).numpy()[numbers])


def test_what_is_no_matrix_is_not_decoded():
    checkpoint, weights = open_fixture("quark", "moe-fp8")
    weight = next(iter(weights.values()))
    for shape in (None, (2, *weight.shape)):
        with pytest.raises(NotApplicable, match="is no matrix"):
            decode_rows(checkpoint, replace(weight, shape=shape), method_of("quark"))
    with pytest.raises(NotApplicable, match="learned vectors"):
        decode_rows(checkpoint, weight, method_of("aqlm"))
