"""How settings of several sources become the settings of one cell (design §5, precedence)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from checker.domain import Depth, Limit, Prompt, Settings
from checker.matrix.document import Common, LimitEntry, PromptEntry

_NAMES = frozenset(field.name for field in fields(Settings))


def merge_settings(layers: Sequence[Common], forced: Mapping[str, object]) -> Settings:
    """Later layers win; limits merge bar by bar, everything else replaces. ``forced`` is applied last.

    Remote code is the exception to "last wins": both the matrix and ``forced`` must allow it.
    """
    values: dict[str, Any] = {}
    limits: dict[str, Limit] = {}
    for layer in layers:
        given = layer.model_fields_set & _NAMES
        values |= {name: _CONVERSIONS.get(name, _same)(getattr(layer, name)) for name in given}
        limits |= {name: _limit(bars, limits.get(name, Limit())) for name, bars in layer.limits.items()}
    allowed = values.get("trust_remote_code", False) and forced.get("trust_remote_code") is True
    return Settings(**{**values, "limits": limits, **forced, "trust_remote_code": allowed})


def _same(value: Any) -> Any:
    return value


def _limit(bars: LimitEntry, below: Limit) -> Limit:
    return Limit(
        warn=below.warn if bars.warn is None else bars.warn, fail=below.fail if bars.fail is None else bars.fail
    )


def _prompts(entries: Sequence[PromptEntry]) -> tuple[Prompt, ...]:
    return tuple(
        Prompt(
            text=entry.text,
            chat=entry.chat,
            max_new_tokens=entry.max_new_tokens,
            accept={device: tuple(texts) for device, texts in entry.accept.items()},
        )
        for entry in entries
    )


_CONVERSIONS: Mapping[str, Any] = {
    "depth": Depth,
    "runs_on": tuple,
    "select": tuple,
    "ignore": tuple,
    "require": tuple,
    "prompts": _prompts,
}
