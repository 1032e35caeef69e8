"""Which part of a quantized weight can be compared where of its baseline only a recorded reference is at hand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from checker.checkpoint import Checkpoint
from checker.coded import CodedWeight, Place, Window
from checker.facts import StoredWeight
from checker.probes.original import Original
from checker.probes.tiles import width_of
from checker.reference.recorded import RecordedSource


def is_recorded(baseline: Checkpoint | None) -> bool:
    """Whether a baseline is what a reference holds of it."""
    return baseline is not None and isinstance(baseline.source, RecordedSource)


def recorded_part(weight: StoredWeight, original: Original) -> tuple[Window, slice] | None:
    """The window of the weight's grid to decode, and the rows in it whose values are recorded; None: nothing is.

    A window begins and ends where the layout allows it (``StoredWeight.grain``), and so may be higher than what was
    recorded. Of blocks that run on from row to row (a grid of one row) the window is just what was recorded.
    """
    source = original.checkpoint.source
    sample = source.sample(original.name) if isinstance(source, RecordedSource) else None
    if sample is None or original.flaw or not original.in_order:
        return None
    height, width = weight.grid
    grain = (max(1, weight.grain[0]), weight.grain[1] or width)
    inner = (weight.shape or (0,))[-1]
    if height == 1 and inner != width:
        first = math.ceil(sample.first * inner / grain[1]) * grain[1]
        last = (sample.first + sample.rows) * inner // grain[1] * grain[1]
        if sample.first + sample.rows == (weight.shape or (0,))[0]:
            last = width
        return (Window(rows=slice(0, 1), columns=slice(first, last)), slice(0, 1)) if first < last else None
    first = sample.first // grain[0] * grain[0]
    last = min(math.ceil((sample.first + sample.rows) / grain[0]) * grain[0], height)
    rows = slice(sample.first, sample.first + sample.rows)
    return Window(rows=slice(first, last), columns=slice(0, width)), rows


def cropped(pieces: Iterable[CodedWeight], rows: slice) -> Iterator[CodedWeight]:
    """What of decoded pieces lies in some rows of the grid; a tile that reaches beyond them is cut."""
    for coded in pieces:
        first = coded.place.rows.start
        low, high = max(rows.start, first) - first, min(rows.stop, coded.place.rows.stop) - first
        if low >= high or coded.padding:
            if coded.padding:  # a single piece that ends within a block: whole or not at all
                yield coded
            continue
        tall, wide = coded.tile
        across = math.ceil(width_of(coded) / wide)
        if high - low < tall and low % tall == 0:
            yield _cut(coded, low // tall * across, across, high - low)
        else:
            top, bottom = math.ceil(low / tall), high // tall
            if top < bottom:
                yield _taken(
                    coded, slice(top * across, bottom * across), slice(first + top * tall, first + bottom * tall)
                )


def _taken(coded: CodedWeight, tiles: slice, rows: slice) -> CodedWeight:
    """Whole rows of tiles."""
    scaling = coded.scaling
    return replace(
        coded,
        place=Place(grid=coded.place.grid, rows=rows, columns=coded.place.columns),
        codes=coded.codes[tiles],
        scaling=replace(
            scaling,
            scales=scaling.scales[tiles],
            zeros=None if scaling.zeros is None else scaling.zeros[tiles],
            offsets=None if scaling.offsets is None else scaling.offsets[tiles],
        ),
    )


def _cut(coded: CodedWeight, start: int, across: int, height: int) -> CodedWeight:
    """The first rows of one row of tiles."""
    tall, wide = coded.tile
    first = coded.place.rows.start + start // across * tall
    taken = _taken(coded, slice(start, start + across), slice(first, first + height))
    codes = taken.codes.reshape(across, tall, -1)[:, :height]
    return replace(taken, tile=(height, wide), codes=np.ascontiguousarray(codes).reshape(across, -1))
