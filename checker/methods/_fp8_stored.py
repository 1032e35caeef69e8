"""Fine-grained FP8 weights as headers show them: what belongs to which, and what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from checker.checkpoint import TensorHeader
from checker.domain import Json
from checker.facts import ExpectedTensor, Flaw, StoredWeight
from checker.inventory import Inventory
from checker.methods._fp8_config import embeddings, powers_declared
from checker.methods._fp8_habits import FLOATS, POWERS, Found, Habits, habits_of
from checker.methods._fp8_layout import FP4_GROUP, FUSED, MATRIX, SCALE_NAMES, layout, named, sizes

CODES = ("F8_E4M3", "I8")
MOST_EXPERTS = 1 << 14


def find(inventory: Inventory) -> list[Found]:
    """Everything with a scale of these methods, and, where one is declared, 8-bit floats that have lost theirs."""
    tensors, declared = inventory.tensors, inventory.config is not None
    found: dict[str, Found] = {}
    for name in ("weight_scale_inv", "qscale_weight", "scale"):
        for module in inventory.modules(name):
            dense = f"{module}.weight"
            weight, scale = tensors.get(dense), tensors[f"{module}.{name}"]
            if _belongs(name, weight, scale, declared=declared):
                found[dense] = Found(dense, name, weight, scale)
    for name in FUSED:
        for module in inventory.modules(f"{name}_scale_inv"):
            dense = f"{module}.{name}"
            weight = tensors.get(dense)
            if weight is None or weight.dtype not in FLOATS:
                found[dense] = Found(dense, "", weight, tensors[f"{dense}_scale_inv"])
    if declared:
        for dense, weight in _alone(inventory):
            if dense not in found:
                found[dense] = Found(dense, SCALE_NAMES[0] if dense.endswith(".weight") else "", weight, None)
    return list(found.values())


def _belongs(name: str, weight: TensorHeader | None, scale: TensorHeader, *, declared: bool) -> bool:
    """A dense weight beside a scale is a weight that was left dense; ``scale`` alone may be anything's."""
    if weight is not None and weight.dtype in FLOATS:
        return False
    if name == "scale":
        return weight is not None and weight.dtype in CODES and (declared or scale.dtype in POWERS)
    return declared or weight is None or len(weight.shape) >= MATRIX


def _alone(inventory: Inventory) -> Iterator[tuple[str, TensorHeader]]:
    """8-bit floats and fused experts, whether they have a scale or not; embeddings have a layout of their own."""
    tables = embeddings(inventory.config or {})
    for module in inventory.modules("weight"):
        header = inventory.tensors[f"{module}.weight"]
        if header.dtype == "F8_E4M3" and len(header.shape) == MATRIX and not module.endswith(tables or ("\0",)):
            yield header.name, header
    for name in FUSED:
        for module in inventory.modules(name):
            header = inventory.tensors[f"{module}.{name}"]
            if header.dtype == "F8_E4M3" and len(header.shape) > MATRIX:
                yield header.name, header


def read(inventory: Inventory, found: list[Found]) -> tuple[StoredWeight, ...]:
    """Every weight as stored, and every embedding table that ``modules_to_convert`` names."""
    habits = habits_of(inventory, found)
    weights = [_read(item, habits, inventory.config) for item in found]
    foreign = [place for place, item in enumerate(found) if _foreign(item, inventory)]
    if foreign:
        first = weights[foreign[0]]
        weights[foreign[0]] = replace(first, flaws=(*first.flaws, _foreign_names(first, len(foreign))))
    return (*weights, *_tables(inventory))


def _foreign(item: Found, inventory: Inventory) -> bool:
    """The form that AutoFP8 and vLLM write under the same ``quant_method``."""
    name = f"{item.dense.removesuffix('.weight')}.weight_scale"
    return item.scale is None and item.weight is not None and name in inventory.tensors


def _foreign_names(first: StoredWeight, count: int) -> Flaw:
    return Flaw(
        where=f"{first.module}.weight_scale",
        message=f"{count} weights have their scale as weight_scale, as AutoFP8 and vLLM write it; transformers reads "
        "weight_scale_inv only, drops these and takes the codes for weights",
        observed="weight_scale",
        expected=SCALE_NAMES[0],
        hint="publish it as compressed-tensors (format float-quantized), which both read",
    )


def _read(item: Found, habits: Habits, config: Mapping[str, Json] | None) -> StoredWeight:
    dense, header = item.dense, item.weight
    four = header is not None and header.dtype == "I8"
    shape = _dense_shape(header, four=four)
    attributes = _attributes(item, habits, four=four)
    bytes_as_scales = item.scale is not None and item.scale.dtype == "U8"
    flaws = tuple(_flaws(item, shape, config)) if shape is None or bytes_as_scales else ()
    if shape is None:
        expected = _without_weight(item, attributes)
    elif len(shape) > MATRIX and not attributes["block_size"]:
        attributes = {**attributes, "scalar_shape": _expert_scalars(item.scale, shape)}
        expected = layout(dense, shape, attributes)
    else:
        expected = _expected(dense, shape, attributes, habits)
    fused = not dense.endswith(".weight")
    return StoredWeight(
        module=dense if fused else dense[: -len(".weight")],
        weight=dense,
        shape=shape,
        attributes=attributes,
        expected=expected,
        flaws=flaws,
        dense_parts=_parts(dense, shape) if fused and shape else (),
        grain=_grain(shape, attributes) if shape else (1, 0),
    )


def _expected(
    dense: str, shape: tuple[int, ...], attributes: dict[str, Json], habits: Habits
) -> tuple[ExpectedTensor, ...]:
    """The layout, worked out once for all weights of one shape and kind."""
    key = (shape, id(attributes))
    if key not in habits.sizes:
        habits.sizes[key] = sizes(shape, attributes)
    return named(dense, habits.sizes[key], str(attributes["scale_name"]))


def _dense_shape(header: TensorHeader | None, *, four: bool) -> tuple[int, ...] | None:
    if header is None or len(header.shape) < MATRIX or 0 in header.shape:
        return None
    return (*header.shape[:-1], header.shape[-1] * 2) if four else header.shape


def _attributes(item: Found, habits: Habits, *, four: bool) -> dict[str, Json]:
    """What the file shows of a weight; one object for all weights of a kind."""
    last = item.dense.removesuffix(".weight").rpartition(".")[2]
    key = (four, item.scale_name, last if last in habits.static else "")
    if key not in habits.known:
        dtype = habits.scale_dtype[four]
        static = habits.static.get(last)
        found: dict[str, Json] = {
            "bits": 4 if four else 8,
            "quant_type": "e2m1" if four else "e4m3",
            "block_size": [1, FP4_GROUP] if four else list(habits.block) if habits.block else None,
            "activation_scheme": "static" if static else "dynamic",
            "scale_name": item.scale_name or SCALE_NAMES[0],
            "scale_dtype": dtype,
            "scalar_shape": list(habits.scalar_shape),
        }
        if dtype in POWERS:
            found["scale_fmt"] = "ue8m0"
        if static:
            found |= {"activation_dtype": static[0], "activation_shape": list(static[1])}
        habits.known[key] = found
    return habits.known[key]


def _expert_scalars(scale: TensorHeader | None, shape: tuple[int, ...]) -> list[Json]:
    """One scale an expert, or one for each half of its gate and up projections, in the shape that the file has."""
    usual = (*shape[:-2], 1, 1)
    allowed = (usual, (*shape[:-2], 2, 1), shape[:-2])
    return list(scale.shape if scale is not None and scale.shape in allowed else usual)


def _without_weight(item: Found, attributes: Mapping[str, Json]) -> tuple[ExpectedTensor, ...]:
    """A scale whose weight is not there, or has no values: the size of the weight follows from its scales' roughly."""
    scale, block = item.scale, attributes["block_size"] or [1, 1]
    if scale is None or len(scale.shape) < MATRIX:
        return layout(item.dense, (1, 1), attributes)[:1]
    shape = (*scale.shape[:-2], scale.shape[-2] * block[0], scale.shape[-1] * block[1])
    return layout(item.dense, shape, attributes)[:1]


def _flaws(item: Found, shape: tuple[int, ...] | None, config: Mapping[str, Json] | None) -> Iterator[Flaw]:
    if item.weight is not None and shape is None:
        message = f"{item.dense} has shape {list(item.weight.shape)}: no matrix of weights"
        yield Flaw(where=item.dense, message=message, observed=list(item.weight.shape))
    scale = item.scale
    if scale is not None and scale.dtype == "U8" and config is not None and not powers_declared(config):
        yield Flaw(
            where=scale.name,
            message=f"{scale.name} holds exponents as bytes, scale_fmt is not ue8m0: they would be taken for factors",
            observed="U8",
            expected="scale_fmt: ue8m0",
            hint="set scale_fmt to ue8m0 in the quantization_config",
        )


def _parts(dense: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    """The dense tensors of experts one by one, in the order of the fused rows: gate and up alternate."""
    prefix, _, name = dense.rpartition(".")
    if len(shape) <= MATRIX or shape[0] > MOST_EXPERTS:
        return ()
    each = ("gate_proj", "up_proj") if name == "gate_up_proj" else (name,)
    return tuple(f"{prefix}.{number}.{part}.weight" for number in range(shape[0]) for part in each)


def _grain(shape: tuple[int, ...], attributes: Mapping[str, Json]) -> tuple[int, int]:
    """Parts begin at blocks; where blocks of one expert end within another's rows, at experts."""
    block, high = attributes["block_size"], shape[-2]
    if not block:
        down = math.prod(attributes["scalar_shape"] or [1]) // max(math.prod(shape[:-2]), 1)
        return (math.ceil(high / max(down, 1)), 0) if len(shape) > MATRIX else (1, 0)
    rows = block[0] if len(shape) == MATRIX or high % block[0] == 0 else high
    return int(rows), int(block[1])


def _tables(inventory: Inventory) -> Iterator[StoredWeight]:
    """Embedding tables that ``modules_to_convert`` names: one ``weight_scale`` each (``FP8Embedding``)."""
    tables = embeddings(inventory.config or {})
    for module in inventory.modules("weight") if tables else ():
        header = inventory.tensors[f"{module}.weight"]
        if module.endswith(tables) and header.dtype == "F8_E4M3" and len(header.shape) == MATRIX:
            attributes: dict[str, Json] = {
                "bits": 8,
                "quant_type": "e4m3",
                "block_size": None,
                "scale_name": "weight_scale",
                "scale_dtype": "F32",
                "scalar_shape": [1],
            }
            yield StoredWeight(
                module=module,
                weight=header.name,
                shape=header.shape,
                attributes=attributes,
                expected=layout(header.name, header.shape, attributes),
                grain=(1, 0),
            )
