"""Which module a rule of a GPTQ, AWQ or AutoRound config is meant for, and what the config asks of each module.

Rules are regular expressions out of a file that may be hostile: those that could backtrack for ever match nothing here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from checker.domain import Json

LONGEST_NAME = 250
LONGEST_RULE = 500
MOST_QUANTIFIERS = 6
MOST_RULES = 100_000

_QUANTIFIER = re.compile(r"(?<!\\)[*+?{]")
_NESTED = re.compile(r"\)[*+{]")  # a repeated group, which may hold a repetition
_LANGUAGE_ONLY = re.compile(
    r"(^|\.)(vision_tower|vision_model|vision_encoder|visual|vision|audio_tower|audio_encoder|multi_modal_projector|"
    r"mm_projector|image_newline|merger|connector|embed_vision|vision_embed_tokens|mtp)(\.|$)"
)
_BLOCK = re.compile(r"\.\d+\.")


@functools.lru_cache(maxsize=4096)
def expression(rule: str) -> re.Pattern[str] | None:
    """A rule compiled, or None where it is no expression, or one that could take very long."""
    literal_stars = rule.replace(".*", "")  # '.*' between plain text is what nearly all rules are made of
    risky = len(_QUANTIFIER.findall(literal_stars)) > MOST_QUANTIFIERS or rule.count(".*") > MOST_QUANTIFIERS
    if len(rule) > LONGEST_RULE or risky or _NESTED.search(rule):
        return None
    try:
        return re.compile(rule)
    except (re.error, RecursionError, OverflowError):
        return None


def matches(rule: str, name: str, *, anywhere: bool = False) -> bool:
    """Whether a rule matches from the start of a name (``anywhere``: at any place)."""
    if len(name) > LONGEST_NAME:
        return False
    compiled = expression(rule)
    if compiled is None:
        return False
    return (compiled.search(name) if anywhere else compiled.match(name)) is not None


def dynamic_rule(rules: Mapping[str, Json], names: tuple[str, ...]) -> tuple[str, Mapping[str, Json] | None] | None:
    """The rule of gptqmodel's ``dynamic`` for a module: its text and settings (None: it stays dense), or None.

    ``-:`` keeps a module dense, ``+:`` or nothing overrides its settings. Negative rules are asked first, then the
    others in their order; expressions match from the start (``_resolve_dynamic_override`` in
    gptqmodel/quantization/config.py).
    """
    ordered = sorted(list(rules.items())[:MOST_RULES], key=lambda item: not item[0].startswith("-"))
    for rule, settings in ordered:
        text = rule[2:] if rule.startswith(("-:", "+:")) else rule
        if any(matches(text, name) for name in names):
            if rule.startswith("-:"):
                return rule, None
            return rule, settings if isinstance(settings, Mapping) else {}
    return None


def outside_blocks(names: tuple[str, ...]) -> bool:
    """Whether none of a module's names has a layer's number in it: calibrated tools go through decoder blocks only."""
    return not any(_BLOCK.search(f".{name}") for name in names)


def beside_language(names: tuple[str, ...]) -> bool:
    """Whether a module belongs to the vision or audio part of a model, or to what joins it to the language part."""
    return any(_LANGUAGE_ONLY.search(name) for name in names)
