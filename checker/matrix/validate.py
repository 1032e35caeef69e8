"""A tree to a ``Document``, with pydantic's errors turned into sentences that name the key, the line and the remedy.

After a mistake the offending entry is taken out and the rest validated again, so that mistakes of meaning elsewhere in
the file (an unknown quantization, say) are told in the same run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ValidationError

from checker.config_values import did_you_mean
from checker.domain import Json
from checker.matrix.document import (
    Common,
    Document,
    LimitEntry,
    ModelEntry,
    OverrideEntry,
    PromptEntry,
    WaiverEntry,
)
from checker.matrix.problems import Problems, shown
from checker.matrix.yaml_tree import Node, Step

_PLACES: Mapping[str, type[BaseModel]] = {
    "defaults": Common,
    "models": ModelEntry,
    "overrides": OverrideEntry,
    "waivers": WaiverEntry,
    "limits": LimitEntry,
    "prompts": PromptEntry,
}
_SETTINGS = {field.alias or name for name, field in Common.model_fields.items()} - {"quantizations"}
_CHANGES_NO_CELL = _SETTINGS - {"libraries"}
_ENTRIES = frozenset({"quantizations", "models", "overrides", "exclude", "waivers"})
_SENTENCES = {  # pydantic's type of an error: what is wanted
    "string_type": "must be text, not {value}; put it in quotes",
    "string_too_short": "must not be empty",
    "bool_type": "must be true or false, not {value}",
    "int_type": "must be a whole number, not {value}",
    "int_from_float": "must be a whole number, not {value}",
    "float_type": "must be a number, not {value}",
    "finite_number": "must be a finite number, not {value}",
    "greater_than": "must be above {gt:g}, not {value}",
    "greater_than_equal": "must be at least {ge:g}, not {value}",
    "less_than_equal": "must be at most {le:g}, not {value}",
    "list_type": "must be a list, not {value}",
    "dict_type": "must be a mapping, not {value}",
    "model_type": "must be a mapping, not {value}",
    "model_attributes_type": "must be a mapping, not {value}",
    "date_type": "must be a day like 2026-12-31, not {value}",
    "too_short": "must not be empty",
    "too_long": "holds {actual_length} entries, more than {max_length}; split the matrix into several files",
    "literal_error": "must be {expected}, not {value}",
    "missing": "is missing",
}
_REMEDIES = {
    "device": "must be auto, cpu, cuda or cuda:N, not {value}",
    "version": "must be 1, the only version of this format, not {value}",
}
_MISSING = {
    "version": "is missing; write 'version: 1' at the top",
    "models": "is missing; list at least one model",
    "reason": "is missing; say why the finding is tolerated, for example with a link to an issue",
    "until": "is missing; give the day on which the waiver ends, like 2026-12-31",
}


def validate(problems: Problems) -> Document | None:
    """The document of ``problems.root``, which is pruned of what is wrong; None when nothing is left to go on with."""
    if not isinstance(problems.root.value, dict):
        problems.add((), "a matrix is a mapping; see 'quant-verify init' for a first one")
        return None
    try:
        return Document.model_validate(problems.root.plain())
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
    for mistake in mistakes:
        problems.add(*_sentence(mistake))
    faulty = {_faulty_part(mistake) for mistake in mistakes}
    if any(part[-1] not in _CHANGES_NO_CELL and part[0] not in {"exclude", "waivers"} for part in faulty):
        problems.complete = False
    problems.root = _without(problems.root, (), faulty)
    try:
        return Document.model_validate(problems.root.plain())
    except ValidationError:
        return None


def _sentence(mistake: Mapping[str, Any]) -> tuple[tuple[Step, ...], str]:
    """The path and the sentence of one of pydantic's errors."""
    path, kind = tuple(mistake["loc"]), str(mistake["type"])
    key = str(path[-1]) if path else ""
    if kind == "extra_forbidden":
        return path, _unknown_key(path)
    if kind == "missing":
        return path, _MISSING.get(key, _SENTENCES["missing"])
    if kind == "string_pattern_mismatch" and key not in _REMEDIES:
        return path, "must not be blank"
    context = {**mistake.get("ctx", {}), "value": shown(mistake["input"])}
    remedy = _REMEDIES.get(key) if "libraries" not in path else None  # there, any key is the name of a package
    template = remedy or _SENTENCES.get(kind)
    if template is None:
        return path, str(mistake["msg"])
    near = did_you_mean(str(mistake["input"]), _choices(context)) if kind == "literal_error" else ""
    return path, template.format_map(context) + near


def _choices(context: Mapping[str, Json]) -> list[str]:
    return str(context.get("expected", "")).replace(" or ", ", ").replace("'", "").split(", ")


def _unknown_key(path: Sequence[Step]) -> str:
    """Names the nearest key that is valid at this place, or where the key would be valid, or all that are."""
    place = next((_PLACES[step] for step in reversed(path[:-1]) if isinstance(step, str) and step in _PLACES), Document)
    known = sorted(field.alias or name for name, field in place.model_fields.items())
    name = str(path[-1])
    near = did_you_mean(name, known) or did_you_mean(name.replace("_", "-"), known)
    if near:
        return f"unknown key{near}"
    if place in {Common, OverrideEntry} and name in {"baseline", "name", "checkpoints"}:
        return "may stand in a model only"
    if place is Document and name in _SETTINGS:
        return "may stand in defaults, in a model or in an override, not at the top"
    return f"unknown key; valid here: {', '.join(known)}"


def _faulty_part(mistake: Mapping[str, Any]) -> tuple[Step, ...]:
    """What to take out so that the rest can be read: an unknown key or a setting alone, else the whole entry."""
    path = tuple(mistake["loc"])
    if mistake["type"] == "extra_forbidden":
        return path
    if path[:1] == ("defaults",):
        return path[:2]
    if path[0] in _ENTRIES:
        return path[:3] if len(path) > 2 and path[2] in _SETTINGS else path[:2]  # noqa: PLR2004
    return path[:1]


def _without(node: Node, path: tuple[Step, ...], faulty: set[tuple[Step, ...]]) -> Node:
    """The tree without the faulty parts; what remains keeps its lines."""
    if isinstance(node.value, dict):
        kept = {
            key: _without(child, (*path, key), faulty)
            for key, child in node.value.items()
            if (*path, key) not in faulty
        }
        return replace(node, value=kept)
    if isinstance(node.value, list):
        items = enumerate(node.value)
        return replace(
            node,
            value=[_without(item, (*path, index), faulty) for index, item in items if (*path, index) not in faulty],
        )
    return node
