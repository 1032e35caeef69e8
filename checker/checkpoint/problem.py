"""What is wrong with a checkpoint, as data: the reader never raises for it, so one bad file cannot hide the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from checker.domain import Severity

SHOWN_LENGTH = 160
MOST_OF_A_KIND = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing wrong with a file of a checkpoint; a check turns it into a finding.

    ``file`` is relative to the checkpoint, ``where`` a tensor name or a JSON key, or "" when the whole file is meant.
    All strings are one printable line: foreign text went through ``shown``.
    """

    severity: Severity = Severity.FAIL
    file: str
    where: str = ""
    message: str
    hint: str = ""


class Refused(Exception):
    """Carries the problem that ends the reading of one file up to the function that reports it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class Sayer(Protocol):
    """Makes the problem of one known file; see ``about``."""

    def __call__(self, message: str, *, where: str = "", hint: str = "", severity: Severity = Severity.FAIL) -> Problem:
        """One problem of the file."""


def about(file: str) -> Sayer:
    """A function that makes problems of ``file``, with every foreign string made printable."""

    def say(message: str, *, where: str = "", hint: str = "", severity: Severity = Severity.FAIL) -> Problem:
        return Problem(severity=severity, file=shown(file), where=shown(where), message=_printable(message), hint=hint)

    return say


def shown(text: str) -> str:
    """Foreign text as one printable line of bounded length: control and direction characters become escapes."""
    if len(text) > SHOWN_LENGTH:
        text = f"{text[:SHOWN_LENGTH]}…"
    return _printable(text)


def quoted(text: str) -> str:
    """Foreign text between quotation marks (``repr`` would escape the escapes)."""
    return f"'{shown(text)}'"


def capped(problems: Iterable[Problem], rest: str = "more problems of this kind") -> Iterator[Problem]:
    """The first problems and one that counts the rest: a hostile file must not fill the report."""
    stream = iter(problems)
    yield from islice(stream, MOST_OF_A_KIND)
    last = next(stream, None)
    if last is not None:
        count = 1 + sum(1 for _ in stream)
        yield Problem(severity=last.severity, file=last.file, message=f"{count:,} {rest} in {last.file}")


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
