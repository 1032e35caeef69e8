"""The tensors that one compressed-tensors weight is stored as, with exact dtype and shape, in every format.

``attributes`` hold ``format``, ``bits``, ``type``, ``symmetric``, ``strategy``, ``group_size``, ``block_structure``,
``act_order``; and how this file writes companions: ``scale_dtype``, ``zero_point`` (dtype), ``shape_dtype``,
``scalar_shape`` and ``extras`` (name, dtype and shape of what activations and the cache have calibrated).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from checker.domain import Json
from checker.facts import ExpectedTensor
from checker.methods._compressed_tensors_scheme import (
    DENSE,
    FLOAT,
    MXFP4,
    MXFP6,
    MXFP8,
    NAIVE,
    NVFP4,
    PACKED,
    Scheme,
)

ITEM_BYTES = {"U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E8M0": 1, "F16": 2, "BF16": 2, "I32": 4, "F32": 4, "I64": 8}
WORD = 32  # bits
FLOATS = ("BF16", "F16", "F32")
_SCALE = {NVFP4: ("F8_E4M3",), MXFP4: ("U8", "F8_E8M0"), MXFP6: ("U8", "F8_E8M0"), MXFP8: ("U8", "F8_E8M0")}
_VALUES_PER_BYTES = {NVFP4: (2, 1), MXFP4: (2, 1), MXFP6: (4, 3)}  # so many values in so many bytes


def scale_shape(strategy: str, shape: tuple[int, int], group_size: int, block: tuple[int, ...]) -> tuple[int, ...]:
    """One scale for the matrix, for a row, for a group of a row, or for a block (``initialize_qparams``)."""
    rows, columns = shape
    if strategy in ("group", "tensor_group"):
        return rows, math.ceil(columns / max(group_size, 1))
    if strategy == "block" and block:
        return math.ceil(rows / block[0]), math.ceil(columns / block[1])
    return (1,) if strategy == "tensor" else (rows, 1)


def scale_dtypes(stored_format: str) -> tuple[str, ...]:
    """The dtypes that scales of a format may have, the usual one first."""
    return _SCALE.get(stored_format, FLOATS)


def scales_of(attributes: Mapping[str, Any], shape: tuple[int, int]) -> tuple[int, ...]:
    """The shape of the scales by the attributes."""
    block = tuple(attributes.get("block_structure") or ())
    return scale_shape(str(attributes.get("strategy")), shape, int(attributes.get("group_size") or 0), block)


def layout(dense: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    """The tensors of a weight whose dense form is ``dense`` [out, in]; nothing for a form that no format packs."""
    module = dense.removesuffix(".weight")
    if len(shape) != 2:  # noqa: PLR2004 - a matrix; fused experts are split before they are packed
        return ()
    rows, columns = shape
    stored = str(attributes.get("format", PACKED))
    found = [_weight(module, (rows, columns), stored, attributes)]
    if stored == PACKED:
        kind = str(attributes.get("shape_dtype", "I64"))
        found.append(_tensor(f"{module}.weight_shape", kind, (2,)))
        if attributes.get("act_order"):
            found.append(_tensor(f"{module}.weight_g_idx", "I32", (columns,)))
    scales = scales_of(attributes, (rows, columns))
    if scales == (1,):
        scales = tuple(attributes.get("scalar_shape", (1,)))
    found.append(_tensor(f"{module}.weight_scale", _scale_dtype(stored, attributes), scales))
    if stored == NVFP4:
        found.append(_tensor(f"{module}.weight_global_scale", "F32", (1,)))
    if not attributes.get("symmetric", True) or "zero_point" in attributes or stored == DENSE:
        found.append(_zero_point(module, (rows, columns), scales, stored, attributes))
    found += [_tensor(name, kind, tuple(size)) for name, kind, size in attributes.get("extras", ())]
    return tuple(found)


def _scale_dtype(stored: str, attributes: Mapping[str, Any]) -> str:
    allowed = scale_dtypes(stored)
    kind = str(attributes.get("scale_dtype", allowed[0]))
    return kind if kind in allowed else allowed[0]


def _weight(module: str, shape: tuple[int, int], stored: str, attributes: Mapping[str, Any]) -> ExpectedTensor:
    """The codes themselves."""
    rows, columns = shape
    if stored == PACKED:
        words = math.ceil(columns * int(attributes.get("bits", 4)) / WORD)
        return _tensor(f"{module}.weight_packed", "I32", (rows, words), companion=False)
    if stored in _VALUES_PER_BYTES:
        values, size = _VALUES_PER_BYTES[stored]
        return _tensor(f"{module}.weight_packed", "U8", (rows, math.ceil(columns * size / values)), companion=False)
    if stored == DENSE:
        return _tensor(f"{module}.weight", _scale_dtype(stored, attributes), shape, companion=False)
    floats = stored in (FLOAT, MXFP8) or (stored == NAIVE and attributes.get("type") == "float")
    return _tensor(f"{module}.weight", "F8_E4M3" if floats else "I8", shape, companion=False)


def _zero_point(
    module: str, shape: tuple[int, int], scales: tuple[int, ...], stored: str, attributes: Mapping[str, Any]
) -> ExpectedTensor:
    """One zero point a scale, in a byte; the packed format packs them along the rows, as many to a word as codes."""
    kind = str(attributes.get("zero_point", "I32"))
    name = f"{module}.weight_zero_point"
    if stored == PACKED and kind == "I32" and attributes.get("strategy") in ("group", "channel"):
        words = math.ceil(shape[0] * int(attributes.get("bits", 4)) / WORD)
        return _tensor(name, "I32", (words, scales[1]))
    optional = bool(attributes.get("symmetric", True))  # written, and all zero, by some versions
    return _tensor(name, "I8" if kind == "I32" else kind, scales, optional=optional)


def _tensor(
    name: str, dtype: str, shape: tuple[int, ...], *, companion: bool = True, optional: bool = False
) -> ExpectedTensor:
    nbytes = math.prod(shape) * ITEM_BYTES.get(dtype, 1)
    return ExpectedTensor(name=name, dtype=dtype, shape=shape, nbytes=nbytes, companion=companion, optional=optional)


def strategy_of(
    found: tuple[int, ...] | None, shape: tuple[int, int], scheme: Scheme | None, default: str
) -> dict[str, Json]:
    """Strategy and sizes as the shape of the scales tells them; the declared ones where it fits those as well.

    One group as long as a row cannot be told from one scale a row, nor a partial block from a whole one.
    """
    if scheme is not None:
        wanted = scale_shape(scheme.strategy, shape, scheme.group_size, scheme.block)
        if found in (None, wanted) or (found == (1, 1) and wanted == (1,)):
            return _as_declared(scheme)
    told = _by_shape(found, shape, default) if found is not None else None
    if told is not None:
        return told
    if scheme is not None:
        return _as_declared(scheme)
    size = {NVFP4: 16, MXFP4: 32, MXFP6: 32, MXFP8: 32}.get(default)
    return {"strategy": "channel"} if size is None else {"strategy": _grouped(default), "group_size": size}


def _by_shape(found: tuple[int, ...], shape: tuple[int, int], default: str) -> dict[str, Json] | None:
    """What a shape of scales means on its own; None when it fits nothing."""
    rows, columns = shape
    if math.prod(found) == 1 and (rows > 1 or len(found) < 2):  # noqa: PLR2004 - a matrix
        return {"strategy": "tensor"}
    if len(found) != 2 or not all(found):  # noqa: PLR2004
        return None
    down, across = found
    if down == rows and across == 1:
        return {"strategy": "channel"}
    if down == rows and columns % across == 0:
        return {"strategy": _grouped(default), "group_size": columns // across}
    if default == FLOAT and down < rows and across < columns:
        return {"strategy": "block", "block_structure": [math.ceil(rows / down), math.ceil(columns / across)]}
    return None


def _grouped(stored: str) -> str:
    return "tensor_group" if stored == NVFP4 else "group"


def _as_declared(scheme: Scheme) -> dict[str, Json]:
    found: dict[str, Json] = {"strategy": scheme.strategy}
    if scheme.group_size:
        found["group_size"] = scheme.group_size
    if scheme.block:
        found["block_structure"] = list(scheme.block)
    return found
