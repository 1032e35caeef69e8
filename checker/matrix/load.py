"""The way from a path to a ``Matrix``: read, parse, validate, look names up, expand; then raise or return."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from checker.domain import Waiver
from checker.errors import MatrixError, Mistake
from checker.matrix import Matrix, Vocabulary
from checker.matrix.document import Document
from checker.matrix.expand import expand
from checker.matrix.names import check_names
from checker.matrix.problems import Problems, matrix_error
from checker.matrix.validate import validate
from checker.matrix.yaml_tree import MAX_BYTES, parse_tree


def load(path: str, vocabulary: Vocabulary, forced: Mapping[str, object]) -> Matrix:
    """See ``checker.matrix.load_matrix``."""
    data = _read(path)
    root, mistakes = parse_tree(data, path)
    if root is None or root.value is None:
        empty = [Mistake(f"{ascii(path)[1:-1]} is empty; 'quant-verify init' writes a first matrix")]
        raise matrix_error(mistakes or empty)
    problems = Problems(root, path, mistakes)
    document = validate(problems)
    if document is None:
        raise problems.error()
    folder = Path(path).parent
    check_names(document, problems, vocabulary)
    cells = expand(document, problems, folder, forced)
    if problems.mistakes:
        raise problems.error()
    return Matrix(
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        cells=tuple(cells),
        waivers=_waivers(document, problems),
        references=folder / document.references if document.references else None,
    )


def _read(path: str) -> bytes:
    """At most one byte more than a matrix may have, so that not even an endless device fills the memory."""
    shown = ascii(path)[1:-1]
    try:
        with Path(path).open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        sentence = f"there is no matrix file {shown}; name another, or let 'quant-verify init' write a first one"
    except (OSError, ValueError) as error:
        sentence = f"the matrix file {shown} cannot be read: {getattr(error, 'strerror', None) or error}"
    raise MatrixError([Mistake(sentence)])


def _waivers(document: Document, problems: Problems) -> tuple[Waiver, ...]:
    return tuple(
        Waiver(
            cells=entry.cells,
            check=entry.check,
            where=entry.where,
            reason=entry.reason,
            until=entry.until,
            location=problems.location(("waivers", index)),
        )
        for index, entry in enumerate(document.waivers)
    )
