"""Quanto's tensors: ``<module>.weight._data`` and what goes with it, and the dense shape behind packed groups."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from checker.checkpoint import TensorHeader
from checker.domain import Json
from checker.facts import ExpectedTensor, StoredWeight
from checker.inventory import Inventory

EIGHT_BITS = {"I8": "qint8", "F8_E4M3": "qfloat8_e4m3fn", "F8_E5M2": "qfloat8_e5m2", "F8_E4M3FNUZ": "qfloat8_e4m3fnuz"}
FLOATS = {"F16": 2, "BF16": 2, "F32": 4}
LARGEST_GROUP = 128
GROUPS = (128, 96, 64, 32)  # the first of them that divides the inputs
MATRIX = 2  # dimensions
_OUTWARD = ("down_proj", "o_proj", "out_proj", "fc2", "w2", "wo", "dense", "dense_4h_to_h", "c_proj", "proj")
_HIDDEN = ("hidden_size", "d_model", "n_embd", "dim")


def recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    """Every ``weight._data``, packed or not, and what has lost it but kept its scale."""
    names = (*inventory.modules("_data"), *inventory.modules("_scale"))
    parameters = dict.fromkeys(name.removesuffix("._data") for name in names)
    modules = [name.removesuffix(".weight") for name in parameters if name.endswith(".weight")]
    usual = _usual(inventory, modules) if modules else "F16"
    return tuple(_read_weight(inventory, module, usual) for module in modules)


def _usual(inventory: Inventory, modules: list[str]) -> str:
    """The scales' dtype is the model's: that of most of them."""
    counts = dict.fromkeys(FLOATS, 0)
    for module in modules:
        header = inventory.header(module, "weight._scale")
        if header is not None and header.dtype in counts:
            counts[header.dtype] += 1
    return max(counts, key=lambda dtype: counts[dtype])


def _read_weight(inventory: Inventory, module: str, usual: str) -> StoredWeight:
    packed = inventory.header(module, "weight._data._data")
    plain = inventory.header(module, "weight._data")
    shift = inventory.header(module, "weight._shift")
    attributes: dict[str, Json] = {"bits": 8, "quant_type": "qint8", "scale_dtype": usual}
    shape: tuple[int, ...] | None = None
    incomparable = ""
    if packed is not None or (plain is None and shift is not None):
        attributes |= _packed_attributes(packed, inventory.header(module, "weight._scale"), shift)
        if packed is not None and len(packed.shape) == MATRIX and all(packed.shape):
            rows, columns = int(attributes["rows"]), packed.shape[1]
            shape, incomparable = _dense_shape(inventory, module, rows, columns)
            attributes["group_size"] = columns if shape != (rows, columns) or columns == LARGEST_GROUP else None
    elif plain is not None and len(plain.shape) == MATRIX and plain.dtype in EIGHT_BITS:
        attributes["quant_type"] = EIGHT_BITS[plain.dtype]
        shape = plain.shape
    return StoredWeight(
        module=module,
        weight=f"{module}.weight.{'_data' if attributes['bits'] == 8 else '_data._data'}",  # noqa: PLR2004
        shape=shape,
        attributes=attributes,
        expected=layout(f"{module}.weight", shape or (0, 0), attributes),
        dense=f"{module}.weight",
        grid=_grid(shape, packed),
        incomparable=incomparable,
    )


def _grid(shape: tuple[int, ...] | None, packed: TensorHeader | None) -> tuple[int, int]:
    """Groups run on across rows: the matrix of groups is the weight itself, cut anew."""
    if shape is None or packed is None:
        return (0, 0)
    return (math.prod(shape) // packed.shape[1], packed.shape[1])


def _packed_attributes(
    packed: TensorHeader | None, scale: TensorHeader | None, shift: TensorHeader | None
) -> dict[str, Json]:
    """Bits from how many rows the scales have for each packed one."""
    step = packed.shape[0] if packed is not None and packed.shape else 0
    rows = scale.shape[0] if scale is not None and scale.shape else 2 * step
    four = rows <= 2 * step or not step
    whole = shift is not None and shift.dtype in ("I8", "U8")
    return {
        "bits": 4 if four else 2,
        "quant_type": "qint4" if four else "qint2",
        "rows": rows,
        "shift_dtype": shift.dtype if shift is not None and whole else None,
    }


def _dense_shape(inventory: Inventory, module: str, rows: int, columns: int) -> tuple[tuple[int, int], str]:
    """[out, in] of a matrix of groups, and why it cannot be told, if so.

    The bias tells; else inputs or outputs are the model's width, by what the layer is called.
    """
    total = rows * columns
    bias = inventory.header(module, "bias")
    if columns not in GROUPS:
        return (rows, columns), ""
    outputs = bias.shape[0] if bias is not None and bias.shape else None
    if outputs is None:
        config = inventory.checkpoint.config or {}
        text = config.get("text_config")
        places = (text, config) if isinstance(text, Mapping) else (config,)
        found = (place.get(key) for place in places for key in _HIDDEN)
        width = next((value for value in found if isinstance(value, int) and value > 0), None)
        if width is not None:
            outputs = width if module.rpartition(".")[2] in _OUTWARD else total // width
    if outputs and total % outputs == 0 and total // outputs % columns == 0:
        return (outputs, total // outputs), ""
    return (rows, columns), "the shape behind its groups is not known"


def layout(dense: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    """All tensors of a layer whose dense weight is called ``dense``."""
    return tuple(_tensors(dense, shape, attributes))


def _tensors(dense: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> Iterator[ExpectedTensor]:
    floats = str(attributes.get("scale_dtype") or "F16")
    bits = int(attributes.get("bits", 8))
    kind = str(attributes.get("quant_type", "qint8"))
    if bits == 8:  # noqa: PLR2004 - one code a byte
        dtype = next((code for code, name in EIGHT_BITS.items() if name == kind), "I8")
        yield _tensor(f"{dense}._data", dtype, shape, companion=False)
        yield _tensor(f"{dense}._scale", floats, (shape[0], 1))
    else:
        columns = attributes.get("group_size") or _usual_group(shape)
        rows = math.prod(shape) // max(1, columns)
        packed = (math.ceil(rows * bits / 8), columns)
        yield _tensor(f"{dense}._data._data", "U8", packed, companion=False)
        yield _tensor(f"{dense}._scale", floats, (rows, 1))
        yield _tensor(f"{dense}._shift", str(attributes.get("shift_dtype") or floats), (rows, 1))
    module = dense.removesuffix(".weight")
    yield _tensor(f"{module}.input_scale", floats, ())
    yield _tensor(f"{module}.output_scale", floats, ())


def _usual_group(shape: tuple[int, ...]) -> int:
    """128, or the next smaller multiple of 32 that divides the inputs; none where there are 128 inputs or fewer."""
    inputs = max(1, math.prod(shape[1:]))
    if inputs <= LARGEST_GROUP:
        return inputs
    return next((group for group in GROUPS if inputs % group == 0), inputs)


def _tensor(name: str, dtype: str, shape: tuple[int, ...], *, companion: bool = True) -> ExpectedTensor:
    nbytes = math.prod(shape) * FLOATS.get(dtype, 1)
    return ExpectedTensor(name=name, dtype=dtype, shape=shape, nbytes=nbytes, companion=companion)
