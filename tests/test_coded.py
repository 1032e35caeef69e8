"""Bytes, nibbles and cells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from decoding import dense

from checker.code_books import blocks_of, cell_variance, integer_book, nibbles, unpack_words
from checker.coded import LARGE_TILE, Place, Scaling, Window, tiled


def matrix(rows, columns):
    return np.arange(rows * columns, dtype=np.uint8).reshape(rows, columns)


def grid_of(rows, columns, tile):
    shape = (-(-rows // tile[0]), -(-columns // tile[1]))
    return np.arange(1, shape[0] * shape[1] + 1, dtype=np.float32).reshape(shape)


@pytest.mark.parametrize(
    ("rows", "columns", "tile", "pieces"),
    [
        pytest.param(4, 6, (1, 3), 1, id="runs within rows"),
        pytest.param(4, 6, (1, 4), 2, id="a shorter run at the end of each row"),
        pytest.param(4, 6, (2, 3), 1, id="tiles of two rows"),
        pytest.param(5, 7, (2, 3), 4, id="partial tiles at both edges"),
        pytest.param(5, 7, (128, 128), 1, id="one tile larger than the matrix"),
        pytest.param(5, 7, (1, 7), 1, id="whole rows"),
        pytest.param(5, 7, (5, 7), 1, id="one tile"),
    ],
)
def test_every_value_takes_the_scale_of_its_tile(rows, columns, tile, pieces):
    codes, scales = matrix(rows, columns), grid_of(rows, columns, tile)
    cut = tiled(codes, Scaling(scales=scales), tile, integer_book(8), Place.of((rows, columns)))
    assert len(cut) == pieces
    each = np.repeat(np.repeat(scales, tile[0], axis=0), tile[1], axis=1)[:rows, :columns]
    np.testing.assert_array_equal(dense(cut, (rows, columns)), codes * each)


def test_zeros_are_subtracted_before_and_offsets_added_after():
    scaling = Scaling(scales=np.float32([[2]]), zeros=np.float32([[3]]), offsets=np.float32([[0.5]]))
    cut = tiled(matrix(1, 4), scaling, (1, 4), integer_book(8), Place.of((1, 4)))
    np.testing.assert_array_equal(dense(cut, (1, 4)), [[-5.5, -3.5, -1.5, 0.5]])


def test_a_window_lies_at_its_place():
    window = Window(rows=slice(2, 3), columns=slice(3, 6))
    codes = matrix(4, 6)[2:3, 3:6]
    cut = tiled(codes, Scaling(scales=np.float32([[1]])), (1, 3), integer_book(8), Place.of((4, 6), window))
    values = dense(cut, (4, 6))
    np.testing.assert_array_equal(values[2, 3:], codes[0])
    assert np.isnan(values).sum() == 21


def test_permuted_columns_go_back_to_their_places():
    order = np.array([2, 0, 3, 1])
    place = replace(Place.of((2, 4)), columns=order)
    cut = tiled(matrix(2, 4), Scaling(scales=np.ones((2, 2), np.float32)), (1, 2), integer_book(8), place)
    np.testing.assert_array_equal(dense(cut, (2, 4))[:, order], matrix(2, 4))


@pytest.mark.parametrize("columns", [6, 8])
def test_tiles_that_begin_within_a_byte_are_unpacked(columns):
    packed = matrix(3, columns // 2) * 37
    scales = grid_of(3, columns, (1, 3))
    book = integer_book(4, bias=8, packed="low", limit=7)
    cut = tiled(packed, Scaling(scales=scales), (1, 3), book, Place.of((3, columns)))
    codes = np.stack([packed & 15, packed >> 4], axis=2).reshape(3, columns).astype(np.float32)
    np.testing.assert_array_equal(dense(cut, (3, columns)), (codes - 8) * np.repeat(scales, 3, axis=1)[:, :columns])
    assert all(piece.book.extreme[:16].tolist() == [abs(code - 8) >= 7 for code in range(16)] for piece in cut)
    np.testing.assert_allclose(cut[0].book.variance[:16], 1 / 12, rtol=1e-6)


def test_one_scale_for_a_large_matrix_is_handled_in_strips():
    codes = np.ones((1024, 1024), np.uint8)
    cut = tiled(codes, Scaling(scales=np.float32([[3]])), (1024, 1024), integer_book(8), Place.of((1024, 1024)))
    assert all(piece.one_scale and piece.tile_size <= LARGE_TILE for piece in cut)
    assert (dense(cut, (1024, 1024)) == 3).all()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_words_are_unpacked_low_bits_first_and_over_their_borders(bits):
    count = 96
    codes = np.random.default_rng(bits).integers(0, 1 << bits, (count, 5))
    words = np.zeros((-(-count * bits // 32), 5), np.uint64)
    for row in range(count):
        word, shift = divmod(row * bits, 32)
        words[word] |= codes[row].astype(np.uint64) << np.uint64(shift) & np.uint64(0xFFFFFFFF)
        if shift + bits > 32:
            words[word + 1] |= codes[row].astype(np.uint64) >> np.uint64(32 - shift)
    np.testing.assert_array_equal(unpack_words(words.astype(np.uint32), bits, count), codes)


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
