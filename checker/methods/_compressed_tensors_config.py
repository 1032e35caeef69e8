"""The ``quantization_config`` of compressed-tensors: its keys, and what in it cannot be meant.

Source: ``QuantizationConfig`` in compressed_tensors/quantization/quant_config.py (0.20).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from checker.config_values import Domain, boolean, names_or_none, number, one_of
from checker.domain import Json
from checker.methods._compressed_tensors_plan import groups_of, texts
from checker.methods._compressed_tensors_scheme import (
    FLOAT,
    FORMATS,
    INT,
    MIXED,
    MXFP4,
    MXFP6,
    MXFP8,
    NVFP4,
    PACKED,
    SPARSE,
    Scheme,
    anything,
    argument_flaws,
    scheme_of,
    unknown_keys,
)
from checker.methods._name_rules import REGEX

STATUSES = ("initialized", "calibration", "frozen", "compressed", "decompressed")
_WANTED = {  # what a format can hold: type, bits, group sizes
    PACKED: ("int", range(1, 9), None),
    INT: ("int", range(1, 9), None),
    FLOAT: ("float", (8,), None),
    NVFP4: ("float", (4,), (16,)),
    MXFP4: ("float", (4,), (32,)),
    MXFP6: ("float", (6,), (32,)),
    MXFP8: ("float", (8,), (32,)),
}
_SCHEME_KEYS = ("targets", "weights", "input_activations", "output_activations", "format")


def _dictionary(value: Json) -> str | None:
    return None if value is None or isinstance(value, dict) else "must be an object"


def _number_or_none(value: Json) -> str | None:
    return None if value is None else number(value)


KEYS: Mapping[str, Domain] = {
    "quant_method": one_of("compressed-tensors"),
    "config_groups": _dictionary,
    "format": one_of(*FORMATS, *SPARSE, None),
    "quantization_status": one_of(*STATUSES, None),
    "kv_cache_scheme": _dictionary,
    "global_compression_ratio": _number_or_none,
    "ignore": names_or_none,
    "sparsity_config": _dictionary,
    "transform_config": _dictionary,
    "moe_sparsity_config": _dictionary,
    "version": anything,
    "run_compressed": boolean,
    "dequantize": boolean,
    "use_optimized_inference": boolean,
}


def contradictions(config: Mapping[str, Json]) -> list[tuple[str, str]]:
    """What the library would refuse or silently take for something else, by key."""
    found = []
    groups = groups_of(config)
    if not groups and not config.get("kv_cache_scheme"):
        found.append(("config_groups", "config_groups is empty: the model would load as dense"))
    status = config.get("quantization_status")
    if status in ("initialized", "calibration"):
        found.append(("quantization_status", f"quantization_status is {status}: scales were never calibrated"))
    if status == "decompressed":
        found.append(("quantization_status", "quantization_status is decompressed: saved again after a forward, dense"))
    if config.get("format") in SPARSE:
        text = (
            f"format {config['format']} is sparse: compressed-tensors reads it no more since 0.14, and it is not judged"
        )
        found.append(("format", text))
    for name, group in groups.items():
        shown = name if name.isprintable() else ascii(name)
        found += _group_flaws(f"config_groups.{shown[:60]}", group, config.get("format"))
    return found


def _group_flaws(place: str, group: Any, default_format: Json) -> Iterator[tuple[str, str]]:
    if isinstance(group, list):  # the name of a preset over its targets
        return
    if not isinstance(group, Mapping):
        yield place, f"{place} must be an object"
        return
    yield from unknown_keys(place, group, _SCHEME_KEYS)
    targets = group.get("targets")
    if not isinstance(targets, list) or not targets or len(texts(targets)) != len(targets):
        yield f"{place}.targets", f"{place}.targets must be a list of names, expressions ({REGEX}) or classes"
    if group.get("format") == MIXED:
        yield f"{place}.format", f"{place}.format cannot be {MIXED}: each group has one format"
    elif (wrong := one_of(*FORMATS, *SPARSE, None)(group.get("format"))) is not None:
        yield f"{place}.format", f"{place}.format {wrong}"
    for side in ("weights", "input_activations", "output_activations"):
        arguments = group.get(side)
        if isinstance(arguments, Mapping):
            yield from argument_flaws(f"{place}.{side}", arguments)
        elif arguments is not None:
            yield f"{place}.{side}", f"{place}.{side} must be an object or null"
    scheme = scheme_of(group, default_format if isinstance(default_format, str) and default_format in FORMATS else "")
    if scheme is not None:
        yield from _format_flaws(place, scheme)


def _format_flaws(place: str, scheme: Scheme) -> Iterator[tuple[str, str]]:
    kind, bits, sizes = _WANTED.get(scheme.format, (scheme.type, (scheme.bits,), None))
    if scheme.type != kind or scheme.bits not in bits or (sizes is not None and scheme.group_size not in sizes):
        groups = f" in groups of {sizes[0]}" if sizes else ""
        widths = f"{min(bits)} to {max(bits)}" if len(bits) > 1 else f"{bits[0]}"
        text = f"{place}: format {scheme.format} holds {kind} weights of {widths} bits{groups}, not {scheme.type} of "
        yield f"{place}.weights", f"{text}{scheme.bits} bits" + (f" in groups of {scheme.group_size}" if sizes else "")
