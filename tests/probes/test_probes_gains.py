"""Gains of rows and columns: what AWQ and SmoothQuant rescale is taken off, what is wrong is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from models import Stored, write_tensors

from checker.checkpoint import Checkpoint, open_checkpoint
from checker.code_books import integer_book
from checker.coded import CodedWeight, Place, Scaling, tiled
from checker.facts import ErrorFact, StoredWeight
from checker.probes.gains import fit_gains
from checker.probes.original import Original
from checker.probes.rescaling import was_rescaled

ROWS, COLUMNS, GROUP = 128, 256, 64
UP, DOWN, NORM = "layers.0.mlp.up_proj", "layers.0.mlp.down_proj", "layers.0.norm.weight"


def stored(module: str, rows: int, columns: int) -> StoredWeight:
    return StoredWeight(module=module, weight=f"{module}.weight", shape=(rows, columns), attributes={}, expected=())


def save(folder: Path, tensors: dict[str, np.ndarray]) -> Checkpoint:
    folder.mkdir()
    parts = {
        name: Stored(dtype="F32", shape=list(value.shape), data=bytearray(value.astype("<f4").tobytes()))
        for name, value in tensors.items()
    }
    write_tensors(folder / "model.safetensors", parts, {})
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    return open_checkpoint(folder)


def quantized(values: np.ndarray, change: np.ndarray | float = 1.0) -> tuple[tuple[CodedWeight, ...], float]:
    """Rounded to 4 bits in groups, with scales multiplied by ``change`` afterwards; and the predicted error."""
    rows, columns = values.shape
    groups = values.reshape(rows, -1, GROUP)
    scales = np.abs(groups).max(axis=2) / 7.5
    codes = np.clip(np.rint(groups / scales[:, :, None]) + 8, 0, 15).astype(np.uint8).reshape(rows, columns)
    scales = (scales * change).astype(np.float32)
    book = integer_book(4, bias=8)
    pieces = tiled(codes, Scaling(scales=scales), (1, GROUP), book, Place.of((rows, columns)))
    return pieces, float((scales.astype(np.float64) ** 2).sum() * GROUP / 12)


def fact(ratio: float) -> ErrorFact:
    return ErrorFact(layer=UP, ratio=ratio, nrmse=1, sqnr_db=0, gain=1, centred_gain=1, bits=4)


@pytest.fixture
def weights() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ROWS, COLUMNS)).astype(np.float32)


def spread(size: int, seed: int) -> np.ndarray:
    return np.exp(0.3 * np.random.default_rng(seed).normal(size=size)).astype(np.float32)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        pytest.param(1, spread(COLUMNS, 1), id="columns, as SmoothQuant does"),
        pytest.param(spread(ROWS, 2)[:, None], 1, id="rows, of the layer before"),
        pytest.param(spread(ROWS, 2)[:, None], spread(COLUMNS, 1), id="both, as AWQ does"),
    ],
)
def test_what_calibration_rescales_is_no_error(tmp_path, weights, rows, columns):
    pieces, predicted = quantized(weights * rows * columns)
    original = Original(stored(UP, ROWS, COLUMNS), save(tmp_path / "base", {f"{UP}.weight": weights}))
    found = fit_gains(fact(50), list(pieces), original, predicted)
    assert found.fitted_gains
    assert found.ratio == pytest.approx(1, abs=0.1)
    assert found.nrmse == pytest.approx(0.11, abs=0.03)


@pytest.mark.parametrize(
    ("change", "at_least"),
    [
        pytest.param(2.0, 50, id="one factor for the whole layer is no calibration"),
        pytest.param(1.05, 50, id="nor is a drift of 5 %"),
        pytest.param(np.roll(np.eye(1, ROWS * COLUMNS // GROUP, 0) * 2 + 1, 7).reshape(ROWS, -1), 1.2, id="one group"),
    ],
)
def test_what_is_wrong_stays_wrong(tmp_path, weights, change, at_least):
    pieces, predicted = quantized(weights * spread(ROWS, 2)[:, None] if np.ndim(change) else weights, change)
    original = Original(stored(UP, ROWS, COLUMNS), save(tmp_path / "base", {f"{UP}.weight": weights}))
    assert fit_gains(fact(50), list(pieces), original, predicted).ratio >= at_least


def evidence(tmp_path, weights, *, norm=1.0, up=1.0, down=1.0) -> bool:
    """Whether a model whose norm, up and down projections were changed by these is taken for a rescaled one."""
    turned = np.ascontiguousarray(weights.T)
    base = save(tmp_path / "base", {f"{UP}.weight": weights, f"{DOWN}.weight": turned, NORM: np.ones(8)})
    here = save(tmp_path / "here", {NORM: np.full(8, norm)})
    pieces = {UP: quantized(weights * up)[0], DOWN: quantized(turned * down)[0]}
    pair = [stored(UP, ROWS, COLUMNS), stored(DOWN, COLUMNS, ROWS)]
    return was_rescaled(here, base, pair, lambda _checkpoint, weight, _window: pieces[weight.module])


def test_a_norm_that_differs_tells_of_rescaling(tmp_path, weights):
    assert evidence(tmp_path, weights, norm=1.3)


def test_two_layers_that_undo_each_other_tell_of_rescaling(tmp_path, weights):
    gains = spread(ROWS, 3)
    assert evidence(tmp_path, weights, up=gains[:, None], down=1 / gains)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="nothing changed"),
        pytest.param({"up": spread(ROWS, 3)[:, None]}, id="only one of them"),
        pytest.param({"up": spread(ROWS, 3)[:, None], "down": spread(ROWS, 4)}, id="both, but not alike"),
        pytest.param({"up": 2, "down": 0.5}, id="by one factor"),
    ],
)
def test_other_changes_do_not(tmp_path, weights, changes):
    assert not evidence(tmp_path, weights, **changes)
