"""AutoRound's packings of floating point, by their headers: MXFP4, MXINT4, NVFP4, MXFP8 and 8-bit floats.

Per layer [out, in]: ``weight_packed`` U8 [out, in / 2], two codes a byte, low nibble first, with ``weight_scale`` U8
[out, in / 32] (a power of two) or, for NVFP4, F8_E4M3 [out, in / 16] and ``weight_global_scale`` F32 [1]; or ``weight``
F8_E4M3 [out, in] with ``weight_scale`` U8 [out, in / 32], BF16 [out], BF16 [1], or ``weight_scale_inv`` BF16, one for a
block. Calibrated activations add ``input_scale`` or ``input_global_scale``.
Source: auto_round/export/export_to_autoround/{qlinear_fp,qlinear_int,export_to_fp8}.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from checker.checkpoint import TensorHeader
from checker.domain import Json
from checker.facts import ExpectedTensor, StoredWeight
from checker.inventory import Inventory
from checker.methods._packed_words import bias, bias_dtype, matrix

ITEM_BYTES = {"U8": 1, "F8_E4M3": 1, "BF16": 2, "F16": 2, "F32": 4}
SCALES = ("BF16", "F16", "F32")
MX_GROUP, NV_GROUP = 32, 16
FULL_BYTE = 8  # bits
KINDS = {"mx_fp": "mx_fp", "mx_int": "mx_int", "nv_fp": "nv_fp", "fp": "fp"}  # a data type's beginning -> its kind
PARTS = ("weight_packed", "weight_scale", "weight_scale_inv")


def kind_of(data_type: Json) -> str:
    """The kind of number that a config's ``data_type`` names; "" for integers in words."""
    text = data_type.lower() if isinstance(data_type, str) else ""
    return next((kind for start, kind in KINDS.items() if text.startswith(start)), "")


def declared(config: Mapping[str, Json]) -> dict[str, Json]:
    """The attributes that a config of floats declares; {} for one of integers."""
    kind = kind_of(config.get("data_type"))
    return {"data_type": kind, "bits": 4 if kind in ("mx_int", "nv_fp") else _bits(config)} if kind else {}


def _bits(config: Mapping[str, Json]) -> int:
    value = config.get("bits")
    return value if isinstance(value, int) and value in (4, FULL_BYTE) else 4


def read_weights(inventory: Inventory, config: Mapping[str, Json]) -> tuple[StoredWeight, ...]:
    """Every weight that is packed, or has lost its codes or scales, under a config that declares floats."""
    kind = kind_of(config.get("data_type"))
    activations = tuple(part for part in ("input_scale", "input_global_scale") if inventory.modules(part))
    modules = dict.fromkeys(inventory.modules(*PARTS))
    for module in inventory.modules("weight"):
        if inventory.tensors[f"{module}.weight"].dtype == "F8_E4M3":
            modules[module] = None
    return tuple(_read(inventory, module, kind, activations, config) for module in modules)


def _read(
    inventory: Inventory, module: str, kind: str, activations: tuple[str, ...], config: Mapping[str, Json]
) -> StoredWeight:
    packed = inventory.header(module, "weight_packed")
    whole = inventory.header(module, "weight")
    scale = inventory.header(module, "weight_scale")
    inverse = inventory.header(module, "weight_scale_inv")
    shape, attributes = _stored(packed, whole, scale, kind)
    if attributes["data_type"] == "fp":
        attributes |= _eight_bit_scale(scale, inverse, shape, config)
    attributes |= {"activations": list(activations), "bias": bias_dtype(inventory, module)}
    dense = f"{module}.weight"
    expected = layout(dense, shape, attributes)
    block = attributes.get("block")
    return StoredWeight(
        module=module,
        weight=expected[0].name,
        dense=dense,
        shape=shape if min(shape) > 0 else None,
        attributes=attributes,
        expected=expected,
        grain=(block[0], block[1]) if isinstance(block, list) else (1, 0),
    )


def _stored(
    packed: TensorHeader | None, whole: TensorHeader | None, scale: TensorHeader | None, kind: str
) -> tuple[tuple[int, int], dict[str, Json]]:
    """Dense shape, kind and bits; MXFP4 and MXINT4 look the same, so there the config decides."""
    if packed is not None or whole is None:
        rows, width = matrix(packed) or (0, 0)
        found = "nv_fp" if scale is not None and scale.dtype == "F8_E4M3" else "mx_int" if kind == "mx_int" else "mx_fp"
        if scale is None and kind in ("nv_fp", "mx_fp"):
            found = kind
        return (rows, 2 * width), {"data_type": found, "bits": 4}
    found = "mx_fp" if scale is not None and scale.dtype == "U8" else "fp"
    return matrix(whole) or (0, 0), {"data_type": found, "bits": FULL_BYTE}


def _eight_bit_scale(
    scale: TensorHeader | None, inverse: TensorHeader | None, shape: tuple[int, int], config: Mapping[str, Json]
) -> dict[str, Json]:
    """How far a scale of 8-bit floats reaches: a block, a row, or the matrix."""
    header = inverse if inverse is not None else scale
    dtype = header.dtype if header is not None and header.dtype in SCALES else "BF16"
    block = config.get("weight_block_size")
    blocks = isinstance(block, list) and len(block) == 2 and all(_whole(size) for size in block)  # noqa: PLR2004
    if inverse is not None or (scale is None and blocks):
        return {"scale_dtype": dtype, "block": block if blocks else [128, 128]}
    rows = shape[0] if header is None or header.shape == (shape[0],) else 1
    return {"scale_dtype": dtype, "rows": rows}


def _whole(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 20


def layout(dense: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    """The tensors of one layer, the codes first, for a dense weight [out, in]."""
    return tuple(_layout(dense.removesuffix(".weight"), shape if len(shape) == 2 else (0, 0), attributes))  # noqa: PLR2004


def _layout(module: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> Iterator[ExpectedTensor]:
    rows, columns = shape
    kind = attributes["data_type"]
    if attributes["bits"] == FULL_BYTE:
        yield _tensor(f"{module}.weight", "F8_E4M3", (rows, columns), packed=True)
    else:
        yield _tensor(f"{module}.weight_packed", "U8", (rows, columns // 2), packed=True)
    if kind == "nv_fp":
        yield _tensor(f"{module}.weight_scale", "F8_E4M3", (rows, math.ceil(columns / NV_GROUP)))
        yield _tensor(f"{module}.weight_global_scale", "F32", (1,))
    elif kind != "fp":
        yield _tensor(f"{module}.weight_scale", "U8", (rows, math.ceil(columns / MX_GROUP)))
    elif "block" in attributes:
        high, wide = attributes["block"]
        blocks = (math.ceil(rows / high), math.ceil(columns / wide))
        yield _tensor(f"{module}.weight_scale_inv", attributes.get("scale_dtype", "BF16"), blocks)
    else:
        count = 1 if attributes.get("rows") == 1 else rows
        yield _tensor(f"{module}.weight_scale", attributes.get("scale_dtype", "BF16"), (count,))
    for part in attributes.get("activations", ()):
        yield _tensor(f"{module}.{part}", "F32" if part == "input_global_scale" else "BF16", (1,))
    yield from bias(module, rows, attributes)


def _tensor(name: str, dtype: str, shape: tuple[int, ...], *, packed: bool = False) -> ExpectedTensor:
    nbytes = math.prod(shape) * ITEM_BYTES[dtype]
    return ExpectedTensor(name=name, dtype=dtype, shape=shape, nbytes=nbytes, companion=not packed)
