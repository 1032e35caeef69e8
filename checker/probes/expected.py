"""What the loaded model must hold: which modules are quantized, and from which stored weight.

Where skip rules alone decide, they say it (``Skeleton.quantizable``, bitsandbytes). Where a config plans module by
module (``Method.planner``), the file says it, under the names that transformers gives its tensors: whether it stores
what the config plans is for layers.coverage to judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from checker.errors import NotApplicable
from checker.facts import ArtifactFacts, StoredWeight
from checker.probes.skeleton import Skeleton, is_linear
from checker.registry import Method


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """Names are those of the loaded model."""

    modules: frozenset[str]  # to be quantized
    packed: Mapping[str, StoredWeight]  # parameter of the dense model -> what the file holds for it
    fused_experts: tuple[str, ...]  # parameters of all experts, which the method holds dense


def what_to_expect(skeleton: Skeleton, artifact: ArtifactFacts, method: Method) -> Expected:
    """The quantized modules by the rules of a method without a planner, else by the file."""
    if method.planner is None:
        stored = {weight.weight: weight for weight in artifact.weights}
        names = [f"{name}.weight" for name, module in skeleton.model.named_modules() if is_linear(module)]
        return Expected(
            modules=frozenset(skeleton.quantizable),
            packed={name: stored[name] for name in names if name in stored},
            fused_experts=skeleton.fused_experts,
        )
    weights = {weight.dense: weight for weight in artifact.weights}
    planned = [module.weight for module in artifact.modules if artifact.stored_dense and module.wanted]
    packed: dict[str, StoredWeight] = {}
    fused: dict[str, None] = {}
    modules = set()
    for parameter, sources in _placed(skeleton, [*weights, *planned]).items():
        for name, pattern in sources.items():
            if pattern:  # joined with others while it is loaded
                fused[parameter] = None
                continue
            modules.add(parameter.rpartition(".")[0])
            if name in weights:
                packed[parameter] = weights[name]
    return Expected(modules=frozenset(modules), packed=packed, fused_experts=tuple(fused))


def _placed(skeleton: Skeleton, names: Iterable[str]) -> Mapping[str, Mapping[str, str]]:
    """Parameter -> {name in the file: pattern of the converter}; by name alone where transformers does not tell."""
    from checker.probes.conversion import Conversion

    try:
        return Conversion(skeleton.model).place(names).sources
    except NotApplicable:
        parameters = dict(skeleton.model.named_parameters())
        return {name: {name: ""} for name in names if name in parameters}
