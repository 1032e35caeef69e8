"""Numbers from the stored tensors, in numpy: scales, codes, and the error against the baseline. No torch.

For every quantized weight the squared error that its own scales and codes predict (each value uniform within its code's
cell, the block's maximum exact) is compared with the measured one: R = Σ(Ŵ−W)² / P. R is about 1 for a healthy layer of
any shape and weight distribution, and tens to millions when codes, scales or packing are wrong.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from checker.checkpoint import Checkpoint, TensorHeader
from checker.coded import CodedWeight, Float32
from checker.domain import Severity
from checker.errors import NotApplicable
from checker.facts import ArtifactFacts, CodeFact, ErrorFact, ExpectedTensor, Flaw, ScaleFact, StoredWeight, WeightFacts
from checker.probes.gains import LEAST_ROWS, fit_gains
from checker.probes.names import fused_name
from checker.probes.number_facts import Sums, code_fact, error_fact, scale_fact
from checker.probes.original import Original
from checker.probes.recorded_windows import cropped, is_recorded, recorded_part
from checker.probes.rescaling import norms_differ, was_rescaled
from checker.probes.sampling import REMOTE_WINDOWS, WINDOWS, sample_weights, sample_windows
from checker.probes.tiles import decode_tiles, look_up, runs
from checker.registry import Method

MOST_THREADS = 8
GAINS_ABOVE = 1.1  # R from which what calibration may have rescaled is fitted

Row = tuple[ScaleFact, CodeFact, ErrorFact | None]


def gather_weights(
    checkpoint: Checkpoint, baseline: Checkpoint | None, artifact: ArtifactFacts, method: Method, *, sampled: bool
) -> WeightFacts:
    """The weight facts of every quantized weight that is complete; the others are listed with the reason.

    ``sampled``: of each weight a few windows, of very many weights some of each kind, so that the cost does not grow
    with the model.
    """
    if method.decode is None:
        raise NotApplicable(method.not_decoded or f"weights of {method.id} cannot be decoded yet")
    flaws = {weight.weight: undecodable(weight, checkpoint) for weight in artifact.weights}
    whole = [weight for weight in artifact.weights if not flaws[weight.weight]]
    chosen = sample_weights(whole) if sampled else whole
    remote = checkpoint.remote or (baseline is not None and baseline.remote)
    windows = (REMOTE_WINDOWS if remote else WINDOWS) if sampled else 0
    reader = _Reader(checkpoint, baseline, method.decode, windows)
    threads = MOST_THREADS if remote else min(MOST_THREADS, os.cpu_count() or 1)  # remote ones wait, and do not compute
    with ThreadPoolExecutor(max_workers=threads) as pool:
        rows = list(pool.map(reader.measure, chosen))
        if method.rescales and baseline is not None:
            doubtful = [index for index, row in enumerate(rows) if _is_doubtful(row[2])]
            weights = [chosen[index] for index in doubtful]
            if is_recorded(baseline):
                if weights and norms_differ(checkpoint, baseline):  # and a few rows are too few to fit gains to
                    for index in doubtful:
                        rows[index] = (*rows[index][:2], None)
            elif weights and was_rescaled(checkpoint, baseline, weights, method.decode):
                for index, row in zip(doubtful, pool.map(reader.measure_rescaled, weights), strict=True):
                    rows[index] = row
    reasons = {weight.incomparable for weight in chosen}
    return WeightFacts(
        sampled=sampled,
        baseline=baseline is not None,
        scales=tuple(row[0] for row in rows),
        codes=tuple(row[1] for row in rows),
        errors=tuple(row[2] for row in rows if row[2] is not None),
        undecodable=tuple(Flaw(where=name, message=flaw) for name, flaw in flaws.items() if flaw),
        examined=len(chosen),
        total=len(artifact.weights),
        incomparable=next(iter(reasons)) if len(reasons) == 1 else "",
    )


def undecodable(weight: StoredWeight, checkpoint: Checkpoint) -> str:
    """Why a weight cannot be decoded: a flaw of its state, or a tensor that is absent or of another type or size."""
    for flaw in weight.flaws:
        if flaw.severity is Severity.FAIL:
            return flaw.message
    if weight.shape is None:
        return f"the dense shape of {weight.module} is not known"
    wrong = (_wrong(expected, checkpoint.tensors.get(expected.name)) for expected in weight.expected)
    return next((message for message in wrong if message), "")


def _wrong(expected: ExpectedTensor, header: TensorHeader | None) -> str:
    if header is None:
        return "" if expected.optional else f"{expected.name} is missing"
    if expected.nbytes is not None and header.nbytes != expected.nbytes:
        return f"{expected.name} has {header.nbytes} bytes instead of {expected.nbytes}"
    if header.dtype != expected.dtype:
        return f"{expected.name} is stored as {header.dtype} instead of {expected.dtype}"
    if expected.shape is not None and header.shape != expected.shape:
        return f"{expected.name} has shape {list(header.shape)} instead of {list(expected.shape)}"
    return ""


def _is_doubtful(fact: ErrorFact | None) -> bool:
    return fact is not None and not fact.flaw and fact.ratio > GAINS_ABOVE


@dataclass(frozen=True, slots=True)
class _Reader:
    """Measures one weight of a checkpoint after the other, whole or in ``windows`` windows."""

    checkpoint: Checkpoint
    baseline: Checkpoint | None
    decode: Callable[..., tuple[CodedWeight, ...]]
    windows: int

    def measure(self, weight: StoredWeight) -> Row:
        """Scales, codes and error of a weight."""
        return self._measure(weight, 1)

    def measure_rescaled(self, weight: StoredWeight) -> Row:
        """The same once what calibration has rescaled is taken off."""
        return self._measure(weight, LEAST_ROWS)

    def _measure(self, weight: StoredWeight, rows: int) -> Row:
        windows = sample_windows(weight, self.windows, rows) if self.windows else (None,)
        pieces = [piece for window in windows for piece in self.decode(self.checkpoint, weight, window)]
        original = None
        if self.baseline is not None and not weight.incomparable:
            original = Original(weight, self.baseline)
            if original.flaw and fused_name(weight, self.baseline):
                original = None  # its values lie among those of other experts, in an order that names do not tell
        sums = Sums()
        with np.errstate(invalid="ignore", over="ignore"):  # hostile scales; they are counted and reported
            if original is not None and is_recorded(self.baseline) and not original.flaw:
                for coded in pieces:
                    _add_piece(sums, coded, None)
                fact = self._measure_recorded(weight, original)
                return scale_fact(weight.module, pieces), code_fact(weight.module, pieces, sums), fact
            for coded in pieces:
                _add_piece(sums, coded, original)
            fact = None
            if original is not None:
                fact = error_fact(weight.module, original.flaw, sums, pieces[0].book.bits)
                if rows > 1:
                    fact = fit_gains(fact, pieces, original, sums.predicted)
        return scale_fact(weight.module, pieces), code_fact(weight.module, pieces, sums), fact

    def _measure_recorded(self, weight: StoredWeight, original: Original) -> ErrorFact | None:
        """The error over the rows that a recorded reference holds; None where it holds none."""
        part = recorded_part(weight, original)
        if part is None:
            return None
        pieces = self.decode(self.checkpoint, weight, part[0])
        sums = Sums()
        for coded in cropped(pieces, part[1]):
            _add_piece(sums, coded, original)
        return error_fact(weight.module, "", sums, pieces[0].book.bits) if sums.values else None


def _add_piece(sums: Sums, coded: CodedWeight, original: Original | None) -> None:
    before = sums.blocks, sums.with_extreme
    for tiles in runs(coded):
        _add(sums, coded, tiles, original)
    if coded.one_scale:  # its largest value lies in any one of the tiles
        sums.blocks = before[0] + 1
        sums.with_extreme = before[1] + int(sums.with_extreme > before[1])


def _add(sums: Sums, coded: CodedWeight, tiles: slice, original: Original | None) -> None:
    book, codes, scales = coded.book, coded.codes[tiles], coded.scaling.scales[tiles]
    squared = np.square(scales, dtype=np.float64)
    variance = look_up(book.variance, codes) @ np.ones(codes.shape[1], np.float32)  # a product sums faster than sum
    if book.promises_extreme:
        extreme = _any(look_up(book.extreme, codes))
        if book.extreme_variance:  # the largest value of a block lies on its code exactly: its cell predicts no error
            variance = np.maximum(variance - book.extreme_variance * extreme, 0)
        sums.blocks += scales.size
        sums.with_extreme += _reaching(coded, codes, scales, extreme)
    sums.predicted += float(np.dot(variance, squared))
    sums.histogram += np.bincount(codes.reshape(-1), minlength=256)
    if original is None or original.flaw:
        sums.values += codes.size * book.per_byte
        return
    values = original.tiles(coded, tiles)
    decoded = decode_tiles(coded, tiles).reshape(-1)[: values.size]
    sums.values += values.size
    sums.baseline += float(np.dot(values, values))
    sums.decoded += float(np.dot(decoded, decoded))
    sums.product += float(np.dot(decoded, values))
    decoded -= values
    sums.error += float(np.dot(decoded, decoded))


def _reaching(coded: CodedWeight, codes: npt.NDArray[np.uint8], scales: Float32, extreme: npt.NDArray[np.bool_]) -> int:
    """Blocks that hold an extreme code; a block that decodes to nothing but zeros counts as one."""
    reached = extreme | (scales == 0)
    rest = np.flatnonzero(~reached)
    if rest.size:
        levels = np.take(coded.book.levels, codes[rest], axis=0).reshape(rest.size, -1)
        same = levels == (0 if coded.scaling.zeros is None else levels[:, :1])
        reached[rest] = same.all(axis=1)
    return int(np.count_nonzero(reached))


def _any(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Whether a row holds a true value; eight flags at a time where the row's length allows. [n, k] → [n]."""
    wide: npt.NDArray[Any] = flags.view(np.uint64) if flags.shape[1] % 8 == 0 else flags
    return np.asarray(wide.any(axis=1))
