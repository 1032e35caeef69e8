"""What the values of a ``quantization_config`` may be, and which known name a misspelt one was meant to be."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping

from checker.domain import Json

Domain = Callable[[Json], str | None]
"""What a configuration value may be: returns what is wrong with it, or None."""


def boolean(value: Json) -> str | None:
    """True or false, and not a number that looks like one."""
    return None if isinstance(value, bool) else f"must be true or false, not {repr(value)[:200]}"


def number(value: Json) -> str | None:
    """A finite number, zero or more."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
    return None if good else f"must be a number of 0 or more, not {repr(value)[:200]}"


def names_or_none(value: Json) -> str | None:
    """A list of names, or null."""
    good = value is None or (isinstance(value, list) and all(isinstance(item, str) and item for item in value))
    return None if good else f"must be null or a list of module names, not {repr(value)[:200]}"


def modules_to_not_convert(config: Mapping[str, Json]) -> tuple[str, ...] | None:
    """The skip list under the name that most methods of transformers give it; None: their default list."""
    listed = config.get("modules_to_not_convert")
    return tuple(name for name in listed if isinstance(name, str)) if isinstance(listed, list) else None


def one_of(*allowed: Json) -> Domain:
    """One of the listed values, exactly (``NF4`` is not ``nf4``); the message offers the nearest."""

    def domain(value: Json) -> str | None:
        if any(value == item and type(value) is type(item) for item in allowed):
            return None
        listed = ", ".join("null" if item is None else str(item) for item in allowed)
        if isinstance(value, str) and any(value == str(item) for item in allowed):
            return f"must be one of {listed}; write {value} without quotes"
        return f"must be one of {listed}, not {repr(value)[:200]}{did_you_mean(str(value).lower(), map(str, allowed))}"

    return domain


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` for the nearest known name, or nothing when none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""


def resembles(key: str, known: Iterable[str]) -> bool:
    """Whether a key that nobody knows is likely a known one misspelt."""
    return bool(difflib.get_close_matches(key, list(known), n=1, cutoff=0.85))
