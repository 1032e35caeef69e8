"""fp_quant: MXFP4 or NVFP4 after a rotation of the inputs in groups (arXiv:2509.23202), for Blackwell GPUs.

Stored per layer (``FPQuantLinear``, fp_quant/module/linear.py, 0.3.2): ``qweight`` U8 [out, in / 2], two E2M1 codes a
byte, the low nibble first; ``scales`` U8 [out, in / 32] exponents (mxfp4) or [out, in / 16] E4M3 (nvfp4), padded to 128
rows and 4 columns where sizes ask for it; ``weight_global_scale``, ``act_global_scale`` [1] and
``forward_hadamard_matrix``, ``backward_hadamard_matrix`` [group, group] in the model's dtype. With
``pseudoquantization`` the decoded values instead, ``dqweight`` [out, in]; with ``store_master_weights`` the dense
weight. Real quantization needs qutlass; its layout is taken from the module's buffers.

Decoded: code · scale / weight_global_scale. The matrix tells the transform: hadamard, gsr (its columns by sequency), or
identity. Rotated weights are not compared with the baseline's: their outputs are. Skipped modules are named by their
end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from checker.checkpoint import Checkpoint, TensorHeader
from checker.config_values import boolean, names_or_none, one_of
from checker.domain import Json, Limit
from checker.facts import ExpectedTensor, Flaw, StoredWeight
from checker.inventory import Inventory
from checker.registry import Method, register_method

if TYPE_CHECKING:
    from checker.coded import CodedWeight, Window

FORWARD, BACKWARD = "forward_hadamard_matrix", "backward_hadamard_matrix"
MATRIX = 2
GROUPS = {"mxfp4": 32, "nvfp4": 16}
TRANSFORM_SIZES = (16, 32, 64, 128)
FLOATS = {"BF16": 2, "F16": 2, "F32": 4}
KEYS = {
    "quant_method": one_of("fp_quant"),
    "forward_dtype": one_of("mxfp4", "nvfp4"),
    "forward_method": one_of("abs_max", "quest"),
    "backward_dtype": one_of("bf16", "mxfp8", "mxfp4"),
    "store_master_weights": boolean,
    "hadamard_group_size": one_of(*TRANSFORM_SIZES, None),
    "pseudoquantization": boolean,
    "transform_init": one_of("hadamard", "identity", "gsr"),
    "modules_to_not_convert": names_or_none,
}


def _declares(config: Mapping[str, Json]) -> bool:
    return config.get("quant_method") == "fp_quant"


def _declared(config: Mapping[str, Json]) -> dict[str, Json]:
    kind = config.get("forward_dtype", "nvfp4")
    return {
        "bits": 4,
        "forward_dtype": kind,
        "hadamard_group_size": config.get("hadamard_group_size") or (32 if kind == "mxfp4" else 16),
        "pseudoquantization": config.get("pseudoquantization") is True,
        "transform_init": config.get("transform_init", "hadamard"),
        "master_weights": config.get("store_master_weights") is True,
    }


def _recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    modules = dict.fromkeys(inventory.modules("dqweight"))
    for module in inventory.modules("qweight", FORWARD):
        packed, weight = inventory.header(module, "qweight"), inventory.header(module, "weight")
        rotated = inventory.header(module, FORWARD) is not None
        if weight is None and (packed.dtype == "U8" or rotated if packed is not None else rotated):
            modules[module] = None
    return tuple(_read_weight(inventory, module) for module in modules)


def _read_weight(inventory: Inventory, module: str) -> StoredWeight:
    pseudo = inventory.header(module, "dqweight")
    packed = pseudo if pseudo is not None else inventory.header(module, "qweight")
    flaws = []
    shape = None
    if packed is not None and len(packed.shape) == MATRIX and 0 not in packed.shape:
        shape = (packed.shape[0], packed.shape[1] * (1 if pseudo is not None else 2))
    elif packed is not None:
        message = f"{packed.name} has shape {list(packed.shape)}: no matrix of weights"
        flaws.append(Flaw(where=packed.name, message=message, observed=list(packed.shape)))
    attributes = _attributes(inventory, module, shape, pseudo)
    dense = f"{module}.weight"
    transform = attributes.get("transform_init")
    reason = "" if transform == "identity" else "weights are rotated before they are quantized; compare outputs"
    return StoredWeight(
        module=module,
        weight=f"{module}.{'dqweight' if pseudo is not None else 'qweight'}",
        shape=shape,
        attributes=attributes,
        expected=_layout(dense, shape or (0, 0), attributes)[: None if shape else 1],
        flaws=tuple(flaws),
        dense=dense,
        grain=(1, 64),
        incomparable=reason,
    )


def _attributes(
    inventory: Inventory, module: str, shape: tuple[int, int] | None, pseudo: TensorHeader | None
) -> dict[str, Json]:
    """What headers and the transform's matrix tell; the type of pseudo-quantized values they do not."""
    found: dict[str, Json] = {"bits": 4, "pseudoquantization": pseudo is not None, "master_weights": False}
    declared = _declared(inventory.config or {})
    scales = inventory.header(module, "scales")
    if pseudo is None:
        kind = _kind(scales, shape)
        found["forward_dtype"] = kind or declared["forward_dtype"]
        if kind and shape and scales is not None:
            found["padded"] = scales.shape == _scale_shape(shape, kind, padded=True)
    matrix = inventory.header(module, FORWARD)
    square = matrix is not None and len(matrix.shape) == MATRIX and matrix.shape[0] == matrix.shape[1]
    if matrix is not None and square and matrix.shape[0] in TRANSFORM_SIZES and matrix.dtype in FLOATS:
        found |= {"hadamard_group_size": matrix.shape[0], "dtype": matrix.dtype}
        found["transform_init"] = _transform(inventory.checkpoint, matrix)
    else:
        found["hadamard_group_size"] = declared["hadamard_group_size"]
    if pseudo is not None and pseudo.dtype in FLOATS:
        found["dtype"] = pseudo.dtype
    return found


def _kind(scales: TensorHeader | None, shape: tuple[int, int] | None) -> str:
    """The type whose group size the scales have."""
    if scales is None or shape is None:
        return ""
    shapes = {kind: [_scale_shape(shape, kind, padded=padded) for padded in (False, True)] for kind in GROUPS}
    return next((kind for kind in GROUPS if scales.shape in shapes[kind]), "")


def _scale_shape(shape: tuple[int, ...], kind: str, *, padded: bool) -> tuple[int, int]:
    rows, columns = shape[0], math.ceil(shape[1] / GROUPS[kind])
    return (math.ceil(rows / 128) * 128, math.ceil(columns / 4) * 4) if padded else (rows, columns)


def _transform(checkpoint: Checkpoint, matrix: TensorHeader) -> str:
    from checker.methods._float_numbers import transform_of

    return transform_of(checkpoint.float32(matrix.name).reshape(matrix.shape))


def _layout(dense: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    """The tensors of one layer [out, in]."""
    if len(shape) != MATRIX:
        return ()
    module, dtype = dense.removesuffix(".weight"), str(attributes.get("dtype", "BF16"))
    size, side = FLOATS[dtype], int(attributes.get("hadamard_group_size", 16))
    if attributes.get("master_weights"):
        nbytes = math.prod(shape) * size
        codes = [ExpectedTensor(name=dense, dtype=dtype, shape=shape, nbytes=nbytes, companion=False)]
    elif attributes.get("pseudoquantization"):
        nbytes = math.prod(shape) * size
        codes = [ExpectedTensor(name=f"{module}.dqweight", dtype=dtype, shape=shape, nbytes=nbytes, companion=False)]
    else:
        packed = (shape[0], math.ceil(shape[1] / 2))
        kind = str(attributes.get("forward_dtype", "nvfp4"))
        scales = _scale_shape(shape, kind if kind in GROUPS else "nvfp4", padded=bool(attributes.get("padded")))
        codes = [
            ExpectedTensor(
                name=f"{module}.qweight", dtype="U8", shape=packed, nbytes=math.prod(packed), companion=False
            ),
            ExpectedTensor(name=f"{module}.scales", dtype="U8", shape=scales, nbytes=math.prod(scales)),
        ]
    factors = ("weight_global_scale", "act_global_scale")
    return (
        *codes,
        *(ExpectedTensor(name=f"{module}.{name}", dtype=dtype, shape=(1,), nbytes=size) for name in factors),
        *(
            ExpectedTensor(name=f"{module}.{name}", dtype=dtype, shape=(side, side), nbytes=side * side * size)
            for name in (FORWARD, BACKWARD)
        ),
    )


def _skips(config: Mapping[str, Json]) -> tuple[str, ...]:
    listed = config.get("modules_to_not_convert")
    return tuple(str(name) for name in listed) if isinstance(listed, list) else ("lm_head",)


def _entry_matches(entry: str, module: str) -> bool:
    """The end of a name (``replace_with_fp_quant_linear`` in fp_quant/utils/replace.py)."""
    return module.endswith(entry)


def _stored_dense(config: Mapping[str, Json]) -> str:
    kept = config.get("store_master_weights") is True
    return "store_master_weights: weights are quantized at every forward pass" if kept else ""


def _decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    from checker.methods._float_numbers import decode_fp_quant

    return decode_fp_quant(checkpoint, weight, window)


register_method(
    Method(
        id="fp_quant",
        quant_method="fp_quant",
        documentation=__doc__ or "",
        keys=KEYS,
        declares=_declares,
        declared=_declared,
        recognise=_recognise,
        layout=_layout,
        skips=_skips,
        entry_matches=_entry_matches,
        stored_dense=_stored_dense,
        activations=lambda _: True,
        decode=_decode,
        config_class="transformers.FPQuantConfig",
        limits={
            "weights.error.R": Limit(warn=1.3, fail=2.0),
            "outputs.modules.error_activations": Limit(warn=0.2, fail=0.4),
            "weights.error.gain": Limit(fail=0.04),
            "weights.codes.extreme": Limit(warn=0.5, fail=0.0),
        },
    )
)
