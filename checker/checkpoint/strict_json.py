"""JSON without the liberties of Python's parser, for text that was written to deceive.

Two readers that understand one text differently are how a file passes a checker and then loads as something else
(duplicate keys are the published case), so whatever parsers disagree on is refused or made visible here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from checker.checkpoint.problem import SHOWN_LENGTH
from checker.domain import Json

MOST_VALUES = 2_000_000  # 400,000 tensors; without it 100 MB of "[],[],…" become gigabytes of empty lists
MOST_DIGITS = (
    300  # tokenizer configs say 10^30 for "no limit"; from 309 digits on serde_json refuses, and int() is slow
)
LARGEST_BEYOND_ASCII = 50_000_000  # bytes; one character beyond the BMP makes Python hold four bytes for every one
_MINUS_ZERO = re.compile(rb"-0(?![0-9])")  # before another digit, as in the names of shards, it is no number
_DIGITS = bytes.maketrans(b"123456789", b"000000000")  # to find runs of digits as runs of zeros
Path = tuple[Any, ...]  # () or (parent path, key): rendered only when shown, or long keys would cost their square


class Malformed(ValueError):
    """The text is not JSON as we accept it; the message completes "the file …"."""


class Repeated(dict[str, Any]):
    """An object in which a key stood more than once; like every parser of the kind, the last one is kept."""

    __slots__ = ("key",)
    key: str


def parse(raw: bytes, *, finite: bool) -> Json:
    """The value of a JSON text. Objects with duplicate keys come back as ``Repeated``.

    ``finite`` refuses NaN and infinity outright; otherwise they are in the result, where their key can be named.

    Raises:
        Malformed: the text cannot be used at all.
    """
    if raw.count(b",") > MOST_VALUES:
        raise Malformed(f"holds more than {MOST_VALUES:,} values")
    if len(raw) > LARGEST_BEYOND_ASCII and not raw.isascii():
        raise Malformed(f"has {len(raw):,} bytes, which above {LARGEST_BEYOND_ASCII:,} must be ASCII")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"is not UTF-8 (byte {error.start:,})") from None
    try:
        value = _load(raw, text, _finite if finite else _float)
    except json.JSONDecodeError as error:
        raise Malformed(f"is not valid JSON: {error.msg} at character {error.pos:,}") from None
    except RecursionError:
        raise Malformed("is nested too deeply") from None
    if "\\u" in text:
        _refuse_lone_surrogates(value)
    return value


def _load(raw: bytes, text: str, number: Callable[[str], float]) -> Json:
    """The value of a text; without a call from the C parser for every object and integer where none is needed.

    It is not needed where nothing is escaped, no integer is ``-0`` or too long, and every colon of the text separates a
    key of the value from its own: had a key stood twice, the lost one's colon would be left over.
    """
    hooks: dict[str, Any] = {"parse_float": number, "parse_constant": number}
    long = b"0" * (MOST_DIGITS + 1)
    if b"\\" not in raw and not _MINUS_ZERO.search(raw) and long not in raw.translate(_DIGITS):
        value = json.loads(text, **hooks)
        if raw.count(b":") == _keys(value):
            return value
    return json.loads(text, object_pairs_hook=_object, parse_int=_integer, **hooks)


def _keys(value: Json) -> int:
    """How many keys the upper two levels of a value hold: those of a header and of an index, not of every config."""
    if not isinstance(value, dict):
        return 0
    return len(value) + sum([len(item) for item in value.values() if isinstance(item, dict)])


def walk(value: Json, *, texts: bool = True) -> Iterator[tuple[Path, int, Json]]:
    """Every value below and including ``value``, each with its path and depth; without recursion.

    ``texts=False`` leaves out the strings of the upper levels, of which an index has a hundred thousand.
    """
    pending: list[tuple[Path, int, Json]] = [((), 0, value)]
    while pending:
        path, depth, item = pending.pop()
        yield path, depth, item
        if isinstance(item, dict):
            children = (
                item.items() if texts or depth > 1 else [pair for pair in item.items() if type(pair[1]) is not str]
            )
            pending.extend(((path, key), depth + 1, child) for key, child in children)
        elif isinstance(item, list):
            pending.extend(((path, index), depth + 1, child) for index, child in enumerate(item))


def dotted(path: Path) -> str:
    """A path of ``walk`` as a reader would write it: ``rope_scaling.factor``."""
    keys = []
    while path:
        path, key = path
        keys.append(str(key)[:SHOWN_LENGTH])
    return ".".join(reversed(keys))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) == len(pairs):
        return result
    repeated = Repeated(result)
    seen: set[str] = set()
    repeated.key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return repeated


def _integer(digits: str) -> int | float:
    if digits == "-0":  # a float for serde_json, so that it cannot pass as an unsigned integer
        return -0.0
    if len(digits) > MOST_DIGITS:
        raise Malformed(f"holds a number of {len(digits):,} digits")
    return int(digits)


def _float(literal: str) -> float:
    if len(literal) > MOST_DIGITS:
        raise Malformed(f"holds a number of {len(literal):,} digits")
    return float(literal)  # also of "NaN", "Infinity" and "-Infinity"


def _finite(literal: str) -> float:
    number = _float(literal)
    if not math.isfinite(number):
        raise Malformed(f"holds a number that is not finite ({literal[:20]})")
    return number


def _refuse_lone_surrogates(value: Json) -> None:
    for path, _, item in walk(value):
        for text in (path[1] if path else "", item):
            if isinstance(text, str) and not text.isascii():
                try:
                    text.encode()
                except UnicodeEncodeError:
                    raise Malformed("holds half of a surrogate pair, which is no character") from None
