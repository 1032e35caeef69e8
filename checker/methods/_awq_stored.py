"""Weights in AWQ's packings, read from headers and the first zero points; AutoRound stores such weights as well."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from checker.domain import Json
from checker.facts import StoredWeight
from checker.inventory import Inventory
from checker.methods._awq_layout import PACKINGS, PER_WORD, geometry, layout, packing_of
from checker.methods._packed_probe import Reader, common_zero
from checker.methods._packed_words import scale_dtype

BLOCK = 64  # inputs that gemv_fast interleaves
SAMPLE_ROWS = 32  # a multiple of the rows that it interleaves
GROUPS = 2


def find_weights(
    inventory: Inventory,
    declared: Mapping[str, Json] | None,
    per_module: Callable[[str], Mapping[str, Json]] | None = None,
) -> tuple[StoredWeight, ...]:
    """Every weight in a packing of AWQ; without a declaration, only where nothing speaks for another method."""
    usual = str((declared or {}).get("packing", "gemm"))
    usual = usual if usual in PACKINGS else "gemm"
    found: list[tuple[str, str]] = []
    for module in inventory.modules("qweight", "qzeros", "scaled_zeros"):
        packing = packing_of(inventory, module, usual)
        other = packing == "" and _along_inputs(inventory, module)
        if declared is not None and not (other and (usual == "gemm" or inventory.header(module, "g_idx") is not None)):
            found.append((module, packing or usual))
        elif packing and inventory.header(module, "g_idx") is None and not _along_inputs(inventory, module):
            found.append((module, packing))
    if not found:
        return ()
    reader = Reader(inventory.checkpoint)
    dtype = scale_dtype(inventory, [module for module, _ in found])
    return tuple(
        _read_weight(
            inventory, (module, packing), per_module(module) if per_module else declared or {}, (reader, dtype)
        )
        for module, packing in found
    )


def _along_inputs(inventory: Inventory, module: str) -> bool:
    """Whether there are as many columns as scales: GPTQ's packing, which gemv's can look like."""
    packed, scales = inventory.header(module, "qweight"), inventory.header(module, "scales")
    same = packed is not None and scales is not None and packed.shape[1:] == scales.shape[1:]
    return same and packed is not None and packed.dtype == "I32"


def _read_weight(
    inventory: Inventory, where: tuple[str, str], declared: Mapping[str, Json], shared: tuple[Reader, str]
) -> StoredWeight:
    module, packing = where
    reader, dtype = shared
    shape, attributes = geometry(inventory, module, packing, declared)
    attributes |= {"scale_dtype": dtype, **_symmetry(inventory, module, reader, (packing, shape, attributes))}
    size = attributes["group_size"]
    assert isinstance(size, int)
    inputs = shape[1]
    step = math.lcm(BLOCK if packing in ("gemv_fast", "llm-awq") else PER_WORD, size if size > 0 else inputs or 1)
    return StoredWeight(
        module=module,
        weight=f"{module}.qweight",
        dense=f"{module}.weight",
        shape=shape if min(shape) > 0 else None,
        attributes=attributes,
        expected=layout(f"{module}.weight", shape, attributes),
        # rows and groups enough to fit gains in a sample
        grain=(SAMPLE_ROWS, GROUPS * step if GROUPS * step < inputs else 0),
    )


def _symmetry(
    inventory: Inventory, module: str, reader: Reader, known: tuple[str, tuple[int, int], Mapping[str, Json]]
) -> dict[str, Json]:
    """Symmetric when all outputs of the first group have their zero in the middle; told by gemm's packing only."""
    packing, shape, attributes = known
    bits, zeros = attributes["bits"], inventory.header(module, "qzeros")
    if packing != "gemm" or zeros is None or zeros.dtype != "I32" or not isinstance(bits, int) or min(shape) < 1:
        return {}
    value = common_zero(reader, f"{module}.qzeros", bits, shape[0])
    return {} if value is None else {"symmetric": value == 1 << (bits - 1)}
