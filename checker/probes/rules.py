"""What a config asks for each module: its per-module settings first, then its skip list, then the module's role."""

from __future__ import annotations

from collections.abc import Mapping

from checker.architecture import Architecture, skip_matches
from checker.domain import Json
from checker.registry import Method, Planner, Unfit


class Rules:
    """The rules of one config over one architecture. Without a known method everything is left open."""

    def __init__(self, architecture: Architecture, method: Method | None, config: Mapping[str, Json] | None) -> None:
        self._architecture = architecture
        self._method = method
        self._listed: tuple[str, ...] | None = None
        self._planner: Planner | None = None
        self._unfit: Unfit | None = None
        self._declared: Mapping[str, Json] = {}
        if method is not None and config is not None:
            self._listed, self._declared = method.skips(config), method.declared(config)
            self._planner = method.planner(config) if method.planner is not None else None
            self._unfit = method.unfit(config) if method.unfit is not None else None

    def of(self, module: str, role: str) -> tuple[bool | None, str, Mapping[str, Json]]:
        """Whether it is to be quantized (None: left open), why not, and with which attributes."""
        if self._method is None:
            return None, "", {}
        names = self._architecture.aliases(module)
        declared = self._declared
        if self._planner is not None:
            intent = self._planner(names, role)
            declared = declared if intent.attributes is None else intent.attributes
            if intent.quantized is not None or intent.open:
                return intent.quantized, intent.reason or "its method leaves it open", declared
        return *self._by_rule(self._method, names, role), declared

    def _by_rule(self, method: Method, names: tuple[str, ...], role: str) -> tuple[bool | None, str]:
        matches = method.entry_matches or skip_matches
        listed = self._listed or ()
        entry = next((entry for entry in listed if any(matches(entry, name) for name in names)), None)
        if entry is not None:
            return False, f"{entry!r} of the skip list keeps it"
        if role in method.roles:
            return True, ""
        if role == "head":
            tied = any(f"{name}.weight" in self._architecture.tied for name in names)
            if self._listed is None or tied:
                return False, f"the output head is {'tied to the embedding' if tied else 'kept by default'}"
            return None, ""
        return False, f"{self._architecture.name or 'the architecture'} keeps it dense ({role})"

    def unfit(self, shape: tuple[int, ...]) -> str:
        """Why the tools of the method leave a weight of this shape dense; "" when it fits."""
        return self._unfit(shape) if self._unfit is not None else ""
