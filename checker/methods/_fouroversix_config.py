"""The ``quantization_config`` of fouroversix: its keys, the type and rule that hold for a module, what is skipped.

Source: ``FourOverSixConfig`` in transformers/utils/quantization_config.py (5.23.0); ``ModelQuantizationConfig`` in
fouroversix/model/config.py (1.0.5).
"""

from __future__ import annotations

from collections.abc import Mapping

from checker.config_values import Domain, boolean, names_or_none, one_of
from checker.domain import Json
from checker.registry import Intent, Planner

KINDS = ("nvfp4", "mxfp4", "if4", "nvint4", "nvfp6_e2m3", "nvfp6_e3m2")
E4M3_SCALES = ("nvfp4", "if4", "nvint4")
RULES = ("mse", "mae", "abs_max", "static_6", "static_4")
USUAL = ("nvfp4", "mse")


def overrides(value: Json) -> str | None:
    """Null, or module names with settings of their own."""
    good = value is None or (isinstance(value, dict) and all(isinstance(item, dict) for item in value.values()))
    return None if good else f"must be null or settings by module name, not {repr(value)[:200]}"


KEYS: Mapping[str, Domain] = {
    "quant_method": one_of("fouroversix"),
    "activation_dtype": one_of(*KINDS, None),
    "activation_scale_rule": one_of(*RULES, None),
    "dtype": one_of(*KINDS),
    "gradient_dtype": one_of(*KINDS, None),
    "gradient_scale_rule": one_of(*RULES, None),
    "keep_master_weights": boolean,
    "matmul_backend": one_of("cutlass", "triton", "pytorch", None),
    "output_dtype": one_of("bfloat16", "float16", "float32", None),
    "quantize_backend": one_of("cuda", "triton", "pytorch", "transformer_engine", None),
    "scale_rule": one_of(*RULES),
    "weight_dtype": one_of(*KINDS, None),
    "weight_scale_2d": boolean,
    "weight_scale_rule": one_of(*RULES, None),
    "module_config_overrides": overrides,
    "modules_to_not_convert": names_or_none,
}


def _settings(config: Mapping[str, Json], module: str) -> Mapping[str, Json]:
    """The settings of a module: its own, which inherit nothing, or those of the model."""
    own = config.get("module_config_overrides")
    found = own.get(module) if isinstance(own, dict) else None
    return found if isinstance(found, dict) else config


def _chosen(config: Mapping[str, Json], key: str, known: tuple[str, ...], usual: str) -> str:
    value = config.get(f"weight_{key}") or config.get(key)
    return str(value) if value in known else usual


def kind_of(config: Mapping[str, Json], module: str) -> str:
    """The type of a module's weight."""
    return _chosen(_settings(config, module), "dtype", KINDS, USUAL[0])


def scale_rule(config: Mapping[str, Json], module: str) -> str:
    """The rule for a module's scales, from a whole ``config.json``."""
    places = (config, config.get("text_config"))
    found: Json = None
    for place in places:
        if found is None and isinstance(place, dict):
            found = place.get("quantization_config")
    return _chosen(_settings(found if isinstance(found, dict) else {}, module), "scale_rule", RULES, USUAL[1])


def attributes_of(kind: str) -> dict[str, Json]:
    """What a type means for the layout."""
    return {
        "bits": 6 if kind.startswith("nvfp6") else 4,
        "quant_type": kind,
        "group_size": 32 if kind == "mxfp4" else 16,
        "scale_dtype": "F8_E8M0" if kind == "mxfp4" else "F8_E4M3",
    }


def declared(config: Mapping[str, Json]) -> dict[str, Json]:
    """What holds for every layer without settings of its own."""
    return attributes_of(kind_of(config, ""))


def planner(config: Mapping[str, Json]) -> Planner:
    """Settings by full module name; nothing is packed where training keeps the weights."""
    kept = stored_dense(config)
    own = config.get("module_config_overrides")
    named = own if isinstance(own, dict) else {}

    def plan(names: tuple[str, ...], role: str) -> Intent:
        del role
        if kept:
            return Intent(quantized=False, reason=kept)
        name = next((name for name in names if name in named), None)
        return Intent(attributes=attributes_of(kind_of(config, name))) if name is not None else Intent()

    return plan


def skips(config: Mapping[str, Json]) -> tuple[str, ...]:
    """The skip list; the output head unless another one is given."""
    listed = config.get("modules_to_not_convert", ["lm_head"])
    return tuple(str(name) for name in listed) if isinstance(listed, list) else ()


def entry_matches(entry: str, module: str) -> bool:
    """Names are compared in full (``quantize_model`` in fouroversix/model/quantize.py)."""
    return entry == module


def stored_dense(config: Mapping[str, Json]) -> str:
    """Training keeps the weights."""
    kept = config.get("keep_master_weights") is True
    return "keep_master_weights: weights are quantized at every forward pass" if kept else ""
