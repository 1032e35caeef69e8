"""Decoded weights put together for comparison: what tests of every method's decoder share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from checker.checkpoint import Checkpoint, open_checkpoint
from checker.coded import CodedWeight, Window
from checker.domain import Json
from checker.facts import StoredWeight
from checker.inventory import Inventory
from checker.probes.artifact import find_quantization_config
from checker.probes.sampling import sample_windows
from checker.probes.tiles import decode_tiles
from checker.registry import Method, all_methods

FIXTURES = Path(__file__).parent / "fixtures"
CHECKPOINTS = FIXTURES / "checkpoints"


def method_of(method_id: str) -> Method:
    return next(method for method in all_methods() if method.id == method_id)


def fixtures_of(method_id: str) -> list[str]:
    """Names of a method's fixtures; there must be one."""
    names = sorted(path.parent.name for path in (CHECKPOINTS / method_id).glob("*/fixture.json"))
    assert names, f"no fixture of {method_id}"
    return names


def baseline_of(folder: Path) -> Path:
    """The dense model that a fixture was made from."""
    return FIXTURES / "baselines" / json.loads((folder / "fixture.json").read_text("utf-8"))["baseline"]


def recognise(
    method: Method, checkpoint: Checkpoint, config: Mapping[str, Json] | None = None
) -> tuple[StoredWeight, ...]:
    """What a method sees in a checkpoint, by headers alone unless a config is given."""
    found: tuple[StoredWeight, ...] = method.recognise(Inventory(checkpoint, config))
    return found


def open_fixture(method_id: str, name: str) -> tuple[Checkpoint, dict[str, StoredWeight]]:
    """A fixture and its weights by dense name, as the declared method sees them; without flaws."""
    checkpoint = open_checkpoint(CHECKPOINTS / method_id / name)
    weights = recognise(method_of(method_id), checkpoint, find_quantization_config(checkpoint.config or {})[1])
    assert not [flaw for weight in weights for flaw in weight.flaws]
    return checkpoint, {weight.dense: weight for weight in weights}


def library_values(method_id: str, name: str) -> dict[str, npt.NDArray[np.float32]]:
    """What the tool's own code decoded when the fixture was made, as float32, by dense tensor name."""
    from models import read_tensors

    tensors, _ = read_tensors(CHECKPOINTS / method_id / name / "dequantized.tensors")
    found = {}
    for key, tensor in tensors.items():
        if tensor.dtype == "BF16":
            values = (tensor.view("<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = tensor.view({"F32": "<f4", "F16": "<f2", "F64": "<f8"}[tensor.dtype]).astype(np.float32)
        found[key] = values.reshape(tensor.shape)
    return found


def dense(pieces: Iterable[CodedWeight], shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """The decoded pieces put in their places; NaN where none lies."""
    found = None
    for coded in pieces:
        grid = coded.place.grid
        found = np.full(grid, np.nan, np.float32) if found is None else found
        values = decode_tiles(coded, slice(0, coded.scaling.scales.size)).copy()
        rows = coded.place.rows.stop - coded.place.rows.start
        high, wide = coded.tile
        if grid[0] == 1:
            matrix = values.reshape(1, -1)[:, : values.size - coded.padding]
        else:
            matrix = values.reshape(rows // high, -1, high, wide).swapaxes(1, 2).reshape(rows, -1)
        found[coded.place.rows, coded.place.columns] = matrix
    assert found is not None
    return found.reshape(shape)


def decode(
    method: Method, checkpoint: Checkpoint, weight: StoredWeight, window: Window | None = None
) -> npt.NDArray[np.float32]:
    """A weight decoded, as a dense array of its shape; what a window leaves out is NaN."""
    assert method.decode is not None
    assert weight.shape is not None
    return dense(method.decode(checkpoint, weight, window), weight.shape)


def assert_windows_agree(method: Method, checkpoint: Checkpoint, weight: StoredWeight) -> None:
    """Parts of a weight decode to the same values as the whole does, at every corner that the grain allows."""
    whole = decode(method, checkpoint, weight).reshape(weight.grid)
    rows, columns = weight.grid
    high, wide = max(weight.grain[0], 1), weight.grain[1] or columns
    for top in {0, (rows - 1) // high * high}:
        for left in {0, (columns - 1) // wide * wide}:
            window = Window(rows=slice(top, min(top + high, rows)), columns=slice(left, min(left + wide, columns)))
            part = decode(method, checkpoint, weight, window).reshape(weight.grid)
            seen = ~np.isnan(part)
            assert seen.sum() == (window.rows.stop - top) * (window.columns.stop - left)
            np.testing.assert_array_equal(part[seen], whole[seen])
    assert sample_windows(weight)
