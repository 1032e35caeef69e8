"""Which modules a compressed-tensors config quantizes, and with which scheme.

Source: ``apply_quantization_config`` in compressed_tensors/quantization/lifecycle/apply.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from checker.domain import Json
from checker.methods._compressed_tensors_scheme import DENSE, FORMATS, Scheme, scheme_of
from checker.methods._name_rules import Names, Targets, is_class
from checker.registry import Intent, Planner

ROLES = ("linear", "expert", "vision", "head", "embedding")  # what can be quantized
MOST_LISTED = 64  # a tool that expands its list into thousands of names has seen each of them


def groups_of(config: Mapping[str, Json]) -> Mapping[str, Any]:
    """``config_groups``, or nothing when it is no object."""
    groups = config.get("config_groups")
    return groups if isinstance(groups, Mapping) else {}


def activations(config: Mapping[str, Json]) -> bool:
    """Whether some group quantizes what goes into its modules; a group that is a list names a preset by its own name.

    ``W4A16`` and the like say it after the A.
    """
    return any(
        bool(group.get("input_activations")) if isinstance(group, Mapping) else not str(name).upper().endswith("A16")
        for name, group in groups_of(config).items()
    )


def texts(value: Any) -> list[str]:
    """The texts of a list; nothing of anything else."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


class Plan:
    """Which scheme each module gets: the most precise target of all groups, unless ``ignore`` names the module."""

    def __init__(self, config: Mapping[str, Json]) -> None:
        """Read the groups; what is wrong in them is for ``contradictions``."""
        self.ignore = Names(texts(config.get("ignore")))
        targets: dict[str, str] = {}
        self.schemes: dict[str, Scheme | None] = {}
        self.quantized: set[str] = set()  # groups that quantize weights
        default = config.get("format")
        for name, group in groups_of(config).items():
            listed = group if isinstance(group, list) else group.get("targets") if isinstance(group, Mapping) else None
            self.schemes[name] = scheme_of(group, default if isinstance(default, str) and default in FORMATS else "")
            if isinstance(group, list) or (isinstance(group, Mapping) and group.get("weights") is not None):
                self.quantized.add(name)
                targets |= dict.fromkeys(texts(listed), name)
        self.targets = Targets(targets)
        cache = config.get("kv_cache_scheme")
        self.kv_cache = isinstance(cache, Mapping) and cache.get("dynamic") in (False, None)

    def group(self, names: tuple[str, ...], role: str) -> str | None:
        """The group whose target means the module."""
        return self.targets.meaning(names, role)

    def scheme(self, names: tuple[str, ...], role: str) -> Scheme | None:
        """The scheme of a module that is not ignored."""
        group = self.group(names, role)
        return None if group is None or self.ignore.matching(names, role) else self.schemes[group]

    @property
    def only(self) -> Scheme | None:
        """The scheme of the whole model, where there is but one."""
        return self.schemes[next(iter(self.quantized))] if len(self.quantized) == 1 else None

    @property
    def all_dense(self) -> bool:
        """Whether every group leaves the weights as they are."""
        schemes = [self.schemes[name] for name in self.quantized]
        return bool(schemes) and all(scheme is not None and scheme.format == DENSE for scheme in schemes)

    def intent(self, names: tuple[str, ...], role: str) -> Intent:
        """What the config asks for a module; routers and whatever is no linear layer are left to the architecture."""
        scheme = self.scheme(names, role) if self.quantized else None
        attributes = scheme.declared() if scheme is not None else {}
        entry = self.ignore.matching(names, role) or self.ignore.ending(names[0])
        if entry is not None:
            return Intent(quantized=False, reason=f"{entry!r} of ignore keeps it", attributes=attributes)
        if role not in ROLES:
            return Intent(attributes=attributes)
        if self.group(names, role) is None:
            if self.targets.unclear(role):
                return Intent(open=True, attributes=attributes)
            return Intent(quantized=False, reason="no target of config_groups names it", attributes=attributes)
        if scheme is not None and scheme.format == DENSE and not self.all_dense:
            return Intent(quantized=False, reason="the format of its group is dense", attributes={})
        return Intent(quantized=True, attributes=attributes)


def planner(config: Mapping[str, Json]) -> Planner:
    """The plan as the core asks for it."""
    return Plan(config).intent


def stored_dense(config: Mapping[str, Json]) -> str:
    """Why nothing need be packed: the format is dense, so that weights are only rounded when the model runs."""
    plan = Plan(config)
    if plan.all_dense:
        return "its format is dense: weights stay as they are and are rounded when the model runs"
    if not plan.quantized and plan.kv_cache:
        return "only the key and value cache is quantized"
    return ""


def listed(config: Mapping[str, Json]) -> tuple[str, ...]:
    """The entries of ``ignore`` that name modules, a few; classes are left out, which no name could match."""
    return tuple(entry for entry in texts(config.get("ignore")) if not is_class(entry))[:MOST_LISTED]
