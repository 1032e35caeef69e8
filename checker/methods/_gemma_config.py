"""The ``quantization_config`` of Gemma's quantized releases: bits by module, from ordered regular expressions.

Source: ``GemmaQuantizationConfig`` in transformers/utils/quantization_config.py and ``replace_with_quant_layers`` in
transformers/integrations/gemma_quant.py (5.23.0).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping

from checker.architecture import skip_matches
from checker.config_values import Domain, boolean, names_or_none, one_of
from checker.domain import Json
from checker.registry import Intent, Planner

BITS = (2, 4, 8)
LONGEST_NAME = 250
_SAFE = re.compile(r"[\w.\-+*?^$|\\\[\]()]{1,200}")
_QUANTIFIER = re.compile(r"[*+?]")  # many of them, or one of a group, can backtrack for ever
_MOST_QUANTIFIERS = 3
_REPEATED_GROUP = re.compile(r"\)[*+?]")


def _module_settings(value: Json) -> str | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        return f"must be null or map expressions to settings, not {repr(value)[:100]}"
    for pattern, settings in value.items():
        if (
            not isinstance(settings, Mapping)
            or settings.get("num_bits", 4) not in BITS
            or settings.keys() - {"num_bits"}
        ):
            return f"gives {repr(pattern)[:80]} the settings {repr(settings)[:80]}; only num_bits of 2, 4 or 8 is known"
        if not isinstance(pattern, str) or (_bounded(pattern) and _compiled(pattern) is None):
            return f"holds {repr(pattern)[:100]}, which is no regular expression"
    return None


KEYS: Mapping[str, Domain] = {
    "quant_method": one_of("gemma"),
    "num_bits": one_of(*BITS),
    "quantize_embeddings": boolean,
    "module_quant_configs": _module_settings,
    "modules_to_not_convert": names_or_none,
}


def is_gemma(config: Mapping[str, Json]) -> bool:
    """Whether the config declares this method."""
    return config.get("quant_method") == "gemma"


def declared(config: Mapping[str, Json]) -> dict[str, Json]:
    """The bits of the whole model."""
    return {"bits": config.get("num_bits", 4)}


def skips(config: Mapping[str, Json]) -> tuple[str, ...] | None:
    """The skip list; None stands for transformers' default (tied weights and the output head)."""
    listed = config.get("modules_to_not_convert")
    return tuple(name for name in listed if isinstance(name, str)) if isinstance(listed, list) else None


class Bits:
    """How many bits a config asks for each module."""

    def __init__(self, config: Mapping[str, Json]) -> None:
        given = config.get("num_bits", 4)
        self._usual = given if isinstance(given, int) and given in BITS else None
        settings = config.get("module_quant_configs")
        rules = settings.items() if isinstance(settings, Mapping) else ()
        self._rules: list[tuple[re.Pattern[str], int | None]] = []
        self.judged = self._usual is not None
        for pattern, chosen in rules:
            compiled = _compiled(str(pattern))
            bits = chosen.get("num_bits", given) if isinstance(chosen, Mapping) else None
            self.judged = self.judged and compiled is not None and bits in BITS
            if compiled is not None:
                self._rules.append((compiled, bits if isinstance(bits, int) else None))

    def of(self, name: str) -> int | None:
        """All expressions are joined by ``|`` and searched: the leftmost match decides, then the order."""
        if not self.judged or len(name) > LONGEST_NAME:
            return None
        found = [(match.start(), bits) for rule, bits in self._rules if (match := rule.search(name)) is not None]
        return min(found, key=lambda item: item[0])[1] if found else self._usual


def _bounded(pattern: str) -> bool:
    """Whether searching for the expression cannot take for ever."""
    few = len(_QUANTIFIER.findall(pattern)) <= _MOST_QUANTIFIERS
    return few and _SAFE.fullmatch(pattern) is not None and _REPEATED_GROUP.search(pattern) is None


def _compiled(pattern: str) -> re.Pattern[str] | None:
    """The expression, None when it is none or could take for ever."""
    if not _bounded(pattern):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # "[[" may mean something else one day
            return re.compile(pattern)
    except re.error:
        return None


def planner(config: Mapping[str, Json]) -> Planner:
    """Bits of each module; embeddings are quantized when ``quantize_embeddings`` says so and the list does not."""
    bits, listed = Bits(config), skips(config) or ()
    embeddings = config.get("quantize_embeddings") is True

    def plan(names: tuple[str, ...], role: str) -> Intent:
        wanted = next((found for name in reversed(names) if (found := bits.of(name)) is not None), None)
        attributes = {} if wanted is None else {"bits": wanted}
        kept = any(skip_matches(entry, name) for entry in listed for name in names)
        if role == "embedding" and embeddings and not kept:
            return Intent(quantized=True, attributes=attributes)
        return Intent(attributes=attributes)

    return plan
