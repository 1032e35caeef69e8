"""The strict, torch-free reader of a checkpoint folder: config, tensor headers, memory-mapped tensors.

Everything in a checkpoint is hostile until proved otherwise. What is wrong with it is data (``Checkpoint.problems``),
never an exception, so that one unreadable file does not hide the others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from checker.checkpoint.config import config_problems, generation_problems, tokenizer_problems
from checker.checkpoint.files import list_folder
from checker.checkpoint.header import Header, TensorHeader, read_header
from checker.checkpoint.json_file import read_json
from checker.checkpoint.problem import Problem, Refused
from checker.checkpoint.weights import read_weights
from checker.domain import Json

if TYPE_CHECKING:  # numpy is imported by those who read numbers, not by those who only name a checkpoint
    from checker.checkpoint.data import Array, Bytes, Floats

__all__ = ["Checkpoint", "Header", "Problem", "TensorHeader", "open_checkpoint", "read_header"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A checkpoint folder as far as it can be read. Use it as a context manager, or call ``close``."""

    folder: Path
    config: dict[str, Json] | None = None
    tensors: Mapping[str, TensorHeader] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    complete: bool = False  # False: some weights could not be read, so a tensor's absence here proves nothing
    _maps: dict[str, Bytes] = field(default_factory=dict, repr=False, compare=False)

    @property
    def tensor_files(self) -> tuple[str, ...]:
        """The files that hold the tensors, sorted."""
        return tuple(sorted({header.file for header in self.tensors.values()}))

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors, headers not counted."""
        return sum(header.nbytes for header in self.tensors.values())

    def read(self, name: str) -> Bytes:
        """The bytes of a tensor: a read-only view of the mapped file, nothing is copied."""
        from checker.checkpoint.data import cut, map_file

        header = self.tensors[name]
        data = self._maps.get(header.file)
        if data is None:
            data = self._maps[header.file] = map_file(self.folder / header.file, header.file)
        return cut(data, header)

    def array(self, name: str) -> Array:
        """A tensor in its own type and shape, not copied.

        Raises:
            NotApplicable: its elements are smaller than a byte.
        """
        from checker.checkpoint.data import numpy_dtype

        header = self.tensors[name]
        return self.read(name).view(numpy_dtype(header.dtype)).reshape(header.shape)

    def float32(self, name: str, start: int = 0, stop: int | None = None) -> Floats:
        """Elements ``start:stop`` of the flattened tensor, converted; call it by chunks for a large tensor.

        Raises:
            NotApplicable: complex numbers, or elements smaller than a byte.
        """
        from checker.checkpoint.data import to_float32

        return to_float32(self.read(name), self.tensors[name].dtype, start, stop)

    def close(self) -> None:
        """Let go of the mapped files; each stays open as long as an array still looks into it."""
        self._maps.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_checkpoint(folder: Path, *, listed: Collection[str] = ()) -> Checkpoint:
    """Read a checkpoint's JSON files and headers; no tensor data yet. Never raises for what is in the folder.

    ``listed`` are the files of the Hub repository that ``folder`` was downloaded from (``Resolved.files``): pickles
    are not downloaded, and only the list tells that they are there.
    """
    try:
        place = list_folder(folder)
    except Refused as refused:
        return Checkpoint(folder=folder, problems=(refused.problem,))
    config = read_json(place, "config.json")
    weights = read_weights(place, config.value, listed)
    problems = (
        *config.problems,
        *config_problems(config.value),
        *weights.problems,
        *generation_problems(place),
        *tokenizer_problems(place),
    )
    return Checkpoint(
        folder=folder,
        config=config.value,
        tensors=weights.tensors,
        metadata=weights.metadata,
        problems=problems,
        complete=weights.complete,
    )
