"""BitNet b1.58: ternary weights −1, 0, 1 with one scale a matrix (arXiv:2402.17764).

Stored per layer (transformers/integrations/bitnet.py): ``weight`` U8 [out / 4, in], four codes to a byte, the first
quarter of the rows in the lowest two bits, code = value + 1; ``weight_scale`` [1] in the model's dtype. With
``linear_class: autobitlinear`` the scale is mean|W| and multiplies; with ``bitlinear``, the default, it is 1 / mean|W|
and divides. The file is the same: a wrong ``linear_class`` shows only against the baseline. ``quantization_mode:
online`` stores dense weights, which are made ternary in each forward. ``use_rms_norm`` adds ``rms_norm.weight`` [in] to
a layer.

What rounding to −1, 0, 1 costs depends on the weights: beyond ±1.5 scales nothing bounds the error. It is predicted for
normally distributed weights, 0.0816 scale² a zero and 0.564 scale² another code; R is then 0.4 for uniform and 1.9 for
Laplace-distributed weights, and the bars are wider than elsewhere. The gain is not 1 in theory and is not judged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from checker.checkpoint import Checkpoint, TensorHeader
from checker.config_values import Domain, boolean, modules_to_not_convert, names_or_none, number, one_of
from checker.domain import Json, Limit
from checker.facts import ExpectedTensor, Flaw, StoredWeight
from checker.inventory import Inventory
from checker.registry import Intent, Method, Planner, register_method

if TYPE_CHECKING:
    from checker.coded import CodeBook, CodedWeight, Window

PER_BYTE = 4
MATRIX = 2  # dimensions
FLOATS = {"BF16": 2, "F16": 2, "F32": 4}
ZERO_VARIANCE, ONE_VARIANCE = 0.0816, 0.5638  # of normally distributed weights, at scale mean|W|

KEYS: Mapping[str, Domain] = {
    "quant_method": one_of("bitnet"),
    "modules_to_not_convert": names_or_none,
    "linear_class": one_of("bitlinear", "autobitlinear"),
    "quantization_mode": one_of("offline", "online"),
    "use_rms_norm": boolean,
    "rms_norm_eps": lambda value: None if value is None else number(value),
}


def _declares(config: Mapping[str, Json]) -> bool:
    return config.get("quant_method") == "bitnet"


def _declared(config: Mapping[str, Json]) -> dict[str, Json]:
    del config  # of it only the optional norm changes what is stored
    return {"bits": 2, "quant_type": "ternary"}


def _planner(config: Mapping[str, Json]) -> Planner:
    """Online quantization leaves everything dense; else the general rules hold."""
    reason = _stored_dense(config)
    intent = Intent(quantized=False, reason=reason) if reason else Intent()
    return lambda names, role: intent  # noqa: ARG005 - the same for every module


def _online(config: Mapping[str, Json]) -> bool:
    return config.get("linear_class") == "autobitlinear" and config.get("quantization_mode") == "online"


def _stored_dense(config: Mapping[str, Json]) -> str:
    return "online quantization keeps the weights dense and makes them ternary in each forward" * _online(config)


def _contradictions(config: Mapping[str, Json]) -> list[tuple[str, str]]:
    """``BitLinear`` knows packed weights only."""
    if config.get("quantization_mode") == "online" and config.get("linear_class", "bitlinear") == "bitlinear":
        return [
            ("quantization_mode", "quantization_mode online needs linear_class autobitlinear; bitlinear ignores it")
        ]
    return []


def _recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    """Byte matrices with one scale; when declared, also those that have lost theirs."""
    modules = {
        module: None for module in inventory.modules("weight_scale") if _is_packed(inventory.header(module, "weight"))
    }
    if inventory.config is None:
        modules = {module: None for module in modules if _is_single(inventory.header(module, "weight_scale"))}
    else:
        modules |= {
            module: None for module in inventory.modules("weight") if _is_packed(inventory.header(module, "weight"))
        }
    usual = _usual(inventory, modules)
    return tuple(_read_weight(inventory, module, usual) for module in modules)


def _is_packed(header: TensorHeader | None) -> bool:
    return header is not None and header.dtype == "U8" and len(header.shape) == MATRIX and all(header.shape)


def _is_single(header: TensorHeader | None) -> bool:
    return header is not None and header.shape == (1,) and header.dtype in FLOATS


def _usual(inventory: Inventory, modules: Mapping[str, None]) -> str:
    """The scales' dtype is the model's: that of most of them."""
    counts = dict.fromkeys(FLOATS, 0)
    for module in modules:
        header = inventory.header(module, "weight_scale")
        if header is not None and header.dtype in counts:
            counts[header.dtype] += 1
    return max(counts, key=lambda dtype: counts[dtype])


def _read_weight(inventory: Inventory, module: str, usual: str) -> StoredWeight:
    header = inventory.tensors[f"{module}.weight"]
    shape = (PER_BYTE * header.shape[0], header.shape[1])
    divides = (inventory.config or {}).get("linear_class", "bitlinear") == "bitlinear"
    norm = (inventory.config or {}).get("use_rms_norm") is True
    attributes = {
        "bits": 2,
        "quant_type": "ternary",
        "scale_dtype": usual,
        "scale_divides": divides,
        "use_rms_norm": norm,
    }
    return StoredWeight(
        module=module,
        weight=f"{module}.weight",
        shape=shape,
        attributes=attributes,
        expected=_layout(f"{module}.weight", shape, attributes),
        flaws=tuple(_flaws(inventory, module)),
        grain=(1, 0),
    )


def _flaws(inventory: Inventory, module: str) -> list[Flaw]:
    bias = inventory.header(module, "bias")
    rows = PER_BYTE * inventory.tensors[f"{module}.weight"].shape[0]
    if bias is None or bias.shape == (rows,):
        return []
    message = f"{module}.weight unpacks to {rows} rows, its bias has {list(bias.shape)}"
    return [Flaw(where=f"{module}.weight", message=message, observed=rows, expected=list(bias.shape))]


def _layout(weight: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    dtype = str(attributes.get("scale_dtype", "BF16"))
    module = weight.removesuffix(".weight")
    width = FLOATS.get(dtype, 2)
    packed = (math.ceil(shape[0] / PER_BYTE), *shape[1:])
    expected = [
        ExpectedTensor(name=weight, dtype="U8", shape=packed, nbytes=math.prod(packed), companion=False),
        ExpectedTensor(name=f"{module}.weight_scale", dtype=dtype, shape=(1,), nbytes=width),
    ]
    if attributes.get("use_rms_norm"):
        name = f"{module}.rms_norm.weight"
        expected.append(ExpectedTensor(name=name, dtype=dtype, shape=shape[-1:], nbytes=width * shape[-1]))
    return tuple(expected)


def _decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    from dataclasses import replace

    import numpy as np

    from checker.coded import Place, Scaling, tiled
    from checker.methods._byte_planes import Planes, read_planes

    place = Place.of(weight.grid, window)
    rows, columns = checkpoint.tensors[weight.weight].shape
    packed = Planes(step=rows, columns=columns, bits=2, shifts=(0, 2, 4, 6))
    codes = read_planes(checkpoint, weight.weight, packed, place.rows)
    scale = checkpoint.float32(f"{weight.module}.weight_scale").reshape(1, 1)
    if weight.attributes["scale_divides"]:
        with np.errstate(divide="ignore"):
            scale = np.divide(np.float32(1), scale)
    height = place.rows.stop - place.rows.start
    pieces = tiled(codes, Scaling(scales=scale), (height, columns), _book(), place)
    invalid = int(np.count_nonzero(codes == PER_BYTE - 1))
    flaw = f"{invalid} codes are 3, which stands for no ternary value" if invalid else ""
    return tuple(replace(piece, code_book_flaw=flaw) for piece in pieces)


@cache
def _book() -> CodeBook:
    import numpy as np

    from checker.code_books import code_book, whole_bytes

    levels = np.array([-1, 0, 1, 2], np.float32)
    variance = np.array([ONE_VARIANCE, ZERO_VARIANCE, ONE_VARIANCE, ONE_VARIANCE], np.float32)
    return code_book(levels, whole_bytes(2), bits=2, variance=variance)


register_method(
    Method(
        id="bitnet",
        quant_method="bitnet",
        documentation=__doc__ or "",
        keys=KEYS,
        declares=_declares,
        declared=_declared,
        recognise=_recognise,
        layout=_layout,
        skips=modules_to_not_convert,
        planner=_planner,
        contradictions=_contradictions,
        stored_dense=_stored_dense,
        activations=lambda _: True,
        decode=_decode,
        config_class="transformers.BitNetQuantConfig",
        limits={
            "weights.error.R": Limit(warn=2.5, fail=4.0),
            "weights.error.exact": Limit(warn=0.02),
            "weights.error.gain": Limit(fail=4.0),
        },
    )
)
