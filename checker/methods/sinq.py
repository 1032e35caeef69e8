"""SINQ: integers with a scale and a zero point a group and, over them, one scale a column (arXiv:2509.22944).

Stored per layer by SINQ's own writer (sinq/patch_model.py 0.2.0, which transformers uses as well): ``W_q``, the codes
in groups [out · in / group, group], packed along the groups (8 bit: as they are; 4, 2 and 1 bit: two to eight parts of
the groups to a byte, the first in the high bits; 3, 5 and 6 bit: ten, six and five to an I32); ``meta.scale.x``,
``meta.scale.s``, ``meta.scale.m``, the scales of the groups as 8-bit numbers in 32 rows, and ``meta.zero.x``, ``.s``,
``.m`` likewise in one; ``meta.scale2``, [1, in], or [tiles, 1, group] with ``tiling_mode`` "2D".

What is no tensor stands in ``model.safetensors.index.json.meta.json``, without which nothing can be loaded. Decoded:
(code − zero) · scale · scale2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from checker.checkpoint.files import list_folder
from checker.checkpoint.json_file import read_json
from checker.checkpoint.problem import Refused
from checker.config_values import Domain, boolean, names_or_none, one_of
from checker.domain import Json
from checker.facts import ExpectedTensor, Flaw, StoredWeight
from checker.inventory import Inventory
from checker.methods._parts import as_found, number_flaws, part, size
from checker.registry import Method, register_method

SIDECAR = "model.safetensors.index.json.meta.json"
PER_ITEM = {8: 1, 6: 5, 5: 6, 4: 2, 3: 10, 2: 4, 1: 8}  # codes of a byte (I32 for 3, 5 and 6 bit)
WORDS = (3, 5, 6)  # bits that are packed into 32-bit words
ROWS = 32  # of the 8-bit scales
MATRIX = 2
_PARTS = ("meta.scale.x", "meta.scale.s", "meta.scale.m", "meta.scale2", "meta.zero.x", "meta.zero.s", "meta.zero.m")
_NUMBERS = ("meta.scale.s", "meta.scale.m", "meta.scale2", "meta.zero.s")


def _group(value: Json) -> str | None:
    good = size(value) is not None and int(str(value)) % 8 == 0
    return None if good else f"must be a positive multiple of 8, not {repr(value)[:100]}"


def _anything(value: Json) -> str | None:
    del value
    return None


KEYS: Mapping[str, Domain] = {
    "quant_method": one_of("sinq"),
    "nbits": one_of(*PER_ITEM),
    "group_size": _group,
    "tiling_mode": one_of("1D", "2D"),
    "method": one_of("sinq", "asinq"),
    "modules_to_not_convert": names_or_none,
    "_extra_kwargs": _anything,
    "quantization_method": one_of("sinq"),
    "backend": one_of("sinq"),
    "sinq": boolean,
    "sinq_version": _anything,
}


def _declares(config: Mapping[str, Json]) -> bool:
    return config.get("quant_method") == "sinq"


def _declared(config: Mapping[str, Json]) -> dict[str, Json]:
    return {
        "bits": config.get("nbits", 4),
        "group_size": config.get("group_size", 64),
        "tiling_mode": config.get("tiling_mode", "1D"),
    }


def _skips(config: Mapping[str, Json]) -> tuple[str, ...] | None:
    """There is no default list: without one the output head is quantized as well."""
    listed = config.get("modules_to_not_convert")
    return tuple(name for name in listed if isinstance(name, str)) if isinstance(listed, list) else ()


def _recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    """``W_q`` with SINQ's nested tensors, ``x.meta.scale.s``; those that lost their codes by the other tensors."""
    modules = dict.fromkeys(inventory.modules("W_q"))
    nested = dict.fromkeys(name.removesuffix(".meta") for name in inventory.modules("scale2") if name.endswith(".meta"))
    if not nested and inventory.config is None:
        return ()
    modules.update(nested)
    modules.pop("", None)
    settings, flaws = _sidecar(inventory) if modules else ({}, [])
    found = []
    for module in modules:
        found.append(_read(inventory, module, settings.get(module), tuple(flaws)))
        flaws = []  # of the file, said once
    return tuple(found)


def _sidecar(inventory: Inventory) -> tuple[dict[str, Mapping[str, Json]], list[Flaw]]:
    """The settings of each module, and why there are none. Those of a Hub repository are not fetched."""
    if inventory.checkpoint.remote:
        return {}, []
    try:
        read = read_json(list_folder(inventory.checkpoint.folder), SIDECAR)
    except Refused as refused:
        return {}, [Flaw(where=SIDECAR, message=refused.problem.message)]
    if read.value is None:
        message = read.problems[0].message if read.problems else f"{SIDECAR} is missing; nothing can be loaded"
        return {}, [Flaw(where=SIDECAR, message=message, hint="upload it with the weights; SINQ writes it beside them")]
    entries = {name: entry.get("meta") for name, entry in read.value.items() if isinstance(entry, Mapping)}
    return {name: meta for name, meta in entries.items() if isinstance(meta, Mapping)}, []


def _read(
    inventory: Inventory, module: str, settings: Mapping[str, Json] | None, flaws: tuple[Flaw, ...]
) -> StoredWeight:
    codes = inventory.header(module, "W_q")
    column, groups = inventory.header(module, "meta.scale2"), inventory.header(module, "meta.zero.x")
    count = groups.shape[0] if groups is not None and len(groups.shape) == MATRIX else None
    attributes: dict[str, Json] = {"bits": None}
    shape = None
    if codes is not None and len(codes.shape) == MATRIX and 0 not in codes.shape and count:
        attributes = {"bits": _bits(codes.shape[0], codes.dtype, count), "group_size": codes.shape[1]}
    inputs = _from_sidecar(settings)  # with square tiles the tensors do not tell
    if column is not None and column.shape:
        attributes["tiling_mode"] = "1D" if len(column.shape) == MATRIX else "2D"
        inputs = column.shape[1] if len(column.shape) == MATRIX else inputs
    values = (count or 0) * int(str(attributes.get("group_size") or 0))
    if inputs and values and values % inputs == 0:
        shape = (values // inputs, inputs)
    dense = f"{module}.weight"
    numbers = number_flaws(inventory, *(f"{module}.{name}" for name in _NUMBERS))
    return StoredWeight(
        module=module,
        weight=f"{module}.W_q",
        dense=dense,
        shape=shape,
        attributes=attributes,
        expected=_layout(dense, shape, attributes) if shape else _without_shape(inventory, module),
        flaws=(*flaws, *numbers, *_contradicted(module, settings, attributes, shape)),
    )


def _without_shape(inventory: Inventory, module: str) -> tuple[ExpectedTensor, ...]:
    """The codes as they are found, and whichever of the other tensors are missing."""
    missing = [name for name in _PARTS if inventory.header(module, name) is None]
    return (
        as_found(f"{module}.W_q", inventory.header(module, "W_q")),
        *(ExpectedTensor(name=f"{module}.{name}", dtype="F16", shape=None, nbytes=None) for name in missing),
    )


def _bits(items: int, dtype: str, groups: int) -> int | None:
    """By how many items hold the codes of all groups."""
    words = dtype == "I32"
    fits = (bits for bits, each in PER_ITEM.items() if (bits in WORDS) == words and math.ceil(groups / each) == items)
    return next(fits, None)


def _from_sidecar(settings: Mapping[str, Json] | None) -> int | None:
    """Inputs of the layer."""
    shape = (settings or {}).get("shape")
    return size(shape[1]) if isinstance(shape, list) and len(shape) == MATRIX else None


def _contradicted(
    module: str, settings: Mapping[str, Json] | None, attributes: Mapping[str, Any], shape: tuple[int, int] | None
) -> list[Flaw]:
    """What the side file says against the tensors."""
    if settings is None:
        return []
    said = {"nbits": attributes.get("bits"), "group_size": attributes.get("group_size")}
    said |= {"shape": list(shape)} if shape else {}
    return [
        Flaw(
            where=f"{module}.W_q",
            message=f"{SIDECAR} gives {module} the {key} {repr(settings[key])[:80]}, its tensors have {value}",
            observed=str(value),
            expected=repr(settings[key])[:80],
            hint="the side file belongs to other weights",
        )
        for key, value in said.items()
        if key in settings and value is not None and settings[key] != value
    ]


def _layout(weight: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    module = weight.removesuffix(".weight")
    rows, columns = shape[-2:]
    bits, group = size(attributes.get("bits")) or 4, size(attributes.get("group_size")) or 64
    groups = rows * columns // group
    items = math.ceil(groups / PER_ITEM.get(bits, 1))
    column = (rows * columns // group**2, 1, group) if attributes.get("tiling_mode") == "2D" else (1, columns)
    return (
        part(f"{module}.W_q", "I32" if bits in WORDS else "U8", (items, group), companion=False),
        part(f"{module}.meta.scale.x", "U8", (ROWS, groups // ROWS)),
        part(f"{module}.meta.scale.s", "F16", (1, groups // ROWS)),
        part(f"{module}.meta.scale.m", "F16", (1, groups // ROWS)),
        part(f"{module}.meta.scale2", "F16", column),
        part(f"{module}.meta.zero.x", "U8", (groups, 1)),
        part(f"{module}.meta.zero.s", "F16", (1, 1)),
        part(f"{module}.meta.zero.m", "F16", (1, 1)),
    )


register_method(
    Method(
        id="sinq",
        quant_method="sinq",
        documentation=__doc__ or "",
        keys=KEYS,
        declares=_declares,
        declared=_declared,
        recognise=_recognise,
        layout=_layout,
        skips=_skips,
        not_decoded="every value has a scale of its own, that of its group times that of its column",
        config_class="transformers.SinqConfig",
    )
)
