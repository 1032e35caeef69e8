"""Which module a rule of a GPTQ, AWQ or AutoRound config is meant for, and what the config asks of each module.

Rules are regular expressions out of a file that may be hostile: those that could backtrack for ever match nothing
here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from checker.domain import Json
from checker.methods._name_rules import REGEX, entry_matches
from checker.methods._packed_words import WIDTHS

MOST_RULES = 100_000

_LANGUAGE_ONLY = re.compile(
    r"(^|\.)(vision_tower|vision_model|vision_encoder|visual|vision|audio_tower|audio_encoder|multi_modal_projector|"
    r"mm_projector|image_newline|merger|connector|embed_vision|vision_embed_tokens|mtp)(\.|$)"
)
_BLOCK = re.compile(r"\.\d+\.")


def matches(rule: str, name: str, *, anywhere: bool = False) -> bool:
    """Whether a rule matches from the start of a name (``anywhere``: at any place)."""
    return entry_matches(f"{REGEX}.*{rule}" if anywhere else REGEX + rule, name)


class Rule(NamedTuple):
    """One entry of gptqmodel's ``dynamic``: as written, its expression, and its settings (None: stays dense)."""

    written: str
    text: str
    settings: Mapping[str, Json] | None


def dynamic_rules(value: Json) -> tuple[Rule, ...]:
    """The rules of ``dynamic`` in the order in which they are asked: ``-:`` first, which keep a module dense.

    ``+:`` or nothing overrides a module's settings (``_resolve_dynamic_override`` in gptqmodel/quantization/config.py).
    """
    rules = []
    for written, settings in list(value.items())[:MOST_RULES] if isinstance(value, dict) else ():
        negative = written.startswith("-:")
        text = written[2:] if written.startswith(("-:", "+:")) else written
        rules.append(Rule(written, text, None if negative else settings if isinstance(settings, dict) else {}))
    return tuple(sorted(rules, key=lambda rule: rule.settings is not None))


def dynamic_rule(rules: tuple[Rule, ...], names: tuple[str, ...]) -> Rule | None:
    """The first rule that matches one of a module's names from its start."""
    return next((rule for rule in rules if any(matches(rule.text, name) for name in names)), None)


def overrides(settings: Json) -> dict[str, Json]:
    """A rule's valid settings under the names of attributes."""
    given = settings if isinstance(settings, dict) else {}
    return {name: given[key] for key, name in ATTRIBUTES.items() if key in given and VALID[name](given[key])}


def valid(attribute: str, value: Json, default: Json) -> Json:
    """A declared value if it makes sense, else the default; config.keys reports it."""
    return value if VALID[attribute](value) else default


def _whole(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


ATTRIBUTES = {"bits": "bits", "group_size": "group_size", "sym": "symmetric", "desc_act": "act_order"}
VALID: Mapping[str, Callable[[Json], bool]] = {
    "bits": lambda value: _whole(value) and value in WIDTHS,
    "group_size": lambda value: isinstance(value, int) and _whole(value) and (value == -1 or 0 < value < 1 << 31),
    "symmetric": lambda value: isinstance(value, bool),
    "act_order": lambda value: isinstance(value, bool),
}


def outside_blocks(names: tuple[str, ...]) -> bool:
    """Whether none of a module's names has a layer's number in it: calibrated tools go through decoder blocks only."""
    return not any(_BLOCK.search(f".{name}") for name in names)


def beside_language(names: tuple[str, ...]) -> bool:
    """Whether a module belongs to the vision or audio part of a model, or to what joins it to the language part."""
    return any(_LANGUAGE_ONLY.search(name) for name in names)
