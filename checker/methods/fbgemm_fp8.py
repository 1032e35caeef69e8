"""fbgemm_fp8: 8-bit floats with one scale a row, by FBGEMM's ``quantize_fp8_per_row``.

Stored per layer (``FbgemmFp8Linear``, transformers/integrations/fbgemm_fp8.py): ``weight`` F8_E4M3 [out, in],
``weight_scale`` [out, 1] in F32 (BF16 by some publishers), ``bias`` in F32 where transformers wrote it; older files
also hold ``input_scale_ub``. Experts of Llama 4 in one tensor: ``gate_up_proj`` [experts, in, 2 · out] with
``gate_up_proj_scale`` [experts, 1, 2 · out], ``down_proj`` [experts, in, out] with ``down_proj_scale`` [experts, out,
1]: one scale for each column of an expert.

Decoded: code · scale. The layout of a layer is also that of compressed-tensors' float-quantized; without a config it is
called that.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from checker.checkpoint import Checkpoint
from checker.config_values import modules_to_not_convert, names_or_none, number, one_of
from checker.domain import Json, Limit
from checker.facts import ExpectedTensor, Flaw, StoredWeight
from checker.inventory import Inventory
from checker.registry import Method, register_method

if TYPE_CHECKING:
    from checker.coded import CodedWeight, Window

MATRIX = 2  # dimensions
EXPERTS = ("gate_up_proj", "down_proj")
FLOATS = ("BF16", "F16", "F32")
ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4}


def _declares(config: Mapping[str, Json]) -> bool:
    return config.get("quant_method") == "fbgemm_fp8"


def _declared(config: Mapping[str, Json]) -> dict[str, Json]:
    del config  # nothing of it changes the layout
    return {"bits": 8, "quant_type": "e4m3", "granularity": "row"}


def _recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    """Only where declared: 8-bit floats, and scales that have lost theirs."""
    if inventory.config is None:
        return ()
    names = list(dict.fromkeys(_names(inventory)))
    kinds = Counter(
        header.dtype for name in names if (header := inventory.tensors.get(f"{name}_scale")) and header.dtype in FLOATS
    )
    usual = kinds.most_common(1)[0][0] if kinds else "F32"
    return tuple(_read_weight(inventory, name, usual) for name in names)


def _names(inventory: Inventory) -> Iterator[str]:
    for module in inventory.modules("weight"):
        if inventory.tensors[f"{module}.weight"].dtype in ("F8_E4M3", "F8_E5M2", "I8", "U8"):
            yield f"{module}.weight"
    for module in inventory.modules("weight_scale"):
        if f"{module}.weight" not in inventory.tensors:
            yield f"{module}.weight"
    for name in EXPERTS:
        for module in inventory.modules(f"{name}_scale"):
            yield f"{module}.{name}"


def _read_weight(inventory: Inventory, name: str, usual: str) -> StoredWeight:
    header = inventory.tensors.get(name)
    flaws = []
    shape = None
    if header is not None and len(header.shape) == (MATRIX if name.endswith(".weight") else MATRIX + 1):
        shape = header.shape if 0 not in header.shape else None
    if header is not None and shape is None:
        message = f"{name} has shape {list(header.shape)}: no matrix of weights"
        flaws.append(Flaw(where=name, message=message, observed=list(header.shape)))
    module = name.removesuffix(".weight")
    bias = inventory.header(module, "bias") if name.endswith(".weight") else None
    attributes: dict[str, Json] = {
        "bits": 8,
        "quant_type": "e4m3",
        "granularity": "row",
        "scale_dtype": usual,
        "bias_dtype": bias.dtype if bias is not None and bias.dtype in FLOATS else None,
        "upper_bound": inventory.header(module, "input_scale_ub") is not None,
    }
    expected = _layout(name, shape or _likely(inventory, name), attributes)
    return StoredWeight(
        module=module,
        weight=name,
        shape=shape,
        attributes=attributes,
        expected=expected if shape else expected[:1],
        flaws=tuple(flaws),
        grain=(1, 0) if shape is None or len(shape) == MATRIX else (shape[1], 1),
    )


def _likely(inventory: Inventory, name: str) -> tuple[int, ...]:
    """A shape for a weight that is not there, from its scale."""
    scale = inventory.tensors.get(f"{name}_scale")
    rows = scale.shape[0] if scale is not None and scale.shape else 0
    return (rows, 0) if name.endswith(".weight") else (rows, 0, 0)


def _layout(dense: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    """The tensors of one layer [out, in], or of experts [experts, in, out]."""
    kind = str(attributes.get("scale_dtype", "F32"))
    packed = ExpectedTensor(name=dense, dtype="F8_E4M3", shape=shape, nbytes=math.prod(shape), companion=False)
    if len(shape) == MATRIX:
        module = dense.removesuffix(".weight")
        found = [packed, _tensor(f"{dense}_scale", kind, (shape[0], 1))]
        bias = attributes.get("bias_dtype")
        if bias:
            found.append(_tensor(f"{module}.bias", str(bias), (shape[0],)))
        if attributes.get("upper_bound"):
            found.append(_tensor(f"{module}.input_scale_ub", "F32", (1,)))
        return tuple(found)
    if len(shape) != MATRIX + 1:
        return ()
    scales = (shape[0], shape[2], 1) if dense.endswith("down_proj") else (shape[0], 1, shape[2])
    return packed, _tensor(f"{dense}_scale", kind, scales)


def _tensor(name: str, dtype: str, shape: tuple[int, ...]) -> ExpectedTensor:
    return ExpectedTensor(name=name, dtype=dtype, shape=shape, nbytes=math.prod(shape) * ITEM_BYTES[dtype])


def _decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    from checker.methods._float_numbers import decode_rows

    return decode_rows(checkpoint, weight, window)


register_method(
    Method(
        id="fbgemm_fp8",
        quant_method="fbgemm_fp8",
        documentation=__doc__ or "",
        keys={
            "quant_method": one_of("fbgemm_fp8"),
            "activation_scale_ub": number,
            "modules_to_not_convert": names_or_none,
        },
        declares=_declares,
        declared=_declared,
        recognise=_recognise,
        layout=_layout,
        skips=modules_to_not_convert,
        activations=lambda _: True,
        decode=_decode,
        config_class="transformers.FbgemmFp8Config",
        limits={"weights.error.gain": Limit(fail=0.01), "weights.codes.extreme": Limit(warn=0.99, fail=0.5)},
    )
)
