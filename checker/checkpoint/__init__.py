"""The strict, torch-free reader of a checkpoint: config, tensor headers, tensors; of a folder, or by ranges of the Hub.

Everything in a checkpoint is hostile until proved otherwise. What is wrong with it is data (``Checkpoint.problems``),
never an exception, so that one unreadable file does not hide the others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from checker.checkpoint.completed import completed
from checker.checkpoint.config import config_problems, generation_problems, tokenizer_problems
from checker.checkpoint.files import Folder, list_folder
from checker.checkpoint.header import Header, TensorHeader, read_header
from checker.checkpoint.json_file import read_json
from checker.checkpoint.network import Network, Repository
from checker.checkpoint.problem import Problem, Refused
from checker.checkpoint.source import Source
from checker.checkpoint.weights import read_weights
from checker.domain import Json

if TYPE_CHECKING:  # numpy is imported by those who read numbers, not by those who only name a checkpoint
    from checker.checkpoint.data import Array, Bytes, Floats

SMALL_TENSOR = 1 << 16  # bytes; scales and states of a layer that cost more to ask for than to send
SMALL_TENSORS = 1 << 25  # bytes fetched at once of a kind of them

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
    source: Source | None = field(default=None, repr=False, compare=False)  # None: there is nothing to read

    @property
    def tensor_files(self) -> tuple[str, ...]:
        """The files that hold the tensors, sorted."""
        return tuple(sorted({header.file for header in self.tensors.values()}))

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors, headers not counted."""
        return sum(header.nbytes for header in self.tensors.values())

    @property
    def remote(self) -> bool:
        """Whether tensors are read over the network, where every read may cost a request."""
        return self.source is not None and self.source.remote

    def read(self, name: str) -> Bytes:
        """The bytes of a tensor, read-only: a view of the mapped file, or what the Hub sends."""
        header = self.tensors[name]
        if self.remote and header.nbytes <= SMALL_TENSOR:
            self._want_its_like(name)
        return self._bytes(header, 0, header.nbytes)

    def array(self, name: str) -> Array:
        """A tensor in its own type and shape, not copied.

        Raises:
            NotApplicable: its elements are smaller than a byte.
        """
        from checker.checkpoint.data import numpy_dtype

        header = self.tensors[name]
        dtype = numpy_dtype(header.dtype)
        return self.read(name).view(dtype).reshape(header.shape)

    def part(self, name: str, start: int, stop: int) -> Array:
        """Rows ``start:stop`` along a tensor's first axis, in its own type; nothing else is read.

        Raises:
            NotApplicable: its elements are smaller than a byte.
        """
        from checker.checkpoint.data import numpy_dtype

        header = self.tensors[name]
        dtype = numpy_dtype(header.dtype)
        begin, end, rows = _rows(header, start, stop)
        return self._bytes(header, begin, end).view(dtype).reshape(rows, *header.shape[1:])

    def float32(self, name: str, start: int = 0, stop: int | None = None) -> Floats:
        """Elements ``start:stop`` of the flattened tensor, converted; call it by chunks for a large tensor.

        Raises:
            NotApplicable: complex numbers, or elements smaller than a byte.
        """
        from checker.checkpoint.data import numpy_dtype, to_float32

        header = self.tensors[name]
        if start == 0 and stop is None:
            return to_float32(self.read(name), header.dtype)
        width = numpy_dtype(header.dtype).itemsize
        first, last, _ = slice(start, stop).indices(header.nbytes // width)
        return to_float32(self._bytes(header, first * width, max(first, last) * width), header.dtype)

    def want(self, name: str, rows: Iterable[tuple[int, int]]) -> None:
        """Say which rows ``part`` will be asked for soon: they are fetched together. Nothing for a local folder."""
        if self.source is not None and self.remote:
            header = self.tensors[name]
            spans = (_rows(header, *pair)[:2] for pair in rows)
            self.source.want([(header.file, header.begin + begin, header.begin + end) for begin, end in spans])

    def _bytes(self, header: TensorHeader, begin: int, end: int) -> Bytes:
        """Bytes of one tensor, counted from its own beginning."""
        if self.source is None:
            raise KeyError(header.name)
        return self.source.read(header.file, header.begin + begin, header.begin + end)

    def _want_its_like(self, name: str) -> None:
        """Fetch with a small tensor those of the same kind of all layers: whoever reads one will read the others."""
        assert self.source is not None
        header, kind = self.tensors[name], name.rpartition(".")[2]
        if self.source.has(header.file, header.begin, header.end):
            return
        spans = [(header.file, header.begin, header.end)]
        left = SMALL_TENSORS
        for other, item in self.tensors.items():
            if item.nbytes <= SMALL_TENSOR and other.endswith(kind) and other.rpartition(".")[2] == kind:
                left -= item.nbytes
                if left < 0:
                    break
                spans.append((item.file, item.begin, item.end))
        self.source.want(spans)

    def close(self) -> None:
        """Let go of mapped files and fetched ranges; a map stays open as long as an array still looks into it."""
        if self.source is not None:
            self.source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_checkpoint(
    folder: Path,
    *,
    listed: Collection[str] = (),
    repository: Repository | None = None,
    network: Network | None = None,
    file: str | None = None,
) -> Checkpoint:
    """Read a checkpoint's JSON files and headers; no tensor data yet. Never raises for what is in the checkpoint.

    ``listed`` are the files of the Hub repository that ``folder`` was downloaded from (``Resolved.files``): pickles
    are not downloaded, and only the list tells that they are there. With ``repository`` and ``network`` the files that
    ``folder`` lacks are read by ranges from the Hub. ``file`` is the one GGUF file of the folder that is meant.

    Raises:
        Unavailable: the Hub or the network does not deliver.
    """
    try:
        place = _place(folder, repository, network)
    except Refused as refused:
        return Checkpoint(folder=folder, problems=(refused.problem,))
    config = read_json(place, "config.json")
    weights = read_weights(place, config.value, listed, file)
    config = completed(place, config, weights)
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
        source=place.source({header.file for header in weights.tensors.values()}),
    )


def _place(folder: Path, repository: Repository | None, network: Network | None) -> Folder:
    if repository is None or network is None:
        return list_folder(folder)
    from checker.checkpoint.remote import open_remote

    return open_remote(folder, repository, network)


def _rows(header: TensorHeader, start: int, stop: int) -> tuple[int, int, int]:
    """Where rows of a tensor begin and end, in bytes from its own beginning, and how many there are."""
    first, last, _ = slice(start, stop).indices(header.shape[0])
    last = max(first, last)
    width = header.nbytes // header.shape[0] if header.shape[0] else 0
    return first * width, last * width, last - first
