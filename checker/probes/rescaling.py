"""Whether calibration rescaled a model's channels before it was quantized (AWQ, SmoothQuant): the evidence for it.

Only then may gains be fitted: in a model that was not rescaled they would hide scales that are wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from checker.architecture import counterpart
from checker.checkpoint import Checkpoint
from checker.coded import CodedWeight
from checker.facts import StoredWeight
from checker.probes.gains import EQUAL, strips
from checker.probes.original import Original

MOST_NORMS = 64
MOST_PAIRS = 4
OPPOSITE = -0.9  # correlation of the gains of a layer's rows with those of the next one's columns
PAIRS = (("up_proj", "down_proj"), ("v_proj", "o_proj"), ("fc1", "fc2"), ("w3", "w2"))

Decode = Callable[[Checkpoint, StoredWeight, None], Sequence[CodedWeight]]
Ratios = npt.NDArray[np.float64]


def was_rescaled(checkpoint: Checkpoint, baseline: Checkpoint, weights: Sequence[StoredWeight], decode: Decode) -> bool:
    """Norms that differ from the baseline's, or pairs of layers of which one undoes what the other does.

    What AWQ and SmoothQuant take from the columns of a layer they give to the layer before: a norm's weight, or the
    rows of a projection (arXiv:2306.00978, section 3.2). ``weights``: those in doubt.
    """
    return norms_differ(checkpoint, baseline) or any(
        _opposite(checkpoint, baseline, pair, decode) for pair in list(_pairs(weights))[:MOST_PAIRS]
    )


def norms_differ(checkpoint: Checkpoint, baseline: Checkpoint) -> bool:
    """Whether the weight of any norm is not the baseline's."""
    norms = [name for name, header in checkpoint.tensors.items() if len(header.shape) == 1 and "norm" in name]
    for name in norms[:MOST_NORMS]:
        there = counterpart(name, baseline.tensors)
        if there is None or baseline.tensors[there].shape != checkpoint.tensors[name].shape:
            continue
        if not np.allclose(checkpoint.float32(name), baseline.float32(there), rtol=0.01, atol=0, equal_nan=True):
            return True
    return False


def _pairs(weights: Sequence[StoredWeight]) -> Iterator[tuple[StoredWeight, StoredWeight]]:
    """Layers in doubt that feed one another: the rows of the first are the columns of the second."""
    by_name = {weight.module: weight for weight in weights}
    for first in weights:
        parent, _, last = first.module.rpartition(".")
        for one, other in PAIRS:
            second = by_name.get(f"{parent}.{other}") if last == one else None
            if second is not None and first.grid[0] == second.grid[1]:
                yield first, second


def _opposite(
    checkpoint: Checkpoint, baseline: Checkpoint, pair: tuple[StoredWeight, StoredWeight], decode: Decode
) -> bool:
    """Whether what the rows of the first were multiplied by is what the columns of the second were divided by."""
    found = [_ratios(decode(checkpoint, weight, None), Original(weight, baseline)) for weight in pair]
    rows, columns = found[0][0], found[1][1]
    if rows.size != columns.size or min(np.std(rows), np.std(columns)) < EQUAL:
        return False
    return bool(np.corrcoef(rows, columns)[0, 1] < OPPOSITE)


def _ratios(pieces: Sequence[CodedWeight], original: Original) -> tuple[Ratios, Ratios]:
    """Logarithms of decoded to original norms, of each row and each column."""
    if original.flaw:
        return np.zeros(0), np.zeros(0)
    rows, columns = (np.zeros((2, size)) for size in pieces[0].place.grid)
    for coded in pieces:
        first = coded.place.rows.start
        for matrices in strips(coded, original):
            height = matrices[0].shape[0]
            for index, matrix in enumerate(matrices):
                squared = np.square(matrix, dtype=np.float64)
                rows[index, first : first + height] += squared.sum(axis=1)
                columns[index, coded.place.columns] += squared.sum(axis=0)
            first += height
    tiny = np.finfo(np.float64).tiny
    row, column = (np.log((sums[0] + tiny) / (sums[1] + tiny)) / 2 for sums in (rows, columns))
    return row, column
