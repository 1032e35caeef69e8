"""HIGGS: Hadamard-rotated rows on a grid of optimal points, in FLUTE's packing for its kernels (arXiv:2411.17525).

Stored per layer (``HiggsLinear``, transformers/integrations/higgs.py 5.23.0): ``weight`` I16 [out · bits / 16, in], in
an order that depends on the GPU it was tuned for; ``scales`` [out, in / group]; ``tables`` [2^bits] and ``tables2``
[2^bits, 2^bits, 2], the grid; and in the config ``tune_metadata`` for every module, without which loading ends in a
KeyError. The rows were rotated before they were rounded: nothing can be compared with the baseline but outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from checker.checkpoint import TensorHeader
from checker.config_values import Domain, modules_to_not_convert, names_or_none, one_of
from checker.domain import Json
from checker.facts import ExpectedTensor, Flaw, StoredWeight
from checker.inventory import Inventory
from checker.methods._parts import as_found, float_dtype, number_flaws, part, size
from checker.registry import Method, register_method

BITS, GROUPS = (2, 3, 4), (64, 128, 256)
WORD = 16  # bits of an item of the packed weight
MATRIX = 2


def _hadamard(value: Json) -> str | None:
    good = size(value) is not None and int(str(value)) & (int(str(value)) - 1) == 0
    return None if good else f"must be a power of two, not {repr(value)[:100]}"


def _metadata(value: Json) -> str | None:
    good = isinstance(value, Mapping) and all(isinstance(item, Mapping) for item in value.values())
    return None if good else f"must map modules to what the kernels were tuned to, not {repr(value)[:100]}"


KEYS: Mapping[str, Domain] = {
    "quant_method": one_of("higgs"),
    "bits": one_of(*BITS),
    "p": one_of(1, 2),
    "hadamard_size": _hadamard,
    "group_size": one_of(*GROUPS),
    "modules_to_not_convert": names_or_none,
    "tune_metadata": _metadata,
}


def _declares(config: Mapping[str, Json]) -> bool:
    return config.get("quant_method") == "higgs"


def _declared(config: Mapping[str, Json]) -> dict[str, Json]:
    return {"bits": config.get("bits", 4), "group_size": config.get("group_size", 256)}


def _contradictions(config: Mapping[str, Json]) -> list[tuple[str, str]]:
    hadamard, group = size(config.get("hadamard_size", 512)), size(config.get("group_size", 256))
    if hadamard and group and hadamard % group:
        return [("group_size", f"hadamard_size {hadamard} is no multiple of group_size {group}")]
    return []


def _recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    """``tables2`` is HIGGS's alone; a module that lost it still has packed 16-bit integers and a table."""
    modules = dict.fromkeys(inventory.modules("tables2"))
    for module in inventory.modules("tables"):
        modules[module] = None
    for module in inventory.modules("scales") if modules else ():
        header = inventory.header(module, "weight")
        if header is not None and header.dtype == "I16":
            modules[module] = None
    return tuple(_read(inventory, module) for module in modules)


def _read(inventory: Inventory, module: str) -> StoredWeight:
    weight, scales = inventory.header(module, "weight"), inventory.header(module, "scales")
    bits = _bits(inventory.header(module, "tables"), inventory.header(module, "tables2"))
    attributes: dict[str, Json] = {"bits": bits, "float_dtype": float_dtype(scales)}
    shape = None
    if weight is not None and len(weight.shape) == MATRIX and 0 not in weight.shape:
        rows = weight.shape[0] * WORD // (bits or 4)
        shape = (rows, weight.shape[1])
        if scales is not None and len(scales.shape) == MATRIX and scales.shape[1]:
            attributes["group_size"] = weight.shape[1] // scales.shape[1]
            shape = (scales.shape[0], weight.shape[1])
    name = f"{module}.weight"
    return StoredWeight(
        module=module,
        weight=name,
        shape=shape,
        attributes=attributes,
        expected=_layout(name, shape, attributes) if shape else (as_found(name, weight),),
        flaws=(*number_flaws(inventory, f"{module}.scales", f"{module}.tables2"), *_untuned(inventory, module)),
        incomparable="HIGGS rotates the rows before it rounds them",
    )


def _bits(tables: TensorHeader | None, tables2: TensorHeader | None) -> int | None:
    """From the length of the table, a power of two."""
    for header in (tables, tables2):
        if header is not None and header.shape and header.shape[0] in {1 << bits for bits in BITS}:
            return header.shape[0].bit_length() - 1
    return None


def _untuned(inventory: Inventory, module: str) -> list[Flaw]:
    tuned = (inventory.config or {}).get("tune_metadata")
    if inventory.config is None or (isinstance(tuned, Mapping) and module in tuned):
        return []
    message = f"tune_metadata of the config has no entry for {module}; loading ends in a KeyError"
    return [Flaw(where=f"{module}.weight", message=message, hint="restore the config that was saved with the weights")]


def _layout(weight: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    module = weight.removesuffix(".weight")
    bits, group = size(attributes.get("bits")) or 4, size(attributes.get("group_size")) or 256
    floats, points = str(attributes.get("float_dtype", "F16")), 1 << min(bits, max(BITS))
    return (
        part(weight, "I16", (shape[0] * bits // WORD, shape[1]), companion=False),
        part(f"{module}.scales", floats, (shape[0], shape[1] // group)),
        part(f"{module}.tables", floats, (points,)),
        part(f"{module}.tables2", "F16", (points, points, 2)),
    )


register_method(
    Method(
        id="higgs",
        quant_method="higgs",
        documentation=__doc__ or "",
        keys=KEYS,
        declares=_declares,
        declared=_declared,
        recognise=_recognise,
        layout=_layout,
        skips=modules_to_not_convert,
        contradictions=_contradictions,
        not_decoded="the codes lie in an order that depends on the GPU they were tuned for",
        from_documentation=True,
        config_class="transformers.HiggsConfig",
    )
)
