"""Weights packed along the inputs (GPTQ, AutoRound), read from headers and the small tensors beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from checker.domain import Json
from checker.facts import Flaw, StoredWeight
from checker.inventory import Inventory
from checker.methods._awq_layout import packing_of
from checker.methods._packed_probe import Order, Reader, common_zero, read_order
from checker.methods._packed_words import (
    USUAL_GROUPS,
    WORD,
    along_inputs_layout,
    bias_dtype,
    choose_width,
    group_count,
    matrix,
    scale_dtype,
    stored_group_size,
    widths,
    words,
)

PLANAR_ONLY = (5, 6, 7)  # bits for which gptqmodel has no other packing


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How a config says that its tensors are meant; ``planar_widths``: gptqmodel's planes for 5, 6 and 7 bits."""

    minus_one: bool  # zero points are stored less one
    planar: bool = False
    planar_widths: tuple[int, ...] = PLANAR_ONLY
    group_index: bool = True  # g_idx belongs to the layout


@dataclass(frozen=True, slots=True)
class _Sizes:
    """What the headers of one layer say."""

    outputs: int
    inputs: int
    bits: int
    groups: int


def packed_modules(inventory: Inventory) -> tuple[str, ...]:
    """Modules that hold packed integers, or what is left of them."""
    return inventory.modules("qweight", "qzeros")


def claims(inventory: Inventory, module: str, *, declared: bool) -> bool:
    """Whether a module is packed along the inputs: as many columns as there are scales for.

    Where a config says so, whatever is not clearly packed along the outputs is taken for it: it may be damaged.
    """
    packed = inventory.header(module, "qweight")
    shape, scales = matrix(packed), matrix(inventory.header(module, "scales"))
    if packed is None or shape is None or scales is None:
        return declared
    if packed.dtype != "I32":
        return declared and packing_of(inventory, module, "gemm") == ""
    if shape[1] == scales[1]:
        return declared or _plausible(inventory, module, shape)
    return declared and packing_of(inventory, module, "gemm") == ""


def _plausible(inventory: Inventory, module: str, shape: tuple[int, int]) -> bool:
    """Whether zero points fit too: those of AWQ's gemv lie along the inputs."""
    zeros = matrix(inventory.header(module, "qzeros"))
    return zeros is None or bool(widths(shape[1], zeros[1]))


def read_weights(
    inventory: Inventory,
    modules: Iterable[str],
    reading: Reading,
    declared: Callable[[str], Mapping[str, Json]],
) -> tuple[StoredWeight, ...]:
    """One weight for each module."""
    modules = list(modules)
    reader = Reader(inventory.checkpoint)
    dtype = scale_dtype(inventory, modules)
    return tuple(_read_weight(inventory, module, reading, declared(module), (reader, dtype)) for module in modules)


def _read_weight(
    inventory: Inventory,
    module: str,
    reading: Reading,
    declared: Mapping[str, Json],
    shared: tuple[Reader, str],
) -> StoredWeight:
    reader, dtype = shared
    sizes = _sizes(inventory, module, declared, indexed=reading.group_index)
    order = _order(inventory, module, reader, sizes)
    flaws = (Flaw(where=f"{module}.g_idx", message=order.flaw, hint=_HINT),) if order is not None and order.flaw else ()
    attributes = {
        "bits": sizes.bits,
        "group_size": _group_size(sizes, order, declared.get("group_size")),
        "g_idx": reading.group_index,
        "scale_dtype": dtype,
        "bias": bias_dtype(inventory, module),
        "planar": _planar(sizes, reading),
        **_order_attribute(order, declared.get("act_order")),
    }
    attributes |= _zero_attributes(inventory, module, reader, sizes, reading)
    attributes["zero_offset"] = _zero_offset(attributes, reading)
    shape = (sizes.outputs, sizes.inputs)
    known = sizes.outputs > 0 and sizes.inputs > 0
    return StoredWeight(
        module=module,
        weight=f"{module}.qweight",
        dense=f"{module}.weight",
        shape=shape if known else None,
        attributes=attributes,
        expected=along_inputs_layout(f"{module}.weight", shape, attributes),
        flaws=flaws,
        grain=(1, _grain(sizes.inputs, int(attributes["group_size"]))),
    )


_HINT = "kernels take these indices unchecked; quantize the layer again"


def _sizes(inventory: Inventory, module: str, declared: Mapping[str, Json], *, indexed: bool) -> _Sizes:
    """Inputs from g_idx, else from the words; bits from both kinds of words; groups from the scales.

    ``indexed``: g_idx belongs to the layout. Without it inputs come in multiples of 32: AutoRound packs no others.
    """
    packed = matrix(inventory.header(module, "qweight"))
    scales = matrix(inventory.header(module, "scales"))
    zeros = matrix(inventory.header(module, "qzeros"))
    index = inventory.header(module, "g_idx")
    length = index.shape[0] if index is not None and len(index.shape) == 1 else 0
    outputs = packed[1] if packed is not None else scales[1] if scales is not None else 0
    rows = packed[0] if packed is not None else 0
    evidence = [widths(length, rows)] if length and rows else []
    if zeros is not None:
        evidence.append(widths(outputs, zeros[1]))
    bits = choose_width(evidence, declared.get("bits"))
    groups = scales[0] if scales is not None else zeros[0] if zeros is not None else 0
    size = declared.get("group_size")
    size = size if isinstance(size, int) else USUAL_GROUPS[0]
    inputs = rows * WORD // bits
    if length and (words(length, bits) == rows or groups == group_count(length, size)):
        inputs = length
    elif not rows or (not indexed and inputs % WORD and size % WORD == 0):
        inputs = groups * max(size, 0)
    if not 0 < groups <= inputs:
        groups = group_count(inputs, size)
    return _Sizes(outputs, inputs, bits, groups)


def _order(inventory: Inventory, module: str, reader: Reader, sizes: _Sizes) -> Order | None:
    if f"{module}.g_idx" not in inventory.tensors:
        return None
    return read_order(reader, f"{module}.g_idx", sizes.groups)


def _group_size(sizes: _Sizes, order: Order | None, declared: Json) -> int:
    """As g_idx counts it where it rises in steps, else by the number of groups."""
    if order is not None and order.group_size and group_count(sizes.inputs, order.group_size) == sizes.groups:
        return order.group_size
    return stored_group_size(sizes.inputs, sizes.groups, declared)


def _order_attribute(order: Order | None, declared: Json) -> dict[str, Json]:
    """Whether the inputs are permuted. A rising g_idx under ``desc_act`` is no lie: one group, or static groups."""
    if order is None or order.flaw or (not order.permuted and declared is True):
        return {}
    return {"act_order": order.permuted}


def _zero_attributes(
    inventory: Inventory, module: str, reader: Reader, sizes: _Sizes, reading: Reading
) -> dict[str, Json]:
    """Symmetric or not, and if so, in which version zero points are stored: their value in the middle tells."""
    zeros = matrix(inventory.header(module, "qzeros"))
    if zeros is None or zeros[1] != words(sizes.outputs, sizes.bits) or _planar(sizes, reading):
        return {}
    value = common_zero(reader, f"{module}.qzeros", sizes.bits, sizes.outputs)
    if value is None:
        return {}
    middle = 1 << (sizes.bits - 1)
    versions = {middle - 1: "gptq", middle: "gptq_v2"}
    if value in versions:
        return {"symmetric": True, "zero_point_format": versions[value]}
    return {"symmetric": False}


def _planar(sizes: _Sizes, reading: Reading) -> bool:
    return reading.planar or sizes.bits in reading.planar_widths


def _zero_offset(attributes: Mapping[str, Json], reading: Reading) -> int:
    """What is added to stored zero points: what symmetric ones say of themselves, else what the config says."""
    if attributes["planar"]:
        return 0
    stored = attributes.get("zero_point_format")
    return int(reading.minus_one if stored is None else stored == "gptq")


def _grain(inputs: int, group_size: int) -> int:
    """Columns at whose multiples a part may begin: whole groups, and whole blocks of 32 codes."""
    step = math.lcm(WORD, group_size if group_size > 0 else inputs or 1)
    return step if step < inputs else 0
