"""The matrix file: which models, quantized how, judged by what (design §6).

``load_matrix`` turns a file into cells, or raises one ``MatrixError`` with everything that is wrong. What reads YAML
and validates it is imported when a file is loaded, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from checker.domain import Cell, Json, Waiver


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """What a matrix may name; passed in, because checks and methods are of a higher level than the matrix."""

    check_ids: Sequence[str]
    limit_names: Sequence[str]  # "check.metric"
    check_quantization: Callable[
        [Mapping[str, Json]], list[tuple[str, str]]
    ]  # (key, or "" for the whole; what is wrong)


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """A matrix file, read. Excluded cells are left out; expired waivers are not, the runner ignores them."""

    path: str  # as the caller gave it
    sha256: str
    cells: tuple[Cell, ...]
    waivers: tuple[Waiver, ...] = ()
    references: Path | None = None


def load_matrix(path: str | Path, vocabulary: Vocabulary, *, forced: Mapping[str, object] | None = None) -> Matrix:
    """Read a matrix file. ``forced`` holds fields of ``Settings`` from the command line and the environment.

    Raises:
        MatrixError: the file is absent or anything in it is wrong; carries every mistake, sorted by line.
    """
    from checker.matrix.load import load

    return load(str(path), vocabulary, forced or {})
