"""Bytes, nibbles and cells."""

from __future__ import annotations

import numpy as np
import pytest

from checker.coded import CodedWeight, blocks_of, cell_variance, nibbles


def coded(codes, levels):
    return CodedWeight(
        shape=(4,),
        codes=np.asarray(codes, np.uint8),
        scales=np.ones(len(codes), np.float32),
        levels=levels,
        variance=np.zeros(256, np.float32),
        extreme=np.zeros(256, np.bool_),
        extreme_variance=0.0,
        symbols=np.zeros((256, levels.shape[1]), np.uint8),
        symbol_count=16,
        bits=4,
    )


@pytest.mark.parametrize(("per_byte", "size"), [(1, 3), (2, 6), (4, 12)])
def test_block_size_counts_values(per_byte, size):
    assert coded([[0, 0, 0]], np.zeros((256, per_byte), np.float32)).block_size == size


def test_nibbles_come_in_storage_order():
    assert nibbles(high_first=True)[0xA7].tolist() == [0xA, 0x7]
    assert nibbles(high_first=False)[0xA7].tolist() == [0x7, 0xA]
    assert nibbles(high_first=True).shape == (256, 2)
    assert nibbles(high_first=True).dtype == np.uint8


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        pytest.param([1, 2, 3, 4], [[1, 2], [3, 4]], id="whole blocks"),
        pytest.param([1, 2, 3], [[1, 2], [3, 9]], id="the last one is filled"),
        pytest.param([1], [[1, 9]], id="less than one block"),
        pytest.param([], np.empty((0, 2)), id="nothing"),
    ],
)
def test_blocks(codes, expected):
    blocks = blocks_of(np.array(codes, np.uint8), 2, 9)
    assert blocks.dtype == np.uint8
    np.testing.assert_array_equal(blocks, expected)


def brute_force(levels):
    """Mean squared distance to each level over the part of the range where it is the nearest."""
    distinct = np.unique(levels)
    points = np.linspace(distinct[0], distinct[-1], 300_001)
    distance = np.abs(points[:, None] - distinct[None, :])
    nearest, squared = distinct[distance.argmin(axis=1)], distance.min(axis=1) ** 2
    return [squared[nearest == level].mean() for level in levels]


@pytest.mark.parametrize(
    "levels",
    [
        pytest.param([-1, 0, 1], id="even"),
        pytest.param([-1, -0.2, 0.1, 0.7, 1], id="uneven"),
        pytest.param([1, 0.1, -1, 0.0, -0.3], id="in any order"),
        pytest.param([0.0, 0.5, -0.0, -0.5, 1, -1], id="a negative zero"),
        pytest.param([0.2, 0.2, 1.0], id="repeated"),
    ],
)
def test_cell_variance_is_the_integral(levels):
    levels = np.array(levels, np.float32)
    variance = cell_variance(levels)
    assert variance.dtype == np.float32
    np.testing.assert_allclose(variance, brute_force(levels), rtol=2e-3)


def test_an_inner_cell_of_width_w_has_w_squared_over_twelve():
    levels = np.arange(-3, 4, dtype=np.float32) * np.float32(0.25)
    np.testing.assert_allclose(cell_variance(levels)[1:-1], 0.25**2 / 12, rtol=1e-6)


def test_a_single_level_has_no_cell():
    assert cell_variance(np.array([0.5], np.float32)).tolist() == [0.0]
