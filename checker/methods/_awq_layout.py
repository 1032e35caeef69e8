"""The four packings of AWQ by their headers: gemm, gemv, gemv_fast and llm-awq.

gemm: ``qweight`` I32 [in, out · bits / 32], ``qzeros`` I32 [groups, out · bits / 32], ``scales`` [groups, out]. gemv:
``qweight`` I32 [out, in / 8], ``qzeros`` I32 [out, w], ``scales`` [out, 8 w]; w words for the groups, rounded up.
gemv_fast: ``qweight`` I16 [out / 4, in], ``scales`` and ``qzeros`` F16 [8 w, out], zero points times minus their
scale. llm-awq: the same with ``scaled_zeros`` for ``qzeros``. Source: awq/modules/linear/{gemm,gemv,gemv_fast}.py of
AutoAWQ 0.2.9; gptqmodel/nn_modules/qlinear/gemv_fast_awq.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from checker.domain import Json
from checker.facts import ExpectedTensor
from checker.inventory import Inventory
from checker.methods._packed_words import (
    WORD,
    bias,
    bias_dtype,
    choose_width,
    group_count,
    matrix,
    stored_group_size,
    tensor,
    widths,
    words,
)

PACKINGS = ("gemm", "gemv", "gemv_fast", "llm-awq")
PER_WORD = 8  # 4-bit codes of a 32-bit word
ROWS = 4  # interleaved in gemv_fast


def zeros_width(inputs: int, group_size: int) -> int:
    """Words for the zero points of one output in gemv's packings (``calculate_zeros_width`` in AutoAWQ)."""
    multiple = {64: 2, 32: 4}.get(group_size, 1)
    width = math.ceil(inputs // group_size / PER_WORD)
    return math.ceil(width / multiple) * multiple


def layout(weight: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    """The tensors of one layer for a dense weight [out, in]."""
    module = weight.removesuffix(".weight")
    if len(shape) != 2:  # noqa: PLR2004 - a matrix
        return (tensor(f"{module}.qweight", "I32", (0, 0), packed=True),)
    outputs, inputs = shape
    bits, group = int(attributes["bits"]), int(attributes["group_size"])
    packing, scales = attributes.get("packing", "gemm"), attributes.get("scale_dtype", "F16")
    if packing == "gemm":
        groups, columns = group_count(inputs, group), words(outputs, bits)
        parts = [
            tensor(f"{module}.qweight", "I32", (inputs, columns), packed=True),
            tensor(f"{module}.qzeros", "I32", (groups, columns)),
            tensor(f"{module}.scales", scales, (groups, outputs)),
        ]
        return (*parts, *bias(module, outputs, attributes))
    width = zeros_width(inputs, group if group > 0 else max(inputs, 1))
    if packing == "gemv":
        parts = [
            tensor(f"{module}.qweight", "I32", (outputs, inputs // PER_WORD), packed=True),
            tensor(f"{module}.qzeros", "I32", (outputs, width)),
            tensor(f"{module}.scales", scales, (outputs, width * PER_WORD)),
        ]
    else:
        zeros = "scaled_zeros" if packing == "llm-awq" else "qzeros"
        parts = [
            tensor(f"{module}.qweight", "I16", (outputs // ROWS, inputs), packed=True),
            tensor(f"{module}.scales", scales, (width * PER_WORD, outputs)),
            tensor(f"{module}.{zeros}", scales, (width * PER_WORD, outputs)),
        ]
    return (*parts, *bias(module, outputs, attributes))


def packing_of(inventory: Inventory, module: str, declared: str) -> str:
    """How a module is packed, "" for none of AWQ's ways; ``declared`` decides where shapes allow several."""
    packed, scales = inventory.header(module, "qweight"), matrix(inventory.header(module, "scales"))
    shape, zeros = matrix(packed), matrix(inventory.header(module, "qzeros"))
    if packed is None or shape is None or scales is None:
        return ""
    if packed.dtype == "I16":
        if zeros is None and inventory.header(module, "scaled_zeros") is None:
            return declared if declared in PACKINGS[2:] else "gemv_fast"
        return "gemv_fast" if zeros is not None else "llm-awq"
    if packed.dtype != "I32":
        return ""
    fitting = []
    gemm = widths(scales[1], shape[1])
    if gemm and shape[0] >= scales[0] and (zeros is None or zeros == (scales[0], shape[1])):
        fitting.append("gemm")
    if shape[0] == scales[0] and (zeros is None or zeros == (scales[0], scales[1] // PER_WORD)):
        fitting.append("gemv")
    return declared if declared in fitting else next(iter(fitting), "")


def geometry(
    inventory: Inventory, module: str, packing: str, declared: Mapping[str, Json]
) -> tuple[tuple[int, int], dict[str, Json]]:
    """The dense shape [out, in] and what headers tell of the settings; (0, 0) without a packed matrix."""
    packed = matrix(inventory.header(module, "qweight"))
    scales = matrix(inventory.header(module, "scales"))
    zeros = matrix(inventory.header(module, "qzeros"))
    found: dict[str, Json] = {"packing": packing, "bias": bias_dtype(inventory, module), "bits": 4}
    size = declared.get("group_size")
    size = size if isinstance(size, int) and not isinstance(size, bool) and size > 0 else 128
    found["group_size"] = size
    if packing == "gemm":
        return _gemm_geometry(found, (packed, scales, zeros), declared)
    if packed is None:
        return (0, 0), found
    shape = (packed[0], packed[1] * PER_WORD) if packing == "gemv" else (packed[0] * ROWS, packed[1])
    if scales is not None:
        width = (scales[1] if packing == "gemv" else scales[0]) // PER_WORD
        found["group_size"] = _group_of_width(shape[1], width, size)
    return shape, found


Matrix = tuple[int, int] | None


def _gemm_geometry(
    found: dict[str, Json], parts: tuple[Matrix, Matrix, Matrix], declared: Mapping[str, Json]
) -> tuple[tuple[int, int], dict[str, Json]]:
    """Of qweight, scales and qzeros. Groups are whole in this packing: inputs that they do not divide are damage."""
    packed, scales, zeros = parts
    size = found["group_size"]
    assert isinstance(size, int)
    groups = scales[0] if scales is not None else zeros[0] if zeros is not None else 0
    fitting = widths(scales[1], packed[1]) if scales is not None and packed is not None else frozenset()
    bits = choose_width([fitting], declared.get("bits"))
    found["bits"] = bits
    outputs = scales[1] if scales is not None and (fitting or packed is None) else 0
    outputs = outputs or (packed[1] * WORD // bits if packed is not None else 0)
    inputs = packed[0] if packed is not None and (not groups or packed[0] % groups == 0) else groups * size
    if 0 < groups <= inputs:
        found["group_size"] = stored_group_size(inputs, groups, declared.get("group_size"))
    return (outputs, inputs), found


def _group_of_width(inputs: int, width: int, declared: int) -> int:
    """The group size that so many words of zero points mean; the declared one where it fits."""
    for size in (declared, 128, 64, 32):
        if zeros_width(inputs, size) == width:
            return size
    return declared
