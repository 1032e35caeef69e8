"""Domains of the keys that GPTQ, AWQ and AutoRound configs have in common; tools write many more of their own."""

from __future__ import annotations

from collections.abc import Mapping

from checker.config_values import Domain, boolean, one_of
from checker.domain import Json


def group_size(value: Json) -> str | None:
    """A positive number, or -1 for one group of all inputs."""
    good = isinstance(value, int) and not isinstance(value, bool) and (value == -1 or value > 0)
    return None if good else f"must be -1 or a positive whole number, not {repr(value)[:200]}"


def fraction(value: Json) -> str | None:
    """Between 0 and 1, both excluded."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1
    return None if good else f"must be between 0 and 1, not {repr(value)[:200]}"


def boolean_or_none(value: Json) -> str | None:
    """True, false or null."""
    return None if value is None else boolean(value)


def mapping_or_none(value: Json) -> str | None:
    """An object of objects (or false for a rule that excludes), or null."""
    good = value is None or (
        isinstance(value, dict) and all(isinstance(item, dict) or item is False for item in value.values())
    )
    return None if good else f"must be null or an object of objects, not {repr(value)[:200]}"


def lists_of_names(value: Json) -> str | None:
    """Null, a list of names, or a list of such lists."""
    groups = value if isinstance(value, list) else []
    flat = [name for group in groups for name in (group if isinstance(group, list) else [group])]
    good = value is None or (isinstance(value, list) and all(isinstance(name, str) for name in flat))
    return None if good else f"must be null or lists of module names, not {repr(value)[:200]}"


def text(value: Json) -> str | None:
    """A text that is not empty."""
    return None if isinstance(value, str) and value else f"must be a text, not {repr(value)[:200]}"


COMMON: Mapping[str, Domain] = {
    "group_size": group_size,
    "sym": boolean,
    "desc_act": boolean,
    "dynamic": mapping_or_none,
    "lm_head": boolean,
    "pack_dtype": one_of("int32", "int16", "int8", "int64", None),
}
