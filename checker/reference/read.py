"""Reading a reference: as strict as with a checkpoint, for a recorded one comes with a pull request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from checker.checkpoint.data import cut, map_file, numpy_dtype
from checker.checkpoint.header import Header, TensorHeader, read_header
from checker.checkpoint.problem import shown
from checker.domain import Severity
from checker.errors import Unavailable
from checker.reference import LEAST_POSITIONS, NOISE, ROW_LENGTHS, TOP, Reference, Row, Summary

LARGEST_SUMMARY = 64 << 20  # bytes
ALMOST_ONE = 1.001  # the sum of probabilities that float32 has rounded up
Array = npt.NDArray[Any]


@cache
def summary_type() -> TypeAdapter[Summary]:
    """The validator of the JSON part."""
    return TypeAdapter(Summary)


def read(path: Path) -> Reference:
    """See ``checker.reference.read_reference``."""
    header = read_header(path, path.name)
    flaw = next((problem.message for problem in header.problems if problem.severity is Severity.FAIL), "")
    if flaw:
        raise _damaged(path, flaw)
    file = _File(path, header.tensors, map_file(path, path.name))
    summary = _summary(file, header)
    rows = tuple(_row(file, summary, number) for number in range(summary.rows))
    hidden = {
        name: (
            file.array(f"hidden.{number}", "U16", (len(summary.block_positions), None)).astype(np.uint32) << 16
        ).view(np.float32)
        for number, name in enumerate(summary.blocks)
    }
    samples = {
        sample.name: file.array(f"sample.{number}", "U8", (None,)) for number, sample in enumerate(summary.samples)
    }
    return Reference(path=path, summary=summary, rows=rows, hidden=hidden, samples=samples)


@dataclass(frozen=True, slots=True)
class _File:
    """The tensors of a mapped file, each checked for type and shape as it is taken."""

    path: Path
    tensors: Mapping[str, TensorHeader]
    data: npt.NDArray[np.uint8]

    def array(self, name: str, dtype: str, shape: tuple[int | None, ...]) -> Array:
        header = self.tensors.get(name)
        if header is None:
            raise _damaged(self.path, f"it holds no tensor {name}")
        fits = len(header.shape) == len(shape) and all(
            want in (None, have) for want, have in zip(shape, header.shape, strict=True)
        )
        if header.dtype != dtype or not fits:
            raise _damaged(self.path, f"its tensor {name} is {header.dtype} {list(header.shape)}")
        found = cut(self.data, self.path.name, header.begin, header.end)
        return found.view(numpy_dtype(dtype)).reshape(header.shape)


def _summary(file: _File, header: Header) -> Summary:
    entry = header.tensors.get("summary")
    if entry is None or entry.dtype != "U8" or entry.nbytes > LARGEST_SUMMARY:
        raise _damaged(file.path, "it holds no summary, so it is no reference")
    try:
        summary = summary_type().validate_json(cut(file.data, file.path.name, entry.begin, entry.end).tobytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "its summary"
        raise _damaged(file.path, f"{shown(place)}: {first['msg']}") from None
    known = {sample.name for sample in summary.samples} <= summary.tensors.keys()
    sizes = 0 < summary.rows <= len(ROW_LENGTHS) and summary.vocabulary >= 1 and summary.parameters >= 0
    if not (sizes and known and summary.noise_nrmse == NOISE):
        raise _damaged(file.path, "its summary contradicts itself, or another version wrote it")
    return summary


def _row(file: _File, summary: Summary, number: int) -> Row:
    tokens = file.array(f"tokens.{number}", "I32", (None,))
    count, words = max(tokens.size - 1, 0), summary.vocabulary
    if not (1 if number else LEAST_POSITIONS) <= count <= max(ROW_LENGTHS):
        raise _damaged(file.path, f"row {number} has {count} positions")
    if tokens.min() < 0 or tokens.max() >= words:
        raise _damaged(file.path, f"tokens.{number} does not fit a vocabulary of {words}")
    likely = None if summary.full else file.array(f"likely.{number}", "I32", (count, min(TOP, words)))
    if likely is not None and (likely.min() < 0 or likely.max() >= words):
        raise _damaged(file.path, f"likely.{number} does not fit a vocabulary of {words}")
    name = "log_probabilities" if likely is None else "likely_log_probabilities"
    figures = {
        key: file.array(f"{key}.{number}", "F32", (count,))
        for key in ("true_log_probabilities", "entropies", "noise", "self_noise")
    }
    if not all(np.isfinite(values).all() for values in figures.values()):
        raise _damaged(file.path, f"row {number} holds numbers that are not finite")
    if min(figures["noise"].min(), figures["self_noise"].min()) < 0 or not figures["noise"].any():
        raise _damaged(file.path, f"the noise of row {number} is none")
    logs = file.array(f"{name}.{number}", "F32", (count, words if likely is None else likely.shape[1]))
    if likely is not None and not (np.isfinite(logs).all() and np.exp(logs).sum(axis=1).max() <= ALMOST_ONE):
        raise _damaged(file.path, f"{name}.{number} holds numbers that are no logarithms of probabilities")
    return Row(
        tokens=tuple(map(int, tokens)),
        most_likely=file.array(f"most_likely.{number}", "I32", (count,)),
        log_probabilities=logs,
        likely=likely,
        **figures,
    )


def _damaged(path: Path, reason: str) -> Unavailable:
    remedy = "write it anew with quant-verify record"
    if "LFS" in reason:
        remedy = "fetch it with git lfs pull (in a workflow: lfs: true of actions/checkout)"
    return Unavailable(f"the reference {shown(str(path))} cannot be used: {reason}; {remedy}")
