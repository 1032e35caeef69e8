"""bitsandbytes 8-bit (LLM.int8, arXiv:2208.07339): one int8 code a weight, one scale a row.

Stored per layer (``Linear8bitLt``, bitsandbytes/nn/modules.py): ``weight`` I8 [out, in]; ``SCB`` F32 [out], the largest
magnitude of each row; ``weight_format`` U8, a scalar 0 for row order (older writers leave it out). Decoded:
weight = code · SCB / 127. Transposed layers (Conv1D of GPT-2) are stored [out, in] as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from checker.checkpoint import Checkpoint
from checker.domain import Json, Limit
from checker.facts import ExpectedTensor, Flaw, StoredWeight
from checker.inventory import Inventory
from checker.methods import bitsandbytes_config as shared
from checker.registry import LoadedWeight, Method, register_method

if TYPE_CHECKING:
    from checker.coded import CodedWeight, Window

MATRIX = 2  # dimensions
OTHER_SCALES = ("weight_scale", "weight_scales", "weight_scale_inv")


def _declares(config: Mapping[str, Json]) -> bool:
    return shared.is_bitsandbytes(config) and bool(config.get("load_in_8bit")) and not config.get("load_in_4bit")


def _declared(config: Mapping[str, Json]) -> dict[str, Json]:
    del config  # nothing of it changes the layout
    return {"bits": 8, "storage": "I8"}


def _recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    """Whatever has an SCB, and int8 matrices that have lost theirs (a single column is 4-bit data in int8 storage)."""
    modules = dict.fromkeys(inventory.modules("SCB"))
    if modules or inventory.config is not None:  # int8 weights with other scales belong to other methods
        for module in inventory.modules("weight"):
            header = inventory.tensors[f"{module}.weight"]
            alone = header.dtype == "I8" and len(header.shape) == MATRIX and header.shape[1] != 1
            if alone and not any(inventory.header(module, scale) for scale in OTHER_SCALES):
                modules[module] = None
    return tuple(_read_weight(inventory.checkpoint, module) for module in modules)


def _read_weight(checkpoint: Checkpoint, module: str) -> StoredWeight:
    header = checkpoint.tensors.get(f"{module}.weight")
    shape = header.shape if header and len(header.shape) == MATRIX else None
    flaws = []
    marker = f"{module}.weight_format"
    if marker in checkpoint.tensors and checkpoint.tensors[marker].nbytes == 1 and checkpoint.read(marker)[0] != 0:
        message = f"{marker} is {checkpoint.read(marker)[0]}: the weight is stored in a GPU's tile order, not in rows"
        flaws.append(Flaw(where=marker, message=message, expected=0, hint="save again with bitsandbytes 0.45 or newer"))
    return StoredWeight(
        module=module,
        weight=f"{module}.weight",
        shape=shape,
        attributes={"bits": 8, "storage": header.dtype if header else "I8"},
        expected=_layout(f"{module}.weight", shape or (0, 0), {}),
        flaws=tuple(flaws),
    )


def _layout(weight: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    del attributes
    module = weight.removesuffix(".weight")
    scale = ExpectedTensor(name=f"{module}.SCB", dtype="F32", shape=shape[:1], nbytes=4 * shape[0])
    marker = ExpectedTensor(name=f"{module}.weight_format", dtype="U8", shape=(), nbytes=1, optional=True)
    packed = ExpectedTensor(name=weight, dtype="I8", shape=shape, nbytes=math.prod(shape), companion=False)
    return (packed, scale, marker)


def _decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    from checker.methods._bitsandbytes_numbers import decode_8bit

    return decode_8bit(checkpoint, weight, window)


def _inspect_module(module: Any) -> LoadedWeight | None:
    import bitsandbytes as bnb

    if not isinstance(module, bnb.nn.Linear8bitLt):
        return None
    scale = module.weight.SCB if getattr(module.weight, "SCB", None) is not None else module.state.SCB
    if scale is None or str(module.weight.dtype) != "torch.int8":
        return None
    return LoadedWeight(weight_dtype="int8", compute_dtype=None, state=(scale,))


register_method(
    Method(
        id="bitsandbytes-8bit",
        quant_method="bitsandbytes",
        documentation=__doc__ or "",
        keys=shared.KEYS,
        declares=_declares,
        declared=_declared,
        recognise=_recognise,
        layout=_layout,
        skips=shared.skips,
        contradictions=shared.contradictions,
        activations=lambda _: True,
        decode=_decode,
        inspect_module=_inspect_module,
        config_class=shared.CONFIG_CLASS,
        quantizes_here=True,
        limits={"weights.error.gain": Limit(fail=0.005)},
    )
)
