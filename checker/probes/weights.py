"""Numbers from the stored tensors, in numpy: scales, codes, and the error against the baseline. No torch.

For every quantized weight the squared error that its own scales and codes predict (each value uniform within its code's
cell, the block's maximum exact) is compared with the measured one: R = Σ(Ŵ−W)² / P. R is about 1 for a healthy layer of
any shape and weight distribution, and tens to millions when codes, scales or packing are wrong.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from checker.architecture import architecture_of, counterpart, pattern
from checker.checkpoint import Checkpoint
from checker.coded import CodedWeight, Float32
from checker.errors import NotApplicable
from checker.facts import ArtifactFacts, CodeFact, ErrorFact, Flaw, ScaleFact, StoredWeight, WeightFacts
from checker.registry import Method

CHUNK_VALUES = 1 << 16  # 256 kB of float32: three such arrays stay in a core's cache
SAMPLE_VALUES = 1 << 16
SAMPLE_BLOCKS = (16, 256)  # least and most per weight
NO_LIMIT = 1e12  # stands for an infinite ratio, which JSON cannot hold


@dataclass(slots=True)
class _Sums:
    """Running sums over the examined blocks of one weight, in float64."""

    predicted: float = 0.0  # P, with the variance of every value's cell
    error: float = 0.0  # Σ(Ŵ−W)²
    baseline: float = 0.0  # ΣW²
    decoded: float = 0.0  # ΣŴ²
    product: float = 0.0  # ΣŴW
    blocks: int = 0
    with_extreme: int = 0
    histogram: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))


def gather_weights(
    checkpoint: Checkpoint, baseline: Checkpoint | None, artifact: ArtifactFacts, method: Method, *, sampled: bool
) -> WeightFacts:
    """The weight facts of every quantized weight that is complete; the others are listed with the reason."""
    flaws = {weight.weight: _undecodable(weight, checkpoint) for weight in artifact.weights}
    whole = [weight for weight in artifact.weights if not flaws[weight.weight]]

    def measure(weight: StoredWeight) -> tuple[ScaleFact, CodeFact, ErrorFact | None]:
        assert method.decode is not None
        return _measure(weight, method.decode(checkpoint, weight), baseline, sampled=sampled)

    if method.decode is None:
        raise NotApplicable(f"weights of {method.id} cannot be decoded yet")
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        rows = list(pool.map(measure, whole))
    return WeightFacts(
        sampled=sampled,
        baseline=baseline is not None,
        scales=tuple(row[0] for row in rows),
        codes=tuple(row[1] for row in rows),
        errors=tuple(row[2] for row in rows if row[2] is not None),
        undecodable=tuple(Flaw(where=name, message=flaw) for name, flaw in flaws.items() if flaw),
    )


def _undecodable(weight: StoredWeight, checkpoint: Checkpoint) -> str:
    """Why a weight cannot be decoded: a flaw of its state, or a tensor that is absent or of another size."""
    if weight.flaws:
        return weight.flaws[0].message
    if weight.shape is None:
        return f"the dense shape of {weight.module} is not known"
    for expected in weight.expected:
        header = checkpoint.tensors.get(expected.name)
        if header is None and not expected.optional:
            return f"{expected.name} is missing"
        if header is not None and expected.nbytes is not None and header.nbytes != expected.nbytes:
            return f"{expected.name} has {header.nbytes} bytes instead of {expected.nbytes}"
        if header is not None and header.dtype != expected.dtype:
            return f"{expected.name} is stored as {header.dtype} instead of {expected.dtype}"
    return ""


def _measure(
    weight: StoredWeight, coded: CodedWeight, baseline: Checkpoint | None, *, sampled: bool
) -> tuple[ScaleFact, CodeFact, ErrorFact | None]:
    reference = _Reference(weight, coded, baseline) if baseline is not None else None
    sums = _Sums()
    with np.errstate(invalid="ignore", over="ignore"):  # hostile scales; they are counted and reported
        for blocks in _selection(coded, sampled=sampled):
            _add(sums, coded, blocks, reference)
    error = reference.fact(sums, coded) if reference is not None else None
    return _scale_fact(weight.module, coded), _code_fact(weight.module, coded, sums), error


def _selection(coded: CodedWeight, *, sampled: bool) -> Iterator[slice | npt.NDArray[np.int64]]:
    """The blocks to examine: all, a cache-sized slice at a time, or a fixed random sample spread over the weight."""
    count = coded.scales.size
    least, most = SAMPLE_BLOCKS
    wanted = max(least, min(most, SAMPLE_VALUES // coded.block_size))
    if sampled and wanted < count:
        yield np.sort(np.random.default_rng(0).choice(count, wanted, replace=False))
        return
    step = max(1, CHUNK_VALUES // coded.block_size)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _add(sums: _Sums, coded: CodedWeight, blocks: slice | npt.NDArray[np.int64], reference: _Reference | None) -> None:
    codes, scales = coded.codes[blocks], coded.scales[blocks]
    squared = np.square(scales, dtype=np.float64)
    variance = _look_up(coded.variance, codes) @ np.ones(codes.shape[1], np.float32)  # a product sums faster than sum
    extreme = _any(_look_up(coded.extreme, codes))
    # the largest value of a block lies on its code exactly, so its cell predicts no error
    sums.predicted += float(np.dot(np.maximum(variance - coded.extreme_variance * extreme, 0), squared))
    sums.blocks += scales.size
    sums.with_extreme += int(np.count_nonzero(extreme | (scales == 0)))
    sums.histogram += np.bincount(codes.reshape(-1), minlength=256)
    if reference is None or reference.flaw:
        return
    original = reference.blocks(blocks)
    decoded = _levels(coded, codes)
    decoded *= scales[:, None]
    decoded = decoded.reshape(-1)[: original.size]
    sums.baseline += float(np.dot(original, original))
    sums.decoded += float(np.dot(decoded, decoded))
    sums.product += float(np.dot(decoded, original))
    decoded -= original
    sums.error += float(np.dot(decoded, decoded))


def _levels(coded: CodedWeight, codes: npt.NDArray[np.uint8]) -> Float32:
    """Levels of the codes, [blocks, block size]; a byte's values are looked up as one word where they fit one."""
    per_byte = coded.levels.shape[1]
    if per_byte in (1, 2):
        words = np.ascontiguousarray(coded.levels).view(np.uint32 if per_byte == 1 else np.uint64).reshape(-1)
        return _look_up(words, codes).view(np.float32)
    return np.take(coded.levels, codes, axis=0).reshape(codes.shape[0], -1)


def _look_up(table: npt.NDArray[Any], codes: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """``table[codes]`` for a table of 256 entries, valid until this thread's next look-up in a table of that dtype.

    Without bounds checks, which a byte cannot fail, and into memory that is used again: fresh pages cost more than the
    arithmetic on them.
    """
    key = (table.dtype, codes.shape)
    if key not in _BUFFERS.arrays:
        _BUFFERS.arrays[key] = np.empty(codes.shape, table.dtype)
    return np.take(table, codes, out=_BUFFERS.arrays[key], mode="clip")


class _Buffers(threading.local):
    """One thread's arrays by dtype and shape; there are only as many as there are block sizes."""

    def __init__(self) -> None:
        self.arrays: dict[tuple[np.dtype[Any], tuple[int, ...]], npt.NDArray[Any]] = {}


_BUFFERS = _Buffers()


def _any(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Whether a row holds a true value; eight flags at a time where the row's length allows. [n, k] → [n]."""
    wide: npt.NDArray[Any] = flags.view(np.uint64) if flags.shape[1] % 8 == 0 else flags
    return np.asarray(wide.any(axis=1))


class _Reference:
    """The baseline's values of one weight, in the order of the codes."""

    def __init__(self, weight: StoredWeight, coded: CodedWeight, baseline: Checkpoint) -> None:
        self.layer, self.checkpoint, self.coded = weight.module, baseline, coded
        self.name = counterpart(weight.weight, baseline.tensors)
        self.transposed: Float32 | None = None
        self.flaw = ""
        header = baseline.tensors[self.name] if self.name else None
        if header is None:
            self.flaw = f"the baseline has no tensor {weight.weight}"
        elif header.dtype not in ("BF16", "F16", "F32", "F64"):
            self.flaw = f"the baseline stores {self.name} as {header.dtype}: it is no full-precision model"
        elif header.shape == coded.shape[::-1] and (header.shape != coded.shape or _is_transposed(weight, baseline)):
            self.transposed = baseline.float32(header.name).reshape(header.shape).T.reshape(-1)
        elif header.shape != coded.shape:
            self.flaw = f"the baseline's {self.name} has shape {list(header.shape)}, this one {list(coded.shape)}"

    def blocks(self, blocks: slice | npt.NDArray[np.int64]) -> Float32:
        """Flattened float32 values of the blocks; the padding of the last one is left out."""
        size, count = self.coded.block_size, math.prod(self.coded.shape)
        assert self.name is not None
        if isinstance(blocks, slice):
            start, stop = blocks.start * size, min(blocks.stop * size, count)
            if self.transposed is not None:
                return self.transposed[start:stop]
            return self.checkpoint.float32(self.name, start, stop)
        parts = [self.blocks(slice(index, index + 1)) for index in blocks.tolist()]
        return np.concatenate(parts)

    def fact(self, sums: _Sums, coded: CodedWeight) -> ErrorFact:
        """R, NRMSE, SQNR and gain from the sums; a layer of zeros that decodes to zeros is exact."""
        flaw = self.flaw
        if not flaw and not math.isfinite(sums.error):
            flaw = "the decoded weight is not finite"
        if flaw or sums.baseline == sums.error == 0:
            neutral = 1.0 if not flaw else 0.0
            return ErrorFact(
                layer=self.layer, ratio=neutral, nrmse=0.0, sqnr_db=0.0, gain=1.0, centred_gain=1.0, bits=coded.bits,
                flaw=flaw,
            )  # fmt: skip
        nrmse = math.sqrt(sums.error / sums.baseline) if sums.baseline else NO_LIMIT
        gain = sums.product / sums.decoded if sums.decoded else 0.0
        spread = sums.predicted / sums.decoded if sums.decoded else 0.0
        return ErrorFact(
            layer=self.layer,
            ratio=min(sums.error / sums.predicted, NO_LIMIT) if sums.predicted else NO_LIMIT if sums.error else 1.0,
            nrmse=nrmse,
            sqnr_db=-20 * math.log10(nrmse) if nrmse else NO_LIMIT,
            gain=gain,
            centred_gain=gain * (1 + spread),
            bits=coded.bits,
            values=sums.blocks * coded.block_size,
        )


def _is_transposed(weight: StoredWeight, baseline: Checkpoint) -> bool:
    """Whether the architecture keeps the dense weight [in, out]: a square shape does not tell."""
    return pattern(weight.weight) in architecture_of(baseline.config or {}).transposed


def _scale_fact(layer: str, coded: CodedWeight) -> ScaleFact:
    """Counts over all scales, also when the codes are sampled: they are few, and damage to them is often local."""
    scales = coded.scales
    zero = np.flatnonzero(scales == 0)
    with_data = 0
    if zero.size:
        nonzero_byte = (coded.levels != 0).any(axis=1)
        with_data = int(np.count_nonzero(np.take(nonzero_byte, coded.codes[zero]).any(axis=1)))
    return ScaleFact(
        layer=layer,
        blocks=scales.size,
        not_finite=int(np.count_nonzero(~np.isfinite(scales))),
        negative=int(np.count_nonzero(scales < 0)),
        zero=zero.size,
        zero_with_data=with_data,
        negative_allowed=coded.negative_scales,
        flaw=coded.scale_flaw,
        constant=bool(scales.size > 1 and zero.size < scales.size and scales.min() == scales.max()),
    )


def _code_fact(layer: str, coded: CodedWeight, sums: _Sums) -> CodeFact:
    weights = np.repeat(sums.histogram, coded.symbols.shape[1])
    counts = np.bincount(coded.symbols.reshape(-1), weights=weights, minlength=coded.symbol_count)
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return CodeFact(
        layer=layer,
        blocks=sums.blocks,
        with_extreme=sums.with_extreme,
        entropy_bits=float(-(shares * np.log2(shares)).sum()),
        unused_codes=max(coded.symbol_count - int(np.count_nonzero(counts)), 0),
        code_book_flaw=coded.code_book_flaw,
    )
