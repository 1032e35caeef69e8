"""Everything wrong with a matrix in one list: each mistake knows its line, and nothing is told twice."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from checker.domain import Json, Location
from checker.errors import MatrixError, Mistake
from checker.matrix.yaml_tree import Node, Step

_SHOWN_LENGTH = 80
_MAX_SHOWN = 100
_MAX_MISTAKES = 1000  # nobody reads more, and suggestions take time


def shown(value: Json) -> str:
    """A foreign value as a message may hold it: one line, escaped, not too long; spelt as in YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = value.isoformat() if isinstance(value, dt.date) else repr(value)
    return text if len(text) <= _SHOWN_LENGTH else f"{text[: _SHOWN_LENGTH - 1]}…"


class Problems:
    """Collects mistakes by their path in the file; what lies under an already refused node is not told again."""

    def __init__(self, root: Node, file: str, mistakes: Sequence[Mistake] = ()) -> None:
        self.root = root
        self.original = root  # ``root`` may be pruned later
        self.file = file
        self.mistakes = list(mistakes)
        self.complete = not mistakes  # False: cells may be absent only because of a mistake that is already told

    def add(self, path: Sequence[Step], message: str) -> None:
        """Note a mistake at a path; the message follows the key, as in ``defaults.depth: must be …``."""
        nodes = list(self.root.along(path))
        if any(node.broken for node in nodes):
            return
        if len(self.mistakes) >= _MAX_MISTAKES:
            raise self.error()
        key = ".".join(ascii(step)[1:-1] for step in path if isinstance(step, str))
        self.mistakes.append(Mistake(f"{key}: {message}" if key else message, self.location(path)))

    def add_at(self, location: Location, message: str) -> None:
        """Note a mistake whose place is known already."""
        self.mistakes.append(Mistake(message, location))

    def location(self, path: Sequence[Step]) -> Location:
        """Where a path stands in the file, or its nearest ancestor."""
        return Location(file=self.file, line=self.root.line_of(path))

    def error(self) -> MatrixError:
        """All mistakes as one error, by line, each once."""
        return matrix_error(self.mistakes)


def matrix_error(mistakes: Sequence[Mistake]) -> MatrixError:
    """Mistakes as one error, by line, each once, and no more than anybody reads."""
    unique = sorted(dict.fromkeys(mistakes), key=lambda mistake: mistake.location.line if mistake.location else 0)
    more = len(unique) - _MAX_SHOWN
    rest = [Mistake(f"and {more} more mistakes", unique[_MAX_SHOWN].location)] if more > 0 else []
    return MatrixError(unique[:_MAX_SHOWN] + rest)
