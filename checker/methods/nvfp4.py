"""nvfp4: transformers' own NVFP4, made at load time for Blackwell GPUs; not meant to be saved.

The buffers of a layer (``NVFP4Linear``, transformers/integrations/nvfp4.py): ``weight`` U8 [out, in / 2], two E2M1
codes a byte; ``weight_sf_rowmajor`` U8 [out, in / 16], one E4M3 scale for 16 values; ``weight_sf`` I32, the same bytes
in the tensor cores' tiles of 128 × 4, rows and columns padded to whole tiles; ``weight_global_scale`` F32 [1]. Only
layers without a bias whose sizes are multiples of 16 are replaced.

transformers 5.23 neither saves such a model nor loads one: it raises an error. Recognised so that a file of this kind
is named; llm-compressor writes NVFP4 as compressed-tensors. The kernel that packs is on the Hub only, so that values
are not decoded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from checker.config_values import modules_to_not_convert, names_or_none, one_of
from checker.domain import Json, Severity
from checker.facts import ExpectedTensor, Flaw, StoredWeight
from checker.inventory import Inventory
from checker.registry import Method, Unfit, register_method

GROUP = 16
MATRIX = 2
TILE = (128, 4)  # scales
PARTS = ("weight_sf", "weight_sf_rowmajor")
ATTRIBUTES: dict[str, Json] = {"bits": 4, "quant_type": "e2m1", "group_size": GROUP}


def _declares(config: Mapping[str, Json]) -> bool:
    return config.get("quant_method") == "nvfp4"


def _declared(config: Mapping[str, Json]) -> dict[str, Json]:
    del config  # nothing of it changes the layout
    return ATTRIBUTES


def _recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    modules = dict.fromkeys(inventory.modules(*PARTS))
    if inventory.config is not None:  # also what has lost its scales
        for module in inventory.modules("weight"):
            header = inventory.tensors[f"{module}.weight"]
            if header.dtype == "U8" and len(header.shape) == MATRIX:
                modules[module] = None
    weights = [_read_weight(inventory, module) for module in modules]
    return (_with_remark(weights[0]), *weights[1:]) if weights and inventory.config is not None else tuple(weights)


def _read_weight(inventory: Inventory, module: str) -> StoredWeight:
    header = inventory.header(module, "weight")
    flaws = []
    shape = None
    if header is not None and len(header.shape) == MATRIX and 0 not in header.shape:
        shape = (header.shape[0], header.shape[1] * 2)
    elif header is not None:
        message = f"{header.name} has shape {list(header.shape)}: no matrix of codes"
        flaws.append(Flaw(where=header.name, message=message, observed=list(header.shape)))
    name = f"{module}.weight"
    return StoredWeight(
        module=module,
        weight=name,
        shape=shape,
        attributes=ATTRIBUTES,
        expected=_layout(name, shape or (0, 0), {})[: None if shape else 1],
        flaws=tuple(flaws),
    )


def _with_remark(weight: StoredWeight) -> StoredWeight:
    from dataclasses import replace

    flaw = Flaw(
        where=weight.module,
        message="transformers cannot load stored nvfp4 weights; it makes them while it loads a dense model",
        severity=Severity.WARN,
        hint="publish the dense model, or NVFP4 as compressed-tensors",
    )
    return replace(weight, flaws=(*weight.flaws, flaw))


def _layout(dense: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    """The tensors of one layer [out, in]; of the padded scales only the size is known."""
    del attributes
    if len(shape) != MATRIX:
        return ()
    rows, columns = shape
    groups = math.ceil(columns / GROUP)
    tiles = math.prod(math.ceil(size / step) * step for size, step in zip((rows, groups), TILE, strict=True))
    swizzled = ExpectedTensor(name=f"{dense}_sf", dtype="I32", shape=None, nbytes=tiles)
    packed = math.ceil(columns / 2)
    return (
        ExpectedTensor(name=dense, dtype="U8", shape=(rows, packed), nbytes=rows * packed, companion=False),
        ExpectedTensor(name=f"{dense}_sf_rowmajor", dtype="U8", shape=(rows, groups), nbytes=rows * groups),
        swizzled,
        ExpectedTensor(name=f"{dense}_global_scale", dtype="F32", shape=(1,), nbytes=4),
    )


def _unfit(config: Mapping[str, Json]) -> Unfit:
    del config
    return lambda shape: f"its sizes are no multiples of {GROUP}" if any(size % GROUP for size in shape) else ""


register_method(
    Method(
        id="nvfp4",
        quant_method="nvfp4",
        documentation=__doc__ or "",
        keys={"quant_method": one_of("nvfp4"), "modules_to_not_convert": names_or_none},
        declares=_declares,
        declared=_declared,
        recognise=_recognise,
        layout=_layout,
        skips=modules_to_not_convert,
        unfit=_unfit,
        activations=lambda _: True,
        not_decoded="the kernel that packs nvfp4 is not public; its scales may be laid out otherwise",
        from_documentation=True,
        config_class="transformers.NVFP4Config",
    )
)
