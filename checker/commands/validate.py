"""Matrix files, read and nothing more: ``python -m checker.commands.validate FILE…``, the pre-commit hook."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from checker.commands.deliver import warn
from checker.commands.vocabulary import vocabulary
from checker.domain import ExitCode
from checker.errors import MatrixError, UsageError
from checker.matrix import load_matrix


def validate(paths: Iterable[str]) -> ExitCode:
    """Tell every mistake of every file on stderr; no checkpoint is opened."""
    mistakes = [mistake for path in paths for mistake in _mistakes(path)]
    for mistake in mistakes:
        warn(mistake)
    return ExitCode.USAGE if mistakes else ExitCode.PASSED


def _mistakes(path: str) -> Iterator[str]:
    try:
        load_matrix(path, vocabulary())
    except MatrixError as error:
        yield from map(str, error.mistakes)
    except UsageError as error:
        yield str(error)


if __name__ == "__main__":
    sys.exit(validate(sys.argv[1:]))
