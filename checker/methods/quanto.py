"""Quanto: int8, float8, int4 and int2 weights, as optimum-quanto saves them.

Stored per layer (``QModuleMixin._save_to_state_dict``, optimum-quanto 0.2.7). 8 bits: ``weight._data`` I8 or F8 [out,
in], ``weight._scale`` [out, 1]; value = code · scale. 4 and 2 bits: ``weight._data._data`` U8, the matrix of groups
[groups, group_size] (or the weight itself where it has 128 inputs or fewer) packed in planes, the first half or quarter
of its rows in the lowest bits; ``weight._scale`` and ``weight._shift`` [groups, 1]; value = code · scale − shift, or
(code − shift) · scale where the shift is whole. ``input_scale`` and ``output_scale`` are scalars for activations.

transformers quantizes with quanto but does not save the result. optimum-quanto does, and puts its declaration not into
``config.json`` but into ``quanto_qmap.json`` beside it: for each module the type of its weights and activations.

A group's shape does not tell how many rows the weight has: 4- and 2-bit weights with groups take their dense shape from
the sizes in ``config.json``, and are not compared with a baseline where those leave it open.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from checker.checkpoint import Checkpoint
from checker.config_values import Domain, names_or_none, one_of
from checker.domain import Json, Limit
from checker.facts import StoredWeight
from checker.methods._quanto_state import layout, recognise
from checker.registry import Intent, Method, Planner, register_method

if TYPE_CHECKING:
    from checker.coded import CodedWeight, Window

BITS = {"int8": 8, "float8": 8, "int4": 4, "int2": 2}
TYPES = ("qint2", "qint4", "qint8", "qfloat8", "qfloat8_e4m3fn", "qfloat8_e5m2", "qfloat8_e4m3fnuz")
SKIPPED = "modules_to_not_convert"


def _map(value: Json) -> str | None:
    if not isinstance(value, Mapping):
        return "must be an object"
    for module, entry in value.items():
        weights = entry.get("weights") if isinstance(entry, Mapping) else None
        if weights not in (*TYPES, "none"):
            return f"says {str(weights)[:40]!r} of the weights of {str(module)[:80]!r}; known are {', '.join(TYPES)}"
    return None if value else "names no module"


KEYS: Mapping[str, Domain] = {
    "quant_method": one_of("quanto"),
    "weights": one_of("float8", "int8", "int4", "int2"),
    "activations": one_of(None, "int8", "float8"),
    SKIPPED: names_or_none,
    "quantization_map": _map,
}


def _declares(config: Mapping[str, Json]) -> bool:
    return config.get("quant_method") == "quanto"


def _declared(config: Mapping[str, Json]) -> dict[str, Json]:
    weights = config.get("weights")
    return {"bits": BITS[weights]} if isinstance(weights, str) and weights in BITS else {}


def _activations(config: Mapping[str, Json]) -> bool:
    entries = config.get("quantization_map")
    each = entries.values() if isinstance(entries, Mapping) else ()
    named = [config.get("activations"), *(entry.get("activations") for entry in each if isinstance(entry, Mapping))]
    return any(value not in (None, "none") for value in named)


def _skips(config: Mapping[str, Json]) -> tuple[str, ...] | None:
    listed = config.get(SKIPPED)
    return tuple(str(name) for name in listed) if isinstance(listed, list) else None


def _planner(config: Mapping[str, Json]) -> Planner:
    """What the quantization map says of each module; without one, the general rules hold."""
    entries = config.get("quantization_map")

    def plan(names: tuple[str, ...], role: str) -> Intent:
        del role
        if not isinstance(entries, Mapping):
            return Intent()
        entry = next((entries[name] for name in names if name in entries), None)
        weights = entry.get("weights") if isinstance(entry, Mapping) else None
        if weights not in TYPES:
            return Intent(quantized=False, reason="quanto_qmap.json does not name it", attributes={})
        return Intent(quantized=True, attributes=_of_type(weights))

    return plan


def _of_type(weights: str) -> dict[str, Json]:
    kind = "qfloat8_e4m3fn" if weights == "qfloat8" else weights
    return {"bits": 8 if "float" in weights else int(weights.removeprefix("qint")), "quant_type": kind}


def _decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    from checker.methods._quanto_numbers import decode

    return decode(checkpoint, weight, window)


register_method(
    Method(
        id="quanto",
        quant_method="quanto",
        documentation=__doc__ or "",
        keys=KEYS,
        declares=_declares,
        declared=_declared,
        recognise=recognise,
        layout=layout,
        skips=_skips,
        planner=_planner,
        activations=_activations,
        decode=_decode,
        config_class="transformers.QuantoConfig",
        limits={"weights.error.gain": Limit(fail=0.1)},
    )
)
