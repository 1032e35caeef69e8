"""The shapes and dtypes of torchao's tensor subclasses: what each must store for a weight of a given shape.

Source: the classes' docstrings in torchao/quantization/quantize_/workflows and torchao/prototype/mx_formats (0.18).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from checker.facts import ExpectedTensor

PARTS = (  # the longest ending first: scale ends per_tensor_scale
    "act_per_tensor_scale",
    "act_quant_zero_point",
    "act_quant_scale",
    "act_pre_scale",
    "per_tensor_scale",
    "scale_and_zero",
    "zero_point",
    "qdata",
    "scale",
)
OPTIONAL = ("act_pre_scale", "per_tensor_scale")  # as the metadata says; Int8Tensor's zero point as well
ITEM_BYTES = {"F16": 2, "BF16": 2, "I32": 4, "F32": 4}  # the others take one byte
FOUR_BITS = 4
NVFP4_GROUP = 16
TILE_OUT, TILE_IN, INNER = 8, 1024, 128  # of tinygemm: rows and columns are padded to these, 128 inputs a tile

Rows = dict[str, tuple[str, tuple[int, ...]]]  # part -> dtype, shape


def layout(dense: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    """The tensors of a weight called ``dense`` with a dense ``shape``, for ``Method.layout``."""
    module, _, parameter = dense.rpartition(".")
    kind = attributes.get("tensor_class")
    return tuple(
        expected_tensors(f"{module}._{parameter}_", kind if kind in LAYOUTS else "Int8Tensor", shape, attributes)
    )


def expected_tensors(
    prefix: str, kind: str, shape: tuple[int, ...], attributes: Mapping[str, Any]
) -> Iterator[ExpectedTensor]:
    """The tensors of a weight held by a tensor subclass of this ``kind``, their names beginning with ``prefix``."""
    rows = LAYOUTS[kind](shape, attributes)
    parts = attributes.get("parts") or [part for part in rows if part not in OPTIONAL]
    optional = (*OPTIONAL, "zero_point") if kind == "Int8Tensor" else OPTIONAL
    for part, (dtype, size) in rows.items():
        if part in parts or part not in optional:
            nbytes = math.prod(size) * ITEM_BYTES.get(dtype, 1)
            yield ExpectedTensor(name=prefix + part, dtype=dtype, shape=size, nbytes=nbytes, companion=part != "qdata")


def _float(attributes: Mapping[str, Any], part: str, usual: str) -> str:
    return str((attributes.get("dtypes") or {}).get(part, usual))


def _blocks(shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[int, ...]:
    """Blocks along each dimension."""
    block = attributes.get("block_size")
    if not block or len(block) != len(shape):
        size = attributes.get("group_size") if attributes.get("granularity") == "group" else None
        block = [*(1 for _ in shape[:-1]), size or max(shape[-1], 1)]
        block = list(shape) if attributes.get("granularity") == "tensor" else block
    return tuple(math.ceil(size / max(each, 1)) for size, each in zip(shape, block, strict=True))


def _scales(shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[int, ...]:
    blocks = _blocks(shape, attributes)
    scalar = attributes.get("scalar_shape")
    return tuple(scalar) if scalar is not None and math.prod(blocks) == 1 else blocks


def _plain(code: str) -> Callable[[tuple[int, ...], Mapping[str, Any]], Rows]:
    """Codes that lie as the weight does, with scales and whole zero points for blocks."""

    def rows(shape: tuple[int, ...], attributes: Mapping[str, Any]) -> Rows:
        dtype = "F8_E5M2" if attributes.get("quant_type") == "float8_e5m2" else code
        scales = _scales(shape, attributes)
        found: Rows = {"qdata": (dtype, shape), "scale": (_float(attributes, "scale", "F32"), scales)}
        if code == "I8":
            found["zero_point"] = (_float(attributes, "zero_point", "I8"), scales)
        return found | _activation(shape, attributes)

    return rows


def _activation(shape: tuple[int, ...], attributes: Mapping[str, Any]) -> Rows:
    """What concerns activations: a factor for each input; static scales of any shape are left to the loader."""
    return {"act_pre_scale": (_float(attributes, "act_pre_scale", "BF16"), (shape[-1],))} if shape else {}


def _int4(shape: tuple[int, ...], attributes: Mapping[str, Any]) -> Rows:
    *leading, rows, columns = shape if len(shape) > 1 else (1, *shape)
    groups = _blocks((rows, columns), {**attributes, "block_size": (attributes.get("block_size") or [])[-2:]})[1]
    scales = (*leading, groups, rows)
    return {
        "qdata": ("I8", (*leading, rows, columns // 2)),
        "scale": (_float(attributes, "scale", "BF16"), scales),
        "zero_point": (_float(attributes, "zero_point", "BF16"), scales),
    } | _activation(shape, attributes)


def _int4_words(shape: tuple[int, ...], attributes: Mapping[str, Any]) -> Rows:
    rows = _int4(shape, attributes)
    return rows | {
        "qdata": ("I32", (*shape[:-1], shape[-1] // 8)),
        "zero_point": (_float(attributes, "zero_point", "I8"), rows["scale"][1]),
    }


def _int4_tiled(shape: tuple[int, ...], attributes: Mapping[str, Any]) -> Rows:
    *leading, rows, columns = shape if len(shape) > 1 else (1, *shape)
    high, wide = math.ceil(rows / TILE_OUT) * TILE_OUT, math.ceil(columns / TILE_IN) * TILE_IN
    group = max(1, int((attributes.get("block_size") or [attributes.get("group_size") or 128])[-1]))
    return {
        "qdata": ("I32", (*leading, high // TILE_OUT, wide // INNER, 32, 4)),
        "scale_and_zero": ("BF16", (*leading, wide // group, high, 2)),
    } | _activation(shape, attributes)


def _blocked(code: str, scale: str, group: int) -> Callable[[tuple[int, ...], Mapping[str, Any]], Rows]:
    """Microscaling: a small scale for each group, its matrix padded to tiles of 128 × 4 for the hardware."""

    def rows(shape: tuple[int, ...], attributes: Mapping[str, Any]) -> Rows:
        size = max(1, int((attributes.get("block_size") or [group])[-1]))
        *leading, high, wide = shape if len(shape) > 1 else (1, *shape)
        four = attributes.get("bits") == FOUR_BITS
        scales: tuple[int, ...] = (*leading, high, wide // size)
        if attributes.get("swizzled"):
            scales = (*leading, 32 * math.ceil(high / 128), 16 * math.ceil(wide / size / 4))
        found: Rows = {
            "qdata": ("U8", (*shape[:-1], wide // 2)) if four else (code, shape),
            "scale": (scale, scales),
        }
        if code == "U8":
            found["per_tensor_scale"] = ("F32", ())
        return found

    return rows


LAYOUTS: dict[str, Callable[[tuple[int, ...], Mapping[str, Any]], Rows]] = {
    "Int8Tensor": _plain("I8"),
    "IntxUnpackedToInt8Tensor": _plain("I8"),
    "Float8Tensor": _plain("F8_E4M3"),
    "Int4Tensor": _int4,
    "Int4TilePackedTo4dTensor": _int4_tiled,
    "Int4PlainInt32Tensor": _int4_words,
    "MXTensor": _blocked("F8_E4M3", "F8_E8M0", 32),
    "NVFP4Tensor": _blocked("U8", "F8_E4M3", NVFP4_GROUP),
}
