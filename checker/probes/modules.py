"""Which modules a checkpoint quantizes, and which its config and architecture say it should: names and shapes only."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from checker.architecture import Architecture, pattern, skip_matches
from checker.checkpoint import Checkpoint
from checker.domain import Json
from checker.facts import ModuleFact, SkipEntry, StoredWeight
from checker.probes.rules import Rules
from checker.registry import Method

FLOATS = ("BF16", "F16", "F32", "F64")
MATRIX = 2
_PREDICTION = re.compile(r"(^|\.)mtp(\.|$)")  # multi-token prediction
_LAYER = re.compile(r"(?:^|\.)model\.layers\.(\d{1,6})\.")


def find_modules(
    checkpoint: Checkpoint,
    weights: tuple[StoredWeight, ...],
    architecture: Architecture,
    method: Method | None,
    config: Mapping[str, Json] | None,
) -> tuple[ModuleFact, ...]:
    """Every matrix-like weight in file order: packed ones, and dense tensors of two and more dimensions.

    ``wanted`` is what transformers would do with the config: the user's skip list replaces the default one (tied
    weights and the output head), and what an architecture keeps dense stays dense in either case.
    """
    packed = {weight.weight: weight for weight in weights}
    parts = {tensor.name for weight in weights for tensor in weight.expected}
    rules = Rules(architecture, method, config)
    role_of = _roles(architecture)
    beyond = _beyond(checkpoint.config or {})
    modules = []
    for name, header in checkpoint.tensors.items():
        weight = packed.get(name)
        matrix = len(header.shape) >= MATRIX and header.dtype in FLOATS and name not in parts
        if weight is None and not matrix:
            continue
        module = weight.module if weight else name.removesuffix(".weight")
        shape = weight.shape if weight else header.shape
        role = role_of(module, weight.dense if weight else name, shape or (0, 0))
        wanted, reason, declared = rules.of(module, role)
        if weight is None and wanted and (unfit := rules.unfit(header.shape)):
            wanted, reason = False, unfit
        if wanted is not None and beyond(module):
            wanted, reason = None, "transformers does not build it"
        modules.append(
            ModuleFact(
                name=module,
                weight=name,
                role=role,
                shape=shape,
                dtype=header.dtype,
                quantized=weight is not None,
                wanted=wanted,
                reason=reason,
                declared=declared,
            )
        )
    return tuple(modules)


def _beyond(config: Mapping[str, Json]) -> Callable[[str], bool]:
    """Whether a module belongs to a prediction layer that is stored after the last one that the config counts."""
    text = config.get("text_config")
    count = config.get("num_hidden_layers", text.get("num_hidden_layers") if isinstance(text, Mapping) else None)
    if not isinstance(count, int):
        return lambda module: _PREDICTION.search(module) is not None
    first = count

    def beyond(module: str) -> bool:
        layer = _LAYER.search(module)
        return (layer is not None and int(layer[1]) >= first) or _PREDICTION.search(module) is not None

    return beyond


def _roles(architecture: Architecture) -> Callable[[str, str, tuple[int, ...]], str]:
    """``Architecture.role``, once for all layers and experts: numbers in names and sizes do not change it."""
    known: dict[tuple[str, str, bool], str] = {}

    def role(module: str, tensor: str, shape: tuple[int, ...]) -> str:
        kind = pattern(module)
        rest = tensor.removeprefix(module)
        key = (kind, rest if len(rest) < len(tensor) else tensor, len(shape) == MATRIX)
        if key not in known:
            known[key] = architecture.role(module, tensor, shape)
        return known[key]

    return role


def skip_entries(
    checkpoint: Checkpoint, architecture: Architecture, method: Method | None, config: Mapping[str, Json] | None
) -> tuple[SkipEntry, ...]:
    """How many modules each entry of the skip list keeps; tied modules count although no file holds them."""
    if method is None or config is None:
        return ()
    listed = method.listed(config) if method.listed is not None else method.skips(config)
    matches = method.entry_matches or skip_matches
    if not listed:
        return ()
    tensors = {*checkpoint.tensors, *architecture.tied, *architecture.tied.values()}
    modules = {name.rpartition(".")[0] for name in tensors} | {*architecture.heads}
    modules |= {name for name in tensors if not name.endswith((".weight", ".bias"))}  # parameters of their own (A_log)
    names = {alias for module in modules for alias in architecture.aliases(module)}
    return tuple(
        SkipEntry(entry=entry, matches=1 if entry in names else sum(matches(entry, name) for name in names))
        for entry in listed
    )
