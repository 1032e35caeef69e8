"""What the worker of a cell's files leaves for the worker of its model: facts, and some rows of every weight decoded.

Both lie in the cell's scratch folder: the facts as JSON, checked against their types when they are read, the rows as
bare float32, mapped when they are read. What is absent, because it is too large, cannot be written or because that
worker died over it, is gathered again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import TypeAdapter

from checker.atomic import replacing
from checker.domain import Depth
from checker.errors import NotApplicable
from checker.facts import ArtifactFacts, StoredWeight, WeightFacts
from checker.probes.decoded import UNDECODED, Decoded, decode_rows
from checker.probes.weights import undecodable

if TYPE_CHECKING:
    from checker.subject import Subject

FACTS, ROWS = "facts.json", "rows.f32"
MOST_JSON = 64 << 20  # bytes; more is gathered again as fast as it is read
MOST_ROWS = 256 << 20  # bytes; weights beyond are decoded while the model runs


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedRows:
    """Where ``ROWS`` goes on with a weight: ``len(numbers)`` rows of ``inputs`` values each."""

    weight: str
    numbers: tuple[int, ...]
    inputs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Handed:
    """Everything that is handed over but the values of the rows."""

    artifact: ArtifactFacts | None = None
    weights: WeightFacts | None = None
    tokenizer: str | None = None  # digest; a vocabulary of 100,000 words takes a while to read
    rows: tuple[DecodedRows, ...] = ()


def hand_over(subject: Subject) -> None:
    """Leave what this worker has gathered, and rows to compare the modules of the model with where it will be run.

    Nothing is left that would not arrive as it is: JSON has no NaN, and no half of a surrogate pair.

    Raises:
        OSError: the scratch folder cannot be written.
        ValueError: a fact is nothing that JSON can hold.
    """
    folder = Path(subject.job.scratch)
    artifact: ArtifactFacts | None = subject.gathered(ArtifactFacts)
    if artifact is None:
        return
    rows: tuple[DecodedRows, ...] = ()
    if subject.job.cell.settings.depth is Depth.FULL and not subject.blocked:
        subject.say("decoding some rows of every weight")
        rows = _rows(subject, artifact.weights, folder / ROWS)
    tokenizer = None if subject.job.reference is None else subject.tokenizer
    handed = Handed(artifact=artifact, weights=subject.gathered(WeightFacts), tokenizer=tokenizer, rows=rows)
    adapter = TypeAdapter(Handed)
    data = adapter.dump_json(handed)
    if len(data) <= MOST_JSON and adapter.validate_json(data) == handed:
        with replacing(folder / FACTS) as place:
            place.write_bytes(data)
    else:
        (folder / ROWS).unlink(missing_ok=True)


def _rows(subject: Subject, weights: tuple[StoredWeight, ...], path: Path) -> tuple[DecodedRows, ...]:
    """The rows written to ``path``, or none where the disk has no room for them."""
    try:
        return tuple(_write_rows(subject, weights, path))
    except OSError:
        path.unlink(missing_ok=True)
        return ()


def _write_rows(subject: Subject, weights: tuple[StoredWeight, ...], path: Path) -> Iterator[DecodedRows]:
    """Decode and write; a weight that cannot be decoded is left to the one who wants it, and the reason with it."""
    method = subject.stored_method
    if method is None or method.decode is None:
        return
    written = 0
    with path.open("wb") as file:
        for weight in weights:
            if weight.incomparable or undecodable(weight, subject.checkpoint):
                continue
            try:
                numbers, values = decode_rows(subject.checkpoint, weight, method)
            except (NotApplicable, *UNDECODED):
                continue
            written += values.nbytes
            if written > MOST_ROWS:
                return
            file.write(np.ascontiguousarray(values).data)
            yield DecodedRows(weight=weight.weight, numbers=tuple(numbers.tolist()), inputs=values.shape[1])


def read_handed(folder: Path) -> Handed:
    """The facts that were handed over; empty when there are none that can be read."""
    try:
        return TypeAdapter(Handed).validate_json((folder / FACTS).read_bytes())
    except (OSError, ValueError):
        return Handed()


def read_rows(folder: Path, rows: tuple[DecodedRows, ...]) -> Mapping[str, Decoded]:
    """The decoded rows by the name of their packed tensor, mapped; none where the file is not there or not whole."""
    count = sum(len(row.numbers) * row.inputs for row in rows)
    try:
        values = np.memmap(folder / ROWS, np.float32, "c", shape=(count,))  # torch takes no array that is read-only
    except (OSError, ValueError):  # ValueError: it is shorter, or there is nothing to map
        return {}
    found, start = {}, 0
    for row in rows:
        stop = start + len(row.numbers) * row.inputs
        found[row.weight] = (np.array(row.numbers, np.int64), values[start:stop].reshape(-1, row.inputs))
        start = stop
    return found
