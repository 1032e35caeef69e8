"""Writing a reference: whole or not at all, in the full form of the cache or in the small one that is recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from checker.atomic import replacing
from checker.reference import Row, Summary
from checker.reference.read import summary_type

Array = npt.NDArray[Any]


def write_reference(
    path: Path,
    summary: Summary,
    rows: Sequence[Row],
    hidden: Mapping[str, npt.NDArray[np.float32]],
    samples: Mapping[str, npt.NDArray[np.uint8]],
) -> None:
    """Write a reference file, beside its place first and then renamed into it.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    from safetensors.numpy import save_file

    tensors: dict[str, Array] = {"summary": np.frombuffer(summary_type().dump_json(summary), np.uint8)}
    for number, row in enumerate(rows):
        tensors |= {f"{name}.{number}": values for name, values in _of_row(row).items()}
    for number, name in enumerate(summary.blocks):
        tensors[f"hidden.{number}"] = bfloat16_bits(hidden[name])
    for number, sample in enumerate(summary.samples):
        tensors[f"sample.{number}"] = np.ascontiguousarray(samples[sample.name])
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        save_file(tensors, temporary)


def _of_row(row: Row) -> dict[str, Array]:
    name = "log_probabilities" if row.likely is None else "likely_log_probabilities"
    tensors: dict[str, Array] = {
        "tokens": np.array(row.tokens, np.int32),
        "true_log_probabilities": row.true_log_probabilities,
        "entropies": row.entropies,
        "most_likely": row.most_likely,
        "noise": row.noise,
        "self_noise": row.self_noise,
        name: row.log_probabilities,
    }
    if row.likely is not None:
        tensors["likely"] = row.likely
    return {key: np.ascontiguousarray(values) for key, values in tensors.items()}


def bfloat16_bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The upper halves of float32 numbers, rounded to nearest even; NaN and infinities are not expected."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return (rounded >> 16).astype(np.uint16)
