"""From the names and shapes of a file to those of a model, by the rules that transformers itself loads with.

transformers 5 renames tensors as it loads them (``vision_tower.x`` becomes ``model.vision_tower.x``) and joins or
splits some (``mlp.experts.3.up_proj.weight`` becomes a part of ``mlp.experts.gate_up_proj``). Its own functions do that
here, on tensors of the meta device, which have shapes and no data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from checker.errors import NotApplicable

Shape = tuple[int, ...]


@dataclass(kw_only=True, slots=True)
class Placement:
    """Where the tensors of a file go: parameter -> {name in the file: pattern of the converter, or ""}."""

    sources: dict[str, dict[str, str]] = field(default_factory=dict)
    homeless: dict[str, str] = field(default_factory=dict)  # name in the file -> name after renaming, no parameter


class Conversion:
    """The renames and converters of one model."""

    def __init__(self, model: Any) -> None:
        """Collect what ``from_pretrained`` would apply to this model.

        Raises:
            NotApplicable: this transformers has no such functions (they came with version 5 and are not public).
        """
        try:
            from transformers.conversion_mapping import get_model_conversion_mapping
            from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key

            mapping = get_model_conversion_mapping(model)
            own = len(get_model_conversion_mapping(model, add_legacy=False))
        except (ImportError, TypeError) as error:
            raise NotApplicable(f"this version of transformers tells not how it renames tensors: {error}") from error
        self.model = model
        self.parameters: Mapping[str, Any] = model.state_dict()
        self._mapping, self._own, self._in_order = mapping, mapping[:own], dot_natural_key
        self._renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
        self._converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
        self._by_pattern = {item: entry for entry in self._converters for item in entry.source_patterns}

    def place(self, names: Iterable[str]) -> Placement:
        """Name by name what ``convert_and_load_state_dict_in_model`` does (transformers/core_model_loading.py)."""
        placement = Placement()
        for name in sorted(names, key=self._in_order):
            target, source = self._rename(name, self._renamings, self._converters)
            if target not in self.parameters and name in self.parameters:
                target, source = self._rename(name, [], [])
            taken = placement.sources.get(target)
            if target not in self.parameters or (taken is not None and (not source or "" in taken.values())):
                placement.homeless[name] = target
            else:
                placement.sources.setdefault(target, {})[name] = source or ""
        return placement

    def _rename(self, name: str, renamings: list[Any], converters: list[Any]) -> tuple[str, str | None]:
        from transformers.core_model_loading import rename_source_key

        found: tuple[str, str | None] = rename_source_key(
            name, renamings, converters, self.model.base_model_prefix, self.parameters
        )
        return found

    def convert(self, parameter: str, sources: Mapping[str, str], shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """The shapes that a converter makes of some tensors: parameter -> shape; empty when they do not fit together.

        ``sources``: name in the file -> pattern; ``shapes``: name in the file -> dense shape.
        """
        import torch

        tensors = {name: torch.empty(shapes[name], device="meta") for name in sources}
        return {name: tuple(made.shape) for name, made in self.convert_tensors(parameter, sources, tensors).items()}

    def convert_tensors(self, parameter: str, sources: Mapping[str, str], tensors: Mapping[str, Any]) -> dict[str, Any]:
        """The same for tensors with data: parameter -> tensor."""
        converter = deepcopy(self._by_pattern[next(iter(sources.values()))])
        for name, source in sources.items():
            converter.add_tensor(parameter, name, source, tensors[name])
        try:
            made = converter.convert(parameter, model=self.model, config=self.model.config)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError):
            return {}
        return {name: made[name][0] if isinstance(made[name], list) else made[name] for name in made}

    def stored_names(self, *, akin: bool = False) -> dict[str, dict[str, Shape]]:
        """What the file should hold, in its own naming: parameter -> {name: dense shape}. Call it after ``place``.

        The rules that some tensor of the file has used are turned around, as ``save_pretrained`` does it; with
        ``akin`` also the renames that stand beside a used one. Empty when a rule cannot be turned around.
        """
        from transformers.core_model_loading import revert_weight_conversion

        rules = [entry for entry in self._mapping if entry.was_used() or (akin and self._stands_beside_used(entry))]
        self.model._weight_conversions = rules  # noqa: SLF001 - where the library keeps them between load and save
        try:
            stored = revert_weight_conversion(self.model, dict(self.parameters))
        except (AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError):
            return {}
        finally:
            del self.model._weight_conversions  # noqa: SLF001
        names: dict[str, dict[str, Shape]] = {}
        for target, sources in self.place(stored).sources.items():
            names[target] = {name: tuple(stored[name].shape) for name in sources}
            for other in self._split_with(target, sources):
                names.setdefault(other, names[target])
        return names

    def _split_with(self, target: str, sources: Mapping[str, str]) -> list[str]:
        """The parameters that come from the same tensor as ``target``, which is the first of them."""
        converter = self._by_pattern.get(next(iter(sources.values())))
        first, *rest = converter.target_patterns if converter is not None else ("",)
        return [target.replace(first, other) for other in rest]

    def _stands_beside_used(self, entry: Any) -> bool:
        """Whether a plain rename belongs to a group of which the file uses another one: the file has that naming."""
        from transformers.core_model_loading import WeightRenaming

        return type(entry) is WeightRenaming and any(
            other.was_used() and other.scope_prefix == entry.scope_prefix and type(other) is WeightRenaming
            for other in self._own
            if entry in self._own
        )
