"""The three ways in which something is not a finding.

A finding says that the model is wrong. An error says that we could not look, a skip says that there is nothing to
look at, and a usage error says that the question was not well put. They never share a type, so that a crash of ours
can never read as a verdict on a model (design §5, exit codes).
"""

from __future__ import annotations

from dataclasses import dataclass

from checker.domain import ErrorKind, Location


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong in a matrix file or on the command line, with its place when it has one."""

    message: str
    location: Location | None = None

    def __str__(self) -> str:
        if self.location is None:
            return self.message
        return f"{self.location.file}:{self.location.line}: {self.message}"


class MatrixError(Exception):
    """The matrix file cannot be used; carries every mistake found, not only the first. Exit code 2."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__("\n".join(str(mistake) for mistake in mistakes))
        self.mistakes = mistakes


class UsageError(Exception):
    """The command line asks for something that cannot be: a missing folder, an unknown check. Exit code 2."""


class Unavailable(Exception):
    """The environment's fault: no network, no memory, no GPU. The check becomes ``error``, the run exits 3."""

    def __init__(self, message: str, kind: ErrorKind = ErrorKind.NOT_RUN) -> None:
        super().__init__(message)
        self.kind = kind


class NotApplicable(Exception):
    """There is nothing to check here; the message is the reason a reader of the report sees."""
