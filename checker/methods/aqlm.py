"""AQLM: groups of weights as sums of vectors from learned code books (arXiv:2401.06118).

Stored per layer (``QuantizedLinear``, aqlm/inference.py 1.1.7): ``codes`` [out / out_group, in / in_group, books], int8
or int16, two's complement of a number below 2^nbits; ``codebooks`` [books, 2^nbits, out_group, in_group]; ``scales``
[out / out_group, 1, 1, 1]. A group is the sum of one vector of each book, times the scale of its row.

``linear_weights_not_to_quantize`` lists weights by their full names, ``lm_head.weight`` included; there is no default
list. Weights fitted by least squares have no cells, so that no error can be predicted from codes and books.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from checker.config_values import Domain, names_or_none, one_of
from checker.domain import Json
from checker.facts import ExpectedTensor, Flaw, StoredWeight
from checker.inventory import Inventory
from checker.methods._parts import as_found, float_dtype, is_size, number_flaws, part, size
from checker.registry import Method, register_method

SETTINGS = ("in_group_size", "out_group_size", "num_codebooks", "nbits_per_codebook")
DEFAULTS = {"in_group_size": 8, "out_group_size": 1, "num_codebooks": 1, "nbits_per_codebook": 16}
CODES_DIMENSIONS, BOOKS_DIMENSIONS = 3, 4
MOST_BITS = 16  # of a code; books of more vectors would not fit any memory

KEYS: Mapping[str, Domain] = {
    "quant_method": one_of("aqlm"),
    "in_group_size": is_size,
    "out_group_size": is_size,
    "num_codebooks": is_size,
    "nbits_per_codebook": one_of(*range(1, MOST_BITS + 1)),
    "linear_weights_not_to_quantize": names_or_none,
}


def _declares(config: Mapping[str, Json]) -> bool:
    return config.get("quant_method") == "aqlm"


def _declared(config: Mapping[str, Json]) -> dict[str, Json]:
    settings = {key: config.get(key, DEFAULTS[key]) for key in SETTINGS}
    return {**settings, "bits": _bits(settings)}


def _bits(settings: Mapping[str, Json]) -> Json:
    """Bits of codes a weight; whole numbers as such."""
    values = [size(settings.get(key)) for key in SETTINGS]
    if None in values:
        return None
    inputs, outputs, books, bits = (value or 1 for value in values)
    exact = books * bits / (inputs * outputs)
    return int(exact) if exact == int(exact) else exact


def _skips(config: Mapping[str, Json]) -> tuple[str, ...] | None:
    listed = config.get("linear_weights_not_to_quantize")
    return (
        tuple(name.removesuffix(".weight") for name in listed if isinstance(name, str))
        if isinstance(listed, list)
        else ()
    )


def _recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    return tuple(_read(inventory, module) for module in inventory.modules("codes", "codebooks"))


def _read(inventory: Inventory, module: str) -> StoredWeight:
    codes, books = inventory.header(module, "codes"), inventory.header(module, "codebooks")
    settings: dict[str, Json] = {}
    flaws: list[Flaw] = []
    if books is not None and len(books.shape) == BOOKS_DIMENSIONS and 0 not in books.shape:
        count, vectors, outputs, inputs = books.shape
        settings = {"in_group_size": inputs, "out_group_size": outputs, "num_codebooks": count}
        settings["nbits_per_codebook"] = (vectors - 1).bit_length()
        if vectors != 1 << (vectors - 1).bit_length() or vectors > 1 << MOST_BITS:
            message = f"{books.name} has {vectors:,} vectors a book, which is no power of two up to 65,536"
            flaws.append(Flaw(where=books.name, message=message, observed=vectors))
    elif inventory.config is not None:
        settings = {key: size(inventory.config.get(key, DEFAULTS[key])) or DEFAULTS[key] for key in SETTINGS}
    attributes = {**settings, "bits": _bits(settings), "float_dtype": float_dtype(books)}
    shape = None
    if codes is not None and len(codes.shape) == CODES_DIMENSIONS and settings and 0 not in codes.shape:
        outputs, inputs = int(str(settings["out_group_size"])), int(str(settings["in_group_size"]))
        shape = (codes.shape[0] * outputs, codes.shape[1] * inputs)
    dense = f"{module}.weight"
    scales = f"{module}.scales"
    flaws += number_flaws(inventory, scales)
    flaws += number_flaws(inventory, f"{module}.codebooks")
    return StoredWeight(
        module=module,
        weight=f"{module}.codes",
        dense=dense,
        shape=shape,
        attributes=attributes,
        expected=_layout(dense, shape, attributes) if shape else (as_found(f"{module}.codes", codes),),
        flaws=tuple(flaws),
    )


def _layout(weight: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    module = weight.removesuffix(".weight")
    outputs, inputs, books, bits = (size(attributes.get(key)) or DEFAULTS[key] for key in (
        "out_group_size", "in_group_size", "num_codebooks", "nbits_per_codebook"))  # fmt: skip
    bits = min(bits, MOST_BITS)
    groups = math.ceil(shape[0] / outputs)
    floats = str(attributes.get("float_dtype", "F16"))
    dtype = "I8" if bits <= 8 else "I16"  # noqa: PLR2004 - a byte
    return (
        part(f"{module}.codes", dtype, (groups, math.ceil(shape[1] / inputs), books), companion=False),
        part(f"{module}.codebooks", floats, (books, 1 << bits, outputs, inputs)),
        part(f"{module}.scales", floats, (groups, 1, 1, 1)),
    )


register_method(
    Method(
        id="aqlm",
        quant_method="aqlm",
        documentation=__doc__ or "",
        keys=KEYS,
        declares=_declares,
        declared=_declared,
        recognise=_recognise,
        layout=_layout,
        skips=_skips,
        not_decoded="sums of learned vectors have no cells from which an error could be predicted",
        from_documentation=True,
        config_class="transformers.AqlmConfig",
    )
)
