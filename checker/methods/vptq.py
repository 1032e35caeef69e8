"""VPTQ: vectors along the outputs as indices into learned centroids, with residuals and outliers (arXiv:2409.17066).

Stored per layer (``VQuantLinear``, vptq/layers/vqlinear.py 0.0.5): ``centroids.weight`` [groups, centroids · vector];
``indices`` I32 [groups, out / vector, ceil(group · bits / 32)], main and residual index together, low bits first;
``res_centroids.weight``; ``outlier_centroids.weight`` and ``outlier_indices`` I16 [1, out / vector, outliers];
``weight_scale`` and ``weight_bias`` [in] (``enable_norm``); ``perm`` I16 [in] (``enable_perm``).

All sizes stand in the config: ``config_for_layers`` for a module's full name, else ``shared_layer_config`` for its last
part. What no entry names cannot be loaded. Learned centroids have no cells, so that no error can be predicted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from checker.config_values import Domain, modules_to_not_convert, names_or_none, one_of
from checker.domain import Json
from checker.facts import ExpectedTensor, Flaw, StoredWeight
from checker.inventory import Inventory
from checker.methods._parts import as_found, float_dtype, number_flaws, part, size
from checker.registry import Intent, Method, Planner, register_method

WORD = 32  # bits of an item of the packed indices
MOST_BITS = 32  # of main and residual index together
_SIZES = ("in_features", "out_features", "group_num", "group_size")
_PAIRS = ("vector_lens", "num_centroids", "num_res_centroids")  # of outliers, of the rest; -1: none


def _layers(value: Json) -> str | None:
    if not isinstance(value, Mapping) or not all(isinstance(item, Mapping) for item in value.values()):
        return f"must map modules to settings, not {repr(value)[:100]}"
    for name, settings in value.items():
        if _settings(settings) is None:
            return f"holds settings of {repr(name)[:100]} that describe no layer"
    return None


def _false(value: Json) -> str | None:
    return None if value is False else f"must be false, not {repr(value)[:100]}"


KEYS: Mapping[str, Domain] = {
    "quant_method": one_of("vptq"),
    "config_for_layers": _layers,
    "shared_layer_config": _layers,
    "enable_proxy_error": _false,
    "modules_to_not_convert": names_or_none,
}


def _settings(entry: Json) -> dict[str, Any] | None:
    """The validated settings of one layer, or None."""
    if not isinstance(entry, Mapping):
        return None
    found: dict[str, Any] = {key: size(entry.get(key)) for key in _SIZES}
    found["outlier_size"] = size(entry.get("outlier_size", 0), 0)
    for key in _PAIRS:
        pair = entry.get(key, [-1, -1])
        sound = isinstance(pair, list) and len(pair) == 2 and all(item == -1 or size(item) for item in pair)  # noqa: PLR2004
        found[key] = list(pair) if sound and isinstance(pair, list) else None
    if None in found.values() or found["num_centroids"][1] == -1 or found["vector_lens"][1] == -1:
        return None
    found["norm"], found["perm"] = bool(entry.get("enable_norm", True)), bool(entry.get("enable_perm", True))
    powers = [count for key in _PAIRS[1:] for count in found[key] if count != -1]
    if any(count & (count - 1) for count in powers) or _index_bits(found) > MOST_BITS:
        return None
    return found


def _index_bits(settings: Mapping[str, Any]) -> int:
    """Bits of one packed index."""
    main, residual = settings["num_centroids"][1], settings["num_res_centroids"][1]
    return int((main - 1).bit_length() + (max(residual, 1) - 1).bit_length())


def _of_module(config: Mapping[str, Json] | None, names: tuple[str, ...]) -> Json:
    """The config's entry for a module: by its full name, else by its last part; None where there is none."""
    own, shared = (config or {}).get("config_for_layers"), (config or {}).get("shared_layer_config")
    for name in names:
        if isinstance(own, Mapping) and name in own:
            return own[name]
    last = names[0].rpartition(".")[2]
    return shared.get(last) if isinstance(shared, Mapping) else None


def _declares(config: Mapping[str, Json]) -> bool:
    return config.get("quant_method") == "vptq"


def _declared(config: Mapping[str, Json]) -> dict[str, Json]:
    del config  # every layer has settings of its own
    return {}


def _planner(config: Mapping[str, Json]) -> Planner:
    def plan(names: tuple[str, ...], role: str) -> Intent:
        if _of_module(config, names) is not None:
            return Intent(quantized=True)
        if role in ("linear", "expert", "vision"):
            return Intent(quantized=False, reason="the config has no settings for it")
        return Intent()

    return plan


def _recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    if inventory.config is None:
        found = [name for name in inventory.modules("indices") if f"{name}.centroids.weight" in inventory.tensors]
    else:
        found = [name.removesuffix(".centroids") for name in inventory.modules("weight") if name.endswith(".centroids")]
        found = list(dict.fromkeys([*inventory.modules("indices"), *found]))
    return tuple(_read(inventory, module) for module in found)


def _read(inventory: Inventory, module: str) -> StoredWeight:
    header = inventory.header(module, "indices")
    entry = _of_module(inventory.config, (module,))
    settings = _settings(entry)
    flaws: list[Flaw] = []
    if settings is None and inventory.config is not None:
        what = "has no settings for" if entry is None else "has settings that describe no layer for"
        message = f"the config {what} {module}; it cannot be loaded"
        flaws.append(Flaw(where=f"{module}.indices", message=message, hint="restore the config saved with the weights"))
    floats = float_dtype(inventory.tensors.get(f"{module}.centroids.weight"))
    attributes: dict[str, Json] = {"bits": _bits(settings), "float_dtype": floats, "settings": settings}
    shape = (settings["out_features"], settings["in_features"]) if settings else None
    dense = f"{module}.weight"
    flaws += number_flaws(inventory, f"{module}.centroids.weight", f"{module}.weight_scale")
    further = (f"{module}.{name}" for name in ("res_centroids.weight", "outlier_centroids.weight", "weight_bias"))
    flaws += number_flaws(inventory, *further, zeros=True)
    return StoredWeight(
        module=module,
        weight=f"{module}.indices",
        dense=dense,
        shape=shape,
        attributes=attributes,
        expected=_layout(dense, shape, attributes) if shape else (as_found(f"{module}.indices", header),),
        flaws=tuple(flaws),
    )


def _bits(settings: Mapping[str, Any] | None) -> Json:
    """Bits of indices a weight."""
    if settings is None:
        return None
    exact = _index_bits(settings) / settings["vector_lens"][1]
    return int(exact) if exact == int(exact) else round(exact, 4)


def _layout(weight: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    module, settings, floats = (
        weight.removesuffix(".weight"),
        attributes.get("settings"),
        str(attributes.get("float_dtype", "F16")),
    )
    if not isinstance(settings, Mapping):
        return (part(f"{module}.indices", "I32", (0,), companion=False),)
    rows, columns = shape[-2:]
    groups, group, (few, vector) = settings["group_num"], settings["group_size"], settings["vector_lens"]
    words = math.ceil(group * _index_bits(settings) / WORD)
    expected = [
        part(f"{module}.indices", "I32", (groups, math.ceil(rows / vector), words), companion=False),
        part(f"{module}.centroids.weight", floats, (groups, settings["num_centroids"][1] * vector)),
    ]
    if settings["num_res_centroids"][1] > 0:
        residual = (groups, settings["num_res_centroids"][1] * vector)
        expected.append(part(f"{module}.res_centroids.weight", floats, residual))
    if few > 1 and settings["num_centroids"][0] > 0:
        outliers = (1, math.ceil(rows / few), settings["outlier_size"])
        expected.append(part(f"{module}.outlier_centroids.weight", floats, (1, settings["num_centroids"][0] * few)))
        expected.append(part(f"{module}.outlier_indices", "I16", outliers))
    if settings["norm"]:
        expected += [part(f"{module}.{name}", floats, (columns,)) for name in ("weight_scale", "weight_bias")]
    if settings["perm"]:
        expected.append(part(f"{module}.perm", "I16", (columns,)))
    return tuple(expected)


register_method(
    Method(
        id="vptq",
        quant_method="vptq",
        documentation=__doc__ or "",
        keys=KEYS,
        declares=_declares,
        declared=_declared,
        recognise=_recognise,
        layout=_layout,
        skips=modules_to_not_convert,
        planner=_planner,
        not_decoded="learned centroids have no cells from which an error could be predicted",
        from_documentation=True,
        config_class="transformers.VptqConfig",
    )
)
