"""The ``quantization_config`` that AMD Quark writes: what it declares for each layer.

Source: ``QConfig.to_dict`` in quark/torch/quantization/config/config.py, ``get_layer_quant_config`` in
quark/torch/export/main_export/quant_config_parser.py (amd-quark 0.13).
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from checker.config_values import Domain, boolean, number, one_of
from checker.domain import Json
from checker.registry import Intent, Planner

BITS = {
    "int8": 8,
    "uint8": 8,
    "fp8_e4m3": 8,
    "fp8_e5m2": 8,
    "int4": 4,
    "uint4": 4,
    "fp4": 4,
    "fp6_e2m3": 6,
    "fp6_e3m2": 6,
}
FURTHER_DTYPES = (  # no exported weight of these is judged
    *("int2", "uint2", "int3", "int16", "uint16", "bfloat16", "float16"),
    *("fp8_e5m3", "mx", "mx6", "mx9", "bfp16"),
)
SCHEMES = ("per_tensor", "per_channel", "per_group")
LONGEST_PATTERN = 250
_INTEGERS = ("int8", "uint8", "int4", "uint4")


def _object(value: Json) -> str | None:
    return None if value is None or isinstance(value, Mapping) else f"must be an object, not {repr(value)[:100]}"


def _objects(value: Json) -> str | None:
    good = isinstance(value, Mapping) and all(isinstance(item, Mapping) for item in value.values())
    return None if good else f"must map layers to settings, not {repr(value)[:100]}"


def _names(value: Json) -> str | None:
    good = isinstance(value, list) and all(isinstance(item, str) and item for item in value)
    return None if good else f"must be a list of module names, not {repr(value)[:100]}"


def _settings(value: Json) -> str | None:
    if not isinstance(value, Mapping):
        return f"must be an object, not {repr(value)[:100]}"
    for stage in _stages(value.get("weight")):
        wrong = _weight_flaw(stage)
        if wrong:
            return f"declares a weight whose {wrong}"
    return None


def _weight_flaw(stage: Mapping[str, Json]) -> str:
    dtype, scheme, group = stage.get("dtype"), stage.get("qscheme"), stage.get("group_size")
    if not isinstance(dtype, str) or (dtype not in BITS and dtype not in FURTHER_DTYPES):
        return f"dtype {repr(dtype)[:60]} is none of Quark's"
    if dtype in BITS and scheme not in (*SCHEMES, "per_block"):
        return f"qscheme {repr(scheme)[:60]} is none of Quark's"
    sound = isinstance(group, int) and not isinstance(group, bool) and group > 0
    if scheme == "per_group" and not sound:
        return f"group_size is {repr(group)[:60]}"
    return ""


def _anything(value: Json) -> str | None:
    del value
    return None


KEYS: Mapping[str, Domain] = {
    "quant_method": one_of("quark"),
    "global_quant_config": _settings,
    "layer_type_quant_config": _objects,
    "layer_quant_config": _objects,
    "kv_cache_quant_config": _objects,
    "kv_cache_group": _names,
    "kv_cache_post_rope": boolean,
    "min_kv_scale": number,
    "exclude": _names,
    "algo_config": _anything,
    "softmax_quant_spec": _object,
    "quant_mode": one_of("eager_mode", "fx_graph_mode"),
    "log_severity_level": _anything,
    "version": _anything,
    "export": _object,
}


def is_quark(config: Mapping[str, Json]) -> bool:
    """Whether the config declares Quark."""
    return config.get("quant_method") == "quark"


def pack_method(config: Mapping[str, Json] | None) -> str:
    """How 4-bit codes lie in a word: "reorder" (AWQ's order) or "order"."""
    export = (config or {}).get("export")
    found = export.get("pack_method") if isinstance(export, Mapping) else None
    return "order" if found == "order" else "reorder"


def activations(config: Mapping[str, Json]) -> bool:
    """Whether the settings of the model, of a type or of a layer quantize what goes into a layer."""
    groups = (config.get("layer_type_quant_config"), config.get("layer_quant_config"))
    each = [item for group in groups if isinstance(group, Mapping) for item in group.values()]
    return any(
        isinstance(item, Mapping) and bool(_stages(item.get("input_tensors")))
        for item in (config.get("global_quant_config"), *each)
    )


def stored_dense(config: Mapping[str, Json]) -> str:
    """Why a checkpoint may hold no packed tensor."""
    export = config.get("export")
    if isinstance(export, Mapping) and export.get("weight_format") == "fake_quantized":
        return "the weights were exported fake-quantized, in 16 bit"
    whole = config.get("global_quant_config")
    if isinstance(whole, Mapping) and not _stages(whole.get("weight")) and not config.get("layer_quant_config"):
        return "no weight is to be quantized, only activations or the cache"
    return ""


def contradictions(config: Mapping[str, Json]) -> list[tuple[str, str]]:
    """Settings of layers outside their domain; the settings of the whole model have their own key."""
    found = []
    for key in ("layer_quant_config", "layer_type_quant_config"):
        listed = config.get(key)
        for name, settings in listed.items() if isinstance(listed, Mapping) else ():
            wrong = _settings(settings)
            if wrong:
                found.append((key, f"{key} of {repr(name)[:100]} {wrong}"))
    if config.get("global_quant_config") is None:
        found.append(("global_quant_config", "global_quant_config is missing; Quark cannot read such a config"))
    return found


def declared(config: Mapping[str, Json]) -> dict[str, Json]:
    """The attributes that the settings of the whole model declare."""
    whole = config.get("global_quant_config")
    return attributes_of(whole) if isinstance(whole, Mapping) else {}


def attributes_of(settings: Mapping[str, Json]) -> dict[str, Json]:
    """The attributes that one layer's settings declare."""
    stages = _stages(settings.get("weight"))
    first = stages[0] if stages else {}
    dtype, scheme = str(first.get("dtype")), first.get("qscheme")
    if dtype not in BITS:
        return {}
    found: dict[str, Json] = {"bits": BITS[dtype], "dtype": dtype, "scheme": scheme}
    if scheme == "per_group":
        found["group_size"] = first.get("group_size")
    if dtype in _INTEGERS and isinstance(first.get("symmetric"), bool):
        found["symmetric"] = first["symmetric"]
    found["static_input_scales"] = _static(settings.get("input_tensors"))
    return found


def _static(tensors: Json) -> bool:
    stages = _stages(tensors)
    return bool(stages) and not stages[0].get("is_dynamic") and stages[0].get("dtype") != "mx"


def _stages(value: Json) -> list[Mapping[str, Any]]:
    """One specification, or several where scales are quantized in turn."""
    listed = value if isinstance(value, list) else [value]
    return [item for item in listed if isinstance(item, Mapping)]


def matches(entry: str, name: str) -> bool:
    """Quark matches whole module names with ``fnmatch``; an entry keeps no submodules unless it says so."""
    return len(entry) <= LONGEST_PATTERN and fnmatchcase(name, entry)


def excluded(config: Mapping[str, Json]) -> tuple[str, ...]:
    """The entries of ``exclude``."""
    listed = config.get("exclude")
    return tuple(name for name in listed if isinstance(name, str)) if isinstance(listed, list) else ()


def planner(config: Mapping[str, Json]) -> Planner:
    """Which settings hold for a module: ``exclude`` wins, then the first matching layer, its type, the whole model."""
    kept = excluded(config)
    whole = config.get("global_quant_config")
    layers = config.get("layer_quant_config")
    types = config.get("layer_type_quant_config")
    by_layer = dict(layers) if isinstance(layers, Mapping) else {}
    linear = types.get("Linear") if isinstance(types, Mapping) else None

    def plan(names: tuple[str, ...], role: str) -> Intent:
        if role in ("embedding", "other"):
            return Intent()
        entry = next((entry for entry in kept if any(matches(entry, name) for name in names)), None)
        if entry is not None:
            return Intent(quantized=False, reason=f"{entry!r} of exclude keeps it")
        chosen = next((item for key, item in by_layer.items() if any(matches(key, name) for name in names)), None)
        settings = next((item for item in (chosen, linear, whole) if isinstance(item, Mapping)), {})
        stages = _stages(settings.get("weight"))
        if not stages:
            return Intent(quantized=False, reason="its settings quantize no weight")
        if role == "router":  # a class of its own in transformers 5, which Quark replaces for some models
            return Intent(open=True, attributes=attributes_of(settings))
        return Intent(quantized=True, attributes=attributes_of(settings))

    return plan
