"""A reference in place of its baseline: config and tensor headers, and of the data the sampled rows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from checker.checkpoint import Checkpoint, TensorHeader
from checker.checkpoint.data import numpy_dtype
from checker.checkpoint.source import Span
from checker.errors import NotApplicable, Unavailable
from checker.reference import Reference, Sample

if TYPE_CHECKING:
    from checker.checkpoint.data import Bytes


class RecordedSource:
    """The sampled rows of a baseline's tensors; each tensor is a file of its own name, of which the rest is absent."""

    @property
    def remote(self) -> bool:
        """Never."""
        return False

    @property
    def traffic(self) -> dict[str, int]:
        """None."""
        return {}

    def __init__(self, reference: Reference, headers: dict[str, TensorHeader]) -> None:
        self._reference = reference
        self._samples = {sample.name: sample for sample in reference.summary.samples}
        self._headers = headers

    def sample(self, name: str) -> Sample | None:
        """Which rows of a tensor there are."""
        return self._samples.get(name)

    def read(self, file: str, begin: int, end: int) -> Bytes:
        """Bytes of a tensor, if they lie within the sampled rows.

        Raises:
            NotApplicable: they do not.
        """
        sample = self._samples.get(file)
        if sample is not None:
            header = self._headers[file]
            start = sample.first * (header.nbytes // header.shape[0])
            data = self._reference.samples[file]
            if start <= begin <= end <= start + data.size:
                return data[begin - start : end - start]
        raise NotApplicable(
            f"the recorded reference holds no such part of {file}; name the baseline's files to see all"
        )

    def has(self, file: str, begin: int, end: int) -> bool:
        """Whether the range can be read."""
        del begin, end
        return file in self._samples

    def want(self, spans: Iterable[Span]) -> None:
        """Nothing to fetch."""

    def close(self) -> None:
        """Nothing to let go of."""


def open_recorded(reference: Reference) -> Checkpoint:
    """The baseline as far as a reference holds it.

    Raises:
        Unavailable: its table of tensors is damaged.
    """
    summary = reference.summary
    try:
        headers = {name: _header(name, dtype, shape) for name, (dtype, shape) in summary.tensors.items()}
    except NotApplicable as error:
        raise Unavailable(f"the reference {reference.path} cannot be used: {error}") from None
    for sample in summary.samples:
        header = headers[sample.name]
        rows = header.shape[0] if header.shape else 0
        size = sample.rows * (header.nbytes // rows) if rows else -1
        if not 0 <= sample.first <= sample.first + sample.rows <= rows or reference.samples[sample.name].size != size:
            raise Unavailable(
                f"the reference {reference.path} cannot be used: its sample of {sample.name} does not fit"
            )
    return Checkpoint(
        folder=Path(reference.path),
        config=dict(summary.config),
        tensors=headers,
        complete=True,
        source=RecordedSource(reference, headers),
    )


def _header(name: str, dtype: str, shape: tuple[int, ...]) -> TensorHeader:
    count = 1
    for size in shape:
        count *= size
    return TensorHeader(
        name=name, dtype=dtype, shape=shape, file=name, begin=0, end=count * numpy_dtype(dtype).itemsize
    )
