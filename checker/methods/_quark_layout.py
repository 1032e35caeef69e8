"""How AMD Quark stores one weight: shapes, and what headers tell of it.

Source: quark/torch/utils/pack.py and quark/torch/export/nn/modules/realquantizer.py (amd-quark 0.13). Integers with a
scale a group are stored transposed, [in, out], their scales as well, [in / group, out].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from checker.checkpoint import TensorHeader
from checker.domain import Json
from checker.facts import ExpectedTensor, StoredWeight
from checker.inventory import Inventory
from checker.methods._parts import size
from checker.methods._quark_config import BITS, attributes_of, pack_method

ITEM_BYTES = {"U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F16": 2, "BF16": 2, "I32": 4, "F32": 4}
STORAGE = {
    "int8": "I8",
    "uint8": "U8",
    "int4": "I32",
    "uint4": "I32",
    "fp8_e4m3": "F8_E4M3",
    "fp8_e5m2": "F8_E5M2",
    "fp4": "U8",
    "fp6_e2m3": "U8",
    "fp6_e3m2": "U8",
}
CODES_A_WORD = 8  # 4-bit codes in 32 bits
MX_GROUP, NVFP4_GROUP = 32, 16
SCALE_DTYPES = ("BF16", "F16", "F32")
ZERO_POINTS_READ = 1 << 16  # bytes; larger ones are not read to see whether the layer is symmetric
MATRIX = 2
_SIDES = ("input", "output", "bias")


def recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    """Every module with a Quark scale; with Quark's config also those that have lost theirs."""
    modules = dict.fromkeys(inventory.modules("weight_scale", "weight_zero_point"))
    if inventory.config is None:
        found = (module for module in modules if _unmistakable(inventory, module))
    else:
        modules.update(dict.fromkeys(_without_scale(inventory)))
        found = (module for module in modules if _packed(inventory.header(module, "weight")))
    return tuple(_read(inventory, module) for module in found)


def _without_scale(inventory: Inventory) -> Iterator[str]:
    for module in inventory.modules("weight"):
        if _packed(inventory.header(module, "weight")):
            yield module


def _packed(header: TensorHeader | None) -> bool:
    return header is None or (len(header.shape) == MATRIX and header.dtype in STORAGE.values())


def _unmistakable(inventory: Inventory, module: str) -> bool:
    """Integers come with zero points also when symmetric, and scales are never [out, 1]; no other tool does so."""
    weight, scale = inventory.header(module, "weight"), inventory.header(module, "weight_scale")
    zero = inventory.header(module, "weight_zero_point")
    if weight is None or scale is None or len(weight.shape) != MATRIX:
        return False
    if weight.dtype in ("I8", "U8", "I32") and zero is not None:
        return zero.dtype == weight.dtype and scale.dtype in SCALE_DTYPES
    if weight.dtype in ("F8_E4M3", "F8_E5M2"):
        return scale.shape == weight.shape[:1] or (not scale.shape and scale.dtype != "F32")
    second = inventory.header(module, "weight_scale_2")  # ModelOpt's is F32
    two_levels = scale.dtype == "F8_E4M3" and second is not None and second.dtype != "F32"
    return weight.dtype == "U8" and (scale.dtype == "U8" or two_levels) and _microscaling(weight, scale) is not None


def _microscaling(weight: TensorHeader, scale: TensorHeader) -> str | None:
    """fp4 or fp6 by the width of the rows against that of the scales."""
    if len(scale.shape) != MATRIX or scale.shape[0] != weight.shape[0]:
        return None
    group = NVFP4_GROUP if scale.dtype == "F8_E4M3" else MX_GROUP
    values = scale.shape[1] * group
    if weight.shape[1] * 2 == values:
        return "fp4"
    return "fp6" if weight.shape[1] * 4 == values * 3 and group == MX_GROUP else None


def _read(inventory: Inventory, module: str) -> StoredWeight:
    header, scale = inventory.header(module, "weight"), inventory.header(module, "weight_scale")
    attributes = _attributes(inventory, module, header, scale)
    shape = _dense_shape(header, scale, attributes)
    name = f"{module}.weight"
    group = int(attributes.get("group_size") or 1)
    return StoredWeight(
        module=module,
        weight=name,
        shape=shape,
        attributes=attributes,
        expected=layout(name, shape, attributes) if shape else _as_found(name, header),
        grain=(CODES_A_WORD if header is not None and header.dtype == "I32" else 1, group)
        if _transposed(attributes)
        else (1, 0),
    )


def _attributes(
    inventory: Inventory, module: str, header: TensorHeader | None, scale: TensorHeader | None
) -> dict[str, Json]:
    """What headers tell; the config only decides between dtypes that are stored alike."""
    intended = _intended(inventory.config)
    dtype = _dtype(header, scale, intended)
    zero = inventory.header(module, "weight_zero_point")
    found: dict[str, Json] = {"bits": BITS[dtype], "dtype": dtype}
    scheme = _scheme(scale if scale is not None else zero, dtype)
    if scheme:
        found["scheme"] = scheme
    if scheme == "per_group" and header is not None and scale is not None:
        found["group_size"] = _group_size(header, scale, dtype)
    if zero is not None and zero.nbytes <= ZERO_POINTS_READ and dtype in ("int8", "uint8", "int4", "uint4"):
        found["symmetric"] = not inventory.checkpoint.read(zero.name).any()
    found["static_input_scales"] = inventory.header(module, "input_scale") is not None
    further = dict(_further(inventory, module))
    if further:
        found["further"] = further
    if scale is not None and scale.dtype in (*SCALE_DTYPES, "U8", "F8_E4M3"):
        found["scale_dtype"] = scale.dtype
    second = inventory.header(module, "weight_scale_2")
    if second is not None and second.dtype in SCALE_DTYPES:
        found["second_scale_dtype"] = second.dtype
    if dtype.endswith("int4"):
        found["pack_method"] = pack_method(inventory.config)
    return found


def _intended(config: Mapping[str, Json] | None) -> tuple[str, ...]:
    """Every dtype that the config mentions for weights."""
    settings = [(config or {}).get("global_quant_config")]
    for key in ("layer_quant_config", "layer_type_quant_config"):
        layers = (config or {}).get(key)
        settings += list(layers.values()) if isinstance(layers, Mapping) else []
    found = (attributes_of(item).get("dtype") for item in settings if isinstance(item, Mapping))
    return tuple(str(dtype) for dtype in found if dtype)


def _dtype(header: TensorHeader | None, scale: TensorHeader | None, intended: tuple[str, ...]) -> str:
    if header is None:
        return intended[0] if intended else "int8"
    if header.dtype == "I32":
        return "uint4" if "uint4" in intended and "int4" not in intended else "int4"
    if header.dtype == "U8" and scale is not None and len(header.shape) == MATRIX:
        kind = _microscaling(header, scale) if scale.dtype in ("U8", "F8_E4M3") else None
        if kind is not None:
            return next((dtype for dtype in intended if dtype.startswith(kind)), "fp4" if kind == "fp4" else "fp6_e2m3")
    by_storage = {"I8": "int8", "U8": "uint8", "F8_E4M3": "fp8_e4m3", "F8_E5M2": "fp8_e5m2"}
    if header.dtype == "U8" and any(dtype.startswith("fp") and STORAGE[dtype] == "U8" for dtype in intended):
        return next(dtype for dtype in intended if STORAGE[dtype] == "U8")
    return by_storage.get(header.dtype, "int8")


def _scheme(scale: TensorHeader | None, dtype: str) -> str:
    """What has one scale, by the dimensions of the scales; "" when they are gone."""
    if dtype.startswith(("fp4", "fp6")):
        return "per_group"
    return ("per_tensor", "per_channel", "per_group")[min(len(scale.shape), 2)] if scale is not None else ""


def _group_size(header: TensorHeader, scale: TensorHeader, dtype: str) -> int:
    """Inputs a group, from the numbers of rows of codes and of scales; 0 where they do not fit."""
    if len(scale.shape) != MATRIX or len(header.shape) != MATRIX:
        return 0
    if dtype.startswith(("fp4", "fp6")):
        groups, inputs = scale.shape[1], header.shape[1] * 8 // BITS[dtype]
    else:
        groups, inputs = scale.shape[0], header.shape[0]
    return inputs // groups if groups and inputs % groups == 0 else 0


def _transposed(attributes: Mapping[str, Any]) -> bool:
    return attributes.get("scheme") == "per_group" and str(attributes["dtype"]).endswith(("int8", "int4"))


def _dense_shape(
    header: TensorHeader | None, scale: TensorHeader | None, attributes: Mapping[str, Any]
) -> tuple[int, int] | None:
    """[out, in]; the outputs of packed words follow from the scales."""
    if header is None or len(header.shape) != MATRIX or 0 in header.shape:
        return None
    rows, columns = header.shape
    dtype = str(attributes["dtype"])
    if _transposed(attributes):
        if not attributes.get("group_size") or scale is None:
            return None
        return (scale.shape[1] if dtype.endswith("int4") else columns), rows
    if dtype.endswith("int4"):
        return rows, columns * CODES_A_WORD
    if dtype == "fp4":
        return rows, columns * 2
    return (rows, columns * 4 // 3) if dtype.startswith("fp6") else (rows, columns)


def layout(weight: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    """The tensors of one layer of a dense [out, in] weight; activation scales only where they are static."""
    module = weight.removesuffix(".weight")
    rows, columns = shape[-2:]
    dtype, scheme = str(attributes.get("dtype")), str(attributes.get("scheme", "per_tensor"))
    dtype = dtype if dtype in STORAGE else "int8"
    scale = str(attributes.get("scale_dtype") or ("U8" if dtype.startswith(("fp4", "fp6")) else "BF16"))
    group = size(attributes.get("group_size")) or 0
    stored = STORAGE[dtype]
    if dtype.startswith(("fp4", "fp6")):
        packed: tuple[int, ...] = (rows, columns * BITS[dtype] // 8)
        scales: tuple[int, ...] = (rows, math.ceil(columns / max(group, 1)))
        zeros = None
    else:
        turned = scheme == "per_group" and not dtype.startswith("fp")
        packed = (columns, rows) if turned else (rows, columns)
        groups = math.ceil(columns / max(group, 1))
        scales = {"per_tensor": (), "per_channel": (rows,)}.get(scheme, (groups, rows))
        zeros = None if dtype.startswith("fp") else scales
        if dtype.endswith("int4"):
            packed = (packed[0], math.ceil(packed[1] / CODES_A_WORD))
            zeros = (*scales[:-1], math.ceil(scales[-1] / CODES_A_WORD)) if scales else ()
    expected = [
        tensor(weight, stored, packed, companion=False),
        tensor(f"{module}.weight_scale", scale, scales),
    ]
    if zeros is not None:
        expected.append(tensor(f"{module}.weight_zero_point", stored, zeros))
    if scale == "F8_E4M3":
        expected.append(tensor(f"{module}.weight_scale_2", str(attributes.get("second_scale_dtype", "BF16")), ()))
    further = attributes.get("further", {})
    expected += [tensor(f"{module}.{part}", dtype, (), optional=True) for part, dtype in further.items()]
    return tuple(expected)


def tensor(
    name: str, dtype: str, shape: tuple[int, ...], *, companion: bool = True, optional: bool = False
) -> ExpectedTensor:
    """One row of a layout."""
    nbytes = math.prod(shape) * ITEM_BYTES[dtype]
    return ExpectedTensor(name=name, dtype=dtype, shape=shape, nbytes=nbytes, companion=companion, optional=optional)


def _as_found(name: str, header: TensorHeader | None) -> tuple[ExpectedTensor, ...]:
    """Where no dense shape follows: the weight as it lies there, or one that is missing."""
    dtype, shape = (header.dtype, header.shape) if header is not None else ("I8", (0, 0))
    size = header.nbytes if header is not None else 0
    return (ExpectedTensor(name=name, dtype=dtype, shape=shape, nbytes=size, companion=False),)


def _further(inventory: Inventory, module: str) -> Iterator[tuple[str, str]]:
    """Scales of activations and biases, and the cache's: one number each, in the dtype they are found in."""
    for side in _SIDES:
        for part, allowed in (("scale", SCALE_DTYPES), ("zero_point", ("I8", "U8", "I32"))):
            header = inventory.header(module, f"{side}_{part}")
            if header is not None:
                yield f"{side}_{part}", header.dtype if header.dtype in allowed else allowed[0]
