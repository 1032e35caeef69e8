"""What a plain YAML word means here: the YAML 1.2 core schema, plus dates, minus every word that readers dispute.

PyYAML follows YAML 1.1, where ``no`` is false, ``010`` is eight and ``1:30`` is ninety. A matrix that means something
else than it seems to say would test something else than it seems to test, so such words are refused, not guessed.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import TypeAlias

Scalar: TypeAlias = bool | int | float | str | dt.date | None

_CONSTANTS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_AFFIRMATIVE = frozenset({"yes", "on", "y"})
_NEGATIVE = frozenset({"no", "off", "n"})
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_NUMBER_LENGTH = 40  # longer than any number that a matrix can mean
_NUMBERS: tuple[tuple[re.Pattern[str], Callable[[str], int | float]], ...] = (
    (re.compile(r"[-+]?[0-9]+"), int),
    (re.compile(r"0o[0-7]+"), lambda text: int(text, 0)),
    (re.compile(r"0x[0-9a-fA-F]+"), lambda text: int(text, 0)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
    (re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"), lambda text: float(text.replace(".", ""))),
)
_DISPUTED = (
    (re.compile(r"[-+]?0[0-9]+"), "is octal to some readers and decimal to others: leave out the leading zero"),
    (re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"), "is a number in base 60 to some readers"),
    (re.compile(r"[-+]?0b[01_]+"), "is a binary number to some readers and text to others"),
    (
        re.compile(r"(?=.*_)[-+]?(0x[0-9a-fA-F_]+|[0-9][0-9_]*(\.[0-9_]*)?)"),
        "is a number to some readers and text to others: leave out the underscores",
    ),
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def resolve(text: str) -> tuple[Scalar, str | None]:
    """The value of an unquoted word and, when the word is refused, the sentence that says why and what to write."""
    if text in _CONSTANTS:
        return _CONSTANTS[text], None
    if text.lower() in _AFFIRMATIVE | _NEGATIVE:
        value = text.lower() in _AFFIRMATIVE
        why = f"{text} is a truth value to some readers and text to others"
        return value, f'{why}: write {str(value).lower()}, or "{text}" in quotes'
    if text[0] not in "+-.0123456789":
        return text, None
    if _DATE.fullmatch(text):
        return _date(text)
    for pattern, why in _DISPUTED:
        if pattern.fullmatch(text):
            return text, f'{text} {why}; or write "{text}" in quotes if it is text'
    return _number(text)


def control_character(text: str) -> str | None:
    """The first character that no text of a matrix may hold (tabs and line ends may), spelt as an escape."""
    found = _CONTROL.search(text)
    return ascii(found.group())[1:-1] if found else None


def _date(text: str) -> tuple[Scalar, str | None]:
    try:
        return dt.date.fromisoformat(text), None
    except ValueError:
        return text, f'{text} is no day of the calendar; write a date like 2026-12-31, or "{text}" in quotes'


def _number(text: str) -> tuple[Scalar, str | None]:
    convert = next((convert for pattern, convert in _NUMBERS if pattern.fullmatch(text)), None)
    if convert is None:
        return text, None
    if len(text) > _NUMBER_LENGTH:
        return text, f"a number of {len(text)} characters; write a shorter one, or put it in quotes if it is text"
    return convert(text), None
