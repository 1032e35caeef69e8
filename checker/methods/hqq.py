"""HQQ, half-quadratic quantization: 1 to 8 bits, a float scale and zero for each group, no calibration data.

Stored per layer (``HQQLinear.state_dict``, hqq/core/quantize.py 0.2.8; https://mobiusml.github.io/hqq_blog/): ``W_q``,
``scale`` and ``zero`` in the compute dtype, and the settings as small tensors: ``nbits``, ``group_size``, ``axis`` I32,
``shape`` I64 [2], flags U8, and the texts ``packing``, ``compute_dtype``, ``unpack_view_dtype`` as bytes. With axis 1
the weight is seen as a matrix [groups, group_size], with axis 0 as [group_size, groups]: groups run on across rows. Its
rows are packed in planes: the first half of the rows in the high nibbles and the second in the low ones (4 bits),
quarters (2), eighths (1), tenths of int32 words (3), one code a byte (8). ``view_as_float`` stores the same bytes as
floats. Decoded: (code − zero) · scale, in the compute dtype.

transformers 4 saves and loads this; 5.23 can do neither. Its config holds the settings under ``quant_config``, one for
all layers or one for each kind (``self_attn.q_proj``), and ``skip_modules``, which version 4 finds anywhere in a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from checker.checkpoint import Checkpoint
from checker.config_values import Domain, names_or_none, one_of
from checker.domain import Json, Limit
from checker.facts import StoredWeight
from checker.methods._hqq_state import layout, recognise
from checker.registry import Intent, Method, Planner, register_method

if TYPE_CHECKING:
    from checker.coded import CodedWeight, Window

SETTINGS = ("weight_quant_params", "scale_quant_params", "zero_quant_params", "offload_meta")
BITS = (8, 6, 5, 4, 3, 2, 1.58, 1)


def _quant_config(value: Json) -> str | None:
    if not isinstance(value, Mapping) or not value:
        return "must be an object"
    if "weight_quant_params" in value:
        return _settings(value)
    faults = ((tag, _settings(item)) for tag, item in value.items() if item is not None)
    return next((f"{tag[:60]!r} {fault}" for tag, fault in faults if fault), None)


def _settings(value: Json) -> str | None:
    parameters = value.get("weight_quant_params") if isinstance(value, Mapping) else None
    if not isinstance(parameters, Mapping):
        return "has no weight_quant_params"
    unknown = sorted(set(value) - set(SETTINGS))
    if unknown:
        return f"has the unknown key {unknown[0][:60]!r}"
    if parameters.get("nbits") not in BITS or isinstance(parameters.get("nbits"), bool):
        return f"has nbits {str(parameters.get('nbits'))[:20]}, not one of 8, 6, 5, 4, 3, 2, 1.58, 1"
    size = parameters.get("group_size")
    if size is not None and not (isinstance(size, int) and not isinstance(size, bool) and size > 0):
        return f"has group_size {str(size)[:20]}, not a positive integer or null"
    return None if parameters.get("axis", 0) in (0, 1) else f"has axis {str(parameters.get('axis'))[:20]}, not 0 or 1"


KEYS: Mapping[str, Domain] = {
    "quant_method": one_of("hqq"),
    "quant_config": _quant_config,
    "skip_modules": names_or_none,
}


def _declares(config: Mapping[str, Json]) -> bool:
    return config.get("quant_method") == "hqq"


def _contradictions(config: Mapping[str, Json]) -> list[tuple[str, str]]:
    missing = [key for key in ("quant_config", "skip_modules") if key not in config]
    return [(key, f"{key} is missing; transformers takes it out without asking") for key in missing]


def _skips(config: Mapping[str, Json]) -> tuple[str, ...] | None:
    listed = config.get("skip_modules")
    return tuple(str(name) for name in listed) if isinstance(listed, list) else None


def _attributes(settings: Json) -> dict[str, Json]:
    parameters = settings.get("weight_quant_params") if isinstance(settings, Mapping) else None
    if not isinstance(parameters, Mapping):
        return {}
    found = {
        "bits": parameters.get("nbits"),
        "group_size": parameters.get("group_size"),
        "axis": parameters.get("axis", 0),
        "view_as_float": parameters.get("view_as_float", False),
    }
    wrong = _settings(settings) is not None
    return {} if wrong else {key: value for key, value in found.items() if value is not None}


def _declared(config: Mapping[str, Json]) -> dict[str, Json]:
    settings = config.get("quant_config")
    return _attributes(settings) if isinstance(settings, Mapping) and "weight_quant_params" in settings else {}


def _planner(config: Mapping[str, Json]) -> Planner:
    """Each kind of layer its settings; kinds that a mapping leaves out stay dense, as do skipped ones."""
    settings, listed = config.get("quant_config"), _skips(config)
    skipped = ("lm_head",) if listed is None else listed
    by_kind = settings if isinstance(settings, Mapping) and "weight_quant_params" not in settings else None

    def plan(names: tuple[str, ...], role: str) -> Intent:
        entry = next((entry for entry in skipped if any(entry in name for name in names)), None)
        if entry is not None:
            return Intent(quantized=False, reason=f"{entry!r} of skip_modules keeps it")
        if role == "head":
            return Intent(quantized=True)
        if by_kind is None:
            return Intent()
        found = next((by_kind[tag] for name in names if (tag := linear_tag(name)) in by_kind), None)
        if found is None:
            return Intent(quantized=False, reason="quant_config has nothing for its kind", attributes={})
        return Intent(attributes=_attributes(found))

    return plan


def linear_tag(module: str) -> str:
    """The kind of a layer: its name without ``model``, ``layers`` and numbers (transformers/integrations/hqq.py)."""
    return ".".join(part for part in module.split(".") if part not in ("model", "layers") and not part.isnumeric())


def _decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    from checker.methods._hqq_numbers import decode

    return decode(checkpoint, weight, window)


register_method(
    Method(
        id="hqq",
        quant_method="hqq",
        documentation=__doc__ or "",
        keys=KEYS,
        declares=_declares,
        declared=_declared,
        recognise=recognise,
        layout=layout,
        skips=_skips,
        planner=_planner,
        entry_matches=lambda entry, name: entry in name,
        contradictions=_contradictions,
        decode=_decode,
        config_class="transformers.HqqConfig",
        dense_in_any_float=True,  # transformers 4 keeps them in float32 whatever the config says
        limits={"weights.error.R": Limit(warn=1.5, fail=2.5), "weights.error.gain": Limit(fail=0.35)},
    )
)
