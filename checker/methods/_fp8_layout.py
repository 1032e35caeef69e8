"""The tensors of one fine-grained FP8 weight, with exact dtype and shape.

``attributes``: ``bits`` and ``quant_type`` (8, e4m3 or 4, e2m1), ``block_size`` ([rows, columns], None for one scale a
matrix), ``activation_scheme``; and how this file writes companions: ``scale_name``, ``scale_dtype``, ``scalar_shape``,
``activation_dtype``, ``activation_shape``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from checker.facts import ExpectedTensor

FUSED = ("gate_up_proj", "down_proj", "up_proj")  # parameters of experts in one tensor, without ".weight"
SCALE_NAMES = ("weight_scale_inv", "scale", "qscale_weight", "weight_scale")
FP4_GROUP = 32
ITEM_BYTES = {"F8_E4M3": 1, "F8_E8M0": 1, "U8": 1, "I8": 1, "BF16": 2, "F16": 2, "F32": 4}
MATRIX = 2

Block = tuple[int, int]
Size = tuple[str, tuple[int, ...], int]  # dtype, shape, bytes


def layout(dense: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    """The tensors of a weight whose dense form is ``dense`` [out, in] or [experts, out, in]."""
    return named(dense, sizes(shape, attributes), str(attributes.get("scale_name", SCALE_NAMES[0])))


def sizes(shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[Size, ...]:
    """Dtype, shape and bytes of the codes, the scales, and the activation scale if there is one."""
    if len(shape) < MATRIX:
        return ()
    four = attributes.get("bits") == 4  # noqa: PLR2004
    packed = (*shape[:-1], shape[-1] // 2) if four else shape
    found = [_size("I8" if four else "F8_E4M3", packed)]
    found.append(_size(str(attributes.get("scale_dtype", "F32")), scale_shape(shape, attributes)))
    if attributes.get("activation_scheme") == "static":
        static = tuple(attributes.get("activation_shape") or ((shape[0],) if len(shape) > MATRIX else ()))
        found.append(_size(str(attributes.get("activation_dtype", "F32")), static))
    return tuple(found)


def named(dense: str, parts: tuple[Size, ...], scale_name: str) -> tuple[ExpectedTensor, ...]:
    """The sizes as tensors of one weight; ninety thousand of them in a large mixture."""
    if not parts:
        return ()
    (dtype, shape, nbytes), *others = parts
    found = [ExpectedTensor(name=dense, dtype=dtype, shape=shape, nbytes=nbytes, companion=False)]
    for name, (dtype, shape, nbytes) in zip((scale_of(dense, scale_name), activation_of(dense)), others, strict=False):
        found.append(ExpectedTensor(name=name, dtype=dtype, shape=shape, nbytes=nbytes))
    return tuple(found)


def scale_of(dense: str, name: str) -> str:
    """The scale's tensor: beside ``weight``, or the fused parameter's own name with ``_scale_inv``."""
    return f"{dense[: -len('weight')]}{name}" if dense.endswith(".weight") else f"{dense}_scale_inv"


def activation_of(dense: str) -> str:
    """The tensor with the scale of static activations."""
    module = dense.removesuffix(".weight")
    return f"{module}.activation_scale" if module != dense else f"{module}_activation_scale"


def scale_shape(shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[int, ...]:
    """One scale a block, the last of which may be partial, or one for the matrix (one for each expert)."""
    block = attributes.get("block_size")
    if block:
        return (*shape[:-2], math.ceil(shape[-2] / block[0]), math.ceil(shape[-1] / block[1]))
    return tuple(attributes.get("scalar_shape") or ((*shape[:-2], 1, 1) if len(shape) > MATRIX else ()))


def _size(dtype: str, shape: tuple[int, ...]) -> Size:
    return dtype, shape, math.prod(shape) * ITEM_BYTES.get(dtype, 4)
