"""Which modules a checkpoint quantizes, and which its config and architecture say it should: names and shapes only."""

from __future__ import annotations

from collections.abc import Mapping

from checker.architecture import Architecture, pattern, skip_matches
from checker.checkpoint import Checkpoint
from checker.domain import Json
from checker.facts import ModuleFact, SkipEntry, StoredWeight
from checker.registry import Method

FLOATS = ("BF16", "F16", "F32", "F64")
MATRIX = 2


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
    listed = method.skips(config) if method is not None and config is not None else None
    modules = []
    for name, header in checkpoint.tensors.items():
        weight = packed.get(name)
        matrix = len(header.shape) >= MATRIX and header.dtype in FLOATS and name not in parts
        if weight is None and not matrix:
            continue
        module = name.removesuffix(".weight")
        shape = weight.shape if weight else header.shape
        role = architecture.role(module, name, shape or (0, 0))
        wanted, reason = _wanted(module, role, listed, architecture) if method else (None, "")
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
            )
        )
    return tuple(modules)


def _wanted(
    module: str, role: str, listed: tuple[str, ...] | None, architecture: Architecture
) -> tuple[bool | None, str]:
    """Whether the config asks for a module to be quantized, None where it is left open, and why not."""
    entry = next((entry for entry in listed or () if skip_matches(entry, module)), None)
    if entry is not None:
        return False, f"{entry!r} of the skip list keeps it"
    if role == "head":
        tied = f"{module}.weight" in architecture.tied
        if listed is None or tied:
            return False, "the output head is tied to the embedding" if tied else "the output head is kept by default"
        return None, ""
    if role in ("linear", "expert", "vision"):
        return True, ""
    return False, f"{architecture.name or 'the architecture'} keeps it dense ({role})"


def skip_entries(
    checkpoint: Checkpoint, architecture: Architecture, method: Method | None, config: Mapping[str, Json] | None
) -> tuple[SkipEntry, ...]:
    """How many modules each entry of the skip list keeps; tied modules count although no file holds them."""
    listed = method.skips(config) if method is not None and config is not None else None
    if not listed:
        return ()
    tensors = {*checkpoint.tensors, *architecture.tied, *architecture.tied.values()}
    modules = {name.rpartition(".")[0] for name in tensors} | {*architecture.heads}
    groups = {pattern(module) for module in modules}
    return tuple(
        SkipEntry(entry=entry, matches=sum(skip_matches(entry, module) for module in modules))
        for entry in listed
        if groups
    )
