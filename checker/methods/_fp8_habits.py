"""How a file writes its fine-grained FP8 weights, as most of them show it: the block size above all.

A partial block cannot be told from a whole one by a single weight, so the file decides together: of the block sizes
that a weight and its scales allow, the one that fits most weights; the declared one where it fits as many.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from checker.checkpoint import TensorHeader
from checker.domain import Json
from checker.inventory import Inventory
from checker.methods._fp8_config import UNDECLARED, declared_block
from checker.methods._fp8_layout import FUSED, MATRIX, Block, Size

FLOATS = ("BF16", "F16", "F32")
SCALES = ("F32", "BF16", "F16", "F8_E8M0", "U8")
POWERS = ("F8_E8M0", "U8")
MX_BLOCK: Block = (1, 32)
FIRST = 64
USUAL_BLOCKS = (128, 32, 1, 64, 16, 256, 512, 1024)  # for a file whose config says nothing


@dataclass(slots=True)
class Found:
    """One weight and its scale by name; either may be missing."""

    dense: str
    scale_name: str
    weight: TensorHeader | None
    scale: TensorHeader | None


@dataclass(slots=True)
class Habits:
    """How this file writes its weights, as most of them show it."""

    block: Block | None
    scale_dtype: Mapping[bool, str]  # of 8-bit and (True) of 4-bit weights
    scalar_shape: tuple[int, ...]
    static: Mapping[str, tuple[str, tuple[int, ...]]]  # last names of modules with activation scales: dtype, shape
    known: dict[Any, dict[str, Json]] = field(default_factory=dict)  # attributes, shared by all weights of a kind
    sizes: dict[Any, tuple[Size, ...]] = field(default_factory=dict)  # by shape and attributes


def habits_of(inventory: Inventory, found: list[Found]) -> Habits:
    """What most weights of a file have in common."""
    dtypes: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
    scalars: Counter[tuple[int, ...]] = Counter()
    pairs: Counter[tuple[int, int, int, int]] = Counter()
    for item in found:
        weight, scale = item.weight, item.scale
        if scale is None or weight is None:
            continue
        four = weight.dtype == "I8"
        dtypes[four][scale.dtype] += 1
        if len(weight.shape) < MATRIX or four:
            continue
        if len(scale.shape) == len(weight.shape):
            pairs[(*weight.shape[-2:], *scale.shape[-2:])] += 1  # type: ignore[index]
        if len(weight.shape) == MATRIX and scale.numel == 1:
            scalars[scale.shape] += 1
    block = _block(pairs, scalars, inventory.config)
    return Habits(
        block=block,
        scale_dtype={four: _usual(counts) for four, counts in dtypes.items()},
        scalar_shape=scalars.most_common(1)[0][0] if scalars else (),
        static=_static(inventory),
    )


def _usual(counts: Counter[str]) -> str:
    return next((kind for kind, _ in counts.most_common() if kind in SCALES), "F32")


def has_exponents(inventory: Inventory) -> bool:
    """Whether one of the first scales is stored as a power of two."""
    names = ("weight_scale_inv", "scale", *(f"{name}_scale_inv" for name in FUSED))
    firsts = ((name, module) for name in names for module in inventory.modules(name)[:FIRST])
    return any(inventory.tensors[f"{module}.{name}"].dtype in POWERS for name, module in firsts)


def is_mxfp8(inventory: Inventory, found: list[Found]) -> bool:
    """Whether scales are powers of two for groups of 32, which fp8 may have as well but is not named after."""
    habits = habits_of(inventory, found)
    return habits.block == MX_BLOCK and habits.scale_dtype[False] in POWERS


def _block(
    pairs: Counter[tuple[int, int, int, int]], scalars: Counter[tuple[int, ...]], config: Mapping[str, Json] | None
) -> Block | None:
    wanted = declared_block(config) if config is not None else UNDECLARED
    matrices = {pair: count for pair, count in pairs.items() if pair[2:] != (1, 1)}
    if not matrices:  # one scale a weight: whole matrices, or all of them smaller than the declared block
        small = wanted and pairs and all(pair[0] <= wanted[0] and pair[1] <= wanted[1] for pair in pairs)
        return wanted if small or not (pairs or scalars) else None
    return (
        _side([(pair[0], pair[2], count) for pair, count in matrices.items()], wanted[0] if wanted else 0),
        _side([(pair[1], pair[3], count) for pair, count in matrices.items()], wanted[1] if wanted else 0),
    )


def _side(sizes: list[tuple[int, int, int]], wanted: int) -> int:
    """One side of the block: what fits most weights; sizes are (values, scales, weights)."""
    exact = {size // scales for size, scales, _ in sizes if scales and size % scales == 0 and size}
    candidates = [item for item in (wanted, *USUAL_BLOCKS, *sorted(exact, reverse=True)) if item > 0]
    return max(
        candidates,
        key=lambda block: sum(count for size, scales, count in sizes if math.ceil(size / block) == scales),
    )


def _static(inventory: Inventory) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Which kinds of modules have activation scales, by last name, and how they are written."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for module in inventory.modules("activation_scale"):
        header = inventory.tensors[f"{module}.activation_scale"]
        shape = header.shape if header.numel == 1 else ()
        found.setdefault(module.rpartition(".")[2], (header.dtype if header.dtype in FLOATS else "F32", shape))
    for name in FUSED:
        for module in inventory.modules(f"{name}_activation_scale"):
            header = inventory.tensors[f"{module}.{name}_activation_scale"]
            found.setdefault(name, (header.dtype if header.dtype in FLOATS else "F32", ()))
    return found
