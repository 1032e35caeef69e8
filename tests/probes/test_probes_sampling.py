"""Samples of weights: the same every time, of a size that no model changes, and where layouts can be cut."""

from __future__ import annotations

import pytest

from checker.facts import StoredWeight
from checker.probes.sampling import MOST_WEIGHTS, SAMPLE_VALUES, sample_weights, sample_windows


def weight(module: str = "model.layers.0.mlp.up_proj", *, grid=(4096, 4096), grain=(1, 0)) -> StoredWeight:
    return StoredWeight(
        module=module, weight=f"{module}.weight", shape=grid, attributes={}, expected=(), grid=grid, grain=grain
    )


def sizes(windows) -> list[int]:
    return [(window.rows.stop - window.rows.start) * (window.columns.stop - window.columns.start) for window in windows]


@pytest.mark.parametrize(
    ("grid", "grain"),
    [
        pytest.param((4096, 4096), (1, 0), id="rows"),
        pytest.param((4096, 14336), (1, 0), id="wide rows"),
        pytest.param((1, 4096 * 4096), (1, 64), id="blocks that run on"),
        pytest.param((4096, 4096), (1, 128), id="groups down the columns"),
        pytest.param((4096, 14336), (128, 128), id="square tiles"),
        pytest.param((4100, 5000), (128, 128), id="partial tiles at the edges"),
        pytest.param((128 * 2880, 2880), (1, 0), id="a stack of experts"),
    ],
)
@pytest.mark.parametrize("count", [1, 4])
def test_windows_lie_on_the_grain_and_inside(grid, grain, count):
    windows = sample_windows(weight(grid=grid, grain=grain), count)
    assert windows == sample_windows(weight(grid=grid, grain=grain), count)
    assert 1 <= len(windows) <= count
    for window in windows:
        for cut, size, step in ((window.rows, grid[0], grain[0]), (window.columns, grid[1], grain[1] or grid[1])):
            assert 0 <= cut.start < cut.stop <= size
            assert cut.start % step == 0
            assert cut.stop % step == 0 or cut.stop == size


def test_the_sample_does_not_grow_with_the_weight():
    small, large = (sum(sizes(sample_windows(weight(grid=(rows, 4096))))) for rows in (4096, 1 << 20))
    assert small == large <= 2 * SAMPLE_VALUES


def test_a_small_weight_is_read_whole():
    assert sample_windows(weight(grid=(128, 128))) == (None,)


def test_enough_rows_are_taken_where_gains_are_to_be_fitted():
    windows = sample_windows(weight(grid=(4096, 14336)), 4, 64)
    assert all(window.rows.stop - window.rows.start >= 64 for window in windows)


def test_every_kind_of_many_weights_is_in_the_sample():
    rare = weight("model.layers.7.self_attn.o_proj")
    many = [weight(f"model.layers.{n % 61}.mlp.experts.{n}.up_proj") for n in range(5000)]
    chosen = sample_weights([*many, rare])
    assert len(chosen) == MOST_WEIGHTS
    assert rare in chosen
    assert chosen == sample_weights([*many, rare])
    assert [item for item in [*many, rare] if item in chosen] == chosen


def test_few_weights_are_all_taken():
    few = [weight(f"model.layers.{n}.mlp.up_proj") for n in range(200)]
    assert sample_weights(few) == few
