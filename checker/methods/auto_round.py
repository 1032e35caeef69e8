"""AutoRound (arXiv:2309.05516): integers of 2 to 8 bits in groups along the inputs, rounded by signed gradient descent.

Stored per layer [out, in] as its ``packing_format`` says (auto_round/export/export_to_autoround/export.py):
``auto_round:auto_gptq`` as GPTQ with zero points less one, ``auto_round`` and ``auto_round:gptqmodel`` as GPTQ with
zero points as they are, ``auto_round:auto_awq`` as AWQ's gemm. Only ``auto_round:gptqmodel`` holds ``g_idx``. 5, 6 and
7 bits run on over word borders like 3 (auto_round/utils/bit_packing.py). Decoded: (code − zero) · scale.

Symmetric scales are negative where the value of largest magnitude is, so that it lies on code 0 exactly.
``extra_config`` holds settings of single layers, by name or regular expression; 16 bits keep a layer dense, as the
tool does with layers whose sizes are no multiples of 32. Where ``data_type`` names floats (MXFP4, NVFP4, MXFP8, 8-bit
floats) or MXINT4, tensors are as ``checker/methods/_auto_round_floats.py`` says.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from checker.checkpoint import Checkpoint
from checker.config_values import boolean, one_of
from checker.domain import Json, Limit
from checker.facts import ExpectedTensor, StoredWeight
from checker.inventory import Inventory
from checker.methods import _auto_round_floats as floats
from checker.methods import _packed_keys as keys
from checker.methods._awq_layout import layout as awq_layout
from checker.methods._awq_stored import find_weights
from checker.methods._packed_along_inputs import Reading, claims, packed_modules, read_weights
from checker.methods._packed_plan import matches, outside_blocks, overrides, valid
from checker.methods._packed_words import along_inputs_layout
from checker.registry import Intent, Method, Planner, register_method

if TYPE_CHECKING:
    from checker.coded import CodedWeight, Window

NAMES = ("auto-round", "intel/auto-round")
DENSE_BITS = 16


def _packing(config: Mapping[str, Json]) -> str:
    """awq, gptq (zero points less one) or own; early versions say it in ``backend``."""
    text = str(config.get("packing_format") or config.get("backend") or "auto_round:gptq").lower()
    if "awq" in text:
        return "awq"
    return "gptq" if "gptq" in text and "gptqmodel" not in text else "own"


def _declared(config: Mapping[str, Json]) -> dict[str, Json]:
    if found := floats.declared(config):
        return found
    packing = _packing(config)
    return {
        "bits": valid("bits", config.get("bits"), 4),
        "group_size": valid("group_size", config.get("group_size"), 128),
        "symmetric": valid("symmetric", config.get("sym"), default=True),
        "packing": "awq" if packing == "awq" else "gptq",
        **({} if packing == "awq" else {"zero_point_format": "gptq" if packing == "gptq" else "gptq_v2"}),
    }


def _recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    config = inventory.config
    if config is not None and floats.declared(config):
        return floats.read_weights(inventory, config)
    modules = packed_modules(inventory)
    if not modules or (config is None and inventory.modules("g_idx")):
        return ()  # with g_idx and without a config it is GPTQ's
    settings = _settings(config) if config is not None else _nothing
    mine = [module for module in modules if claims(inventory, module, declared=config is not None)]
    reading = Reading(
        minus_one=config is None or _packing(config) == "gptq",
        planar_widths=(),
        group_index=bool(inventory.modules("g_idx")),
    )
    weights = [_as_gptq(weight) for weight in read_weights(inventory, mine, reading, settings)]
    if config is not None and len(mine) < len(modules):
        weights += [
            _as_awq(weight) for weight in find_weights(inventory, {**_declared(config), "packing": "gemm"}, settings)
        ]
    return tuple(weights)


def _nothing(*names: str) -> Mapping[str, Json]:
    del names
    return {}


def _as_gptq(weight: StoredWeight) -> StoredWeight:
    return replace(weight, attributes={**weight.attributes, "packing": "gptq"})


def _as_awq(weight: StoredWeight) -> StoredWeight:
    """AutoRound keeps AWQ's order of outputs for all widths, not for 4 bits only."""
    return replace(weight, attributes={**weight.attributes, "packing": "awq", "interleaved": True})


def _settings(config: Mapping[str, Json]) -> Callable[..., Mapping[str, Json]]:
    """(names) → declared attributes, ``extra_config`` included: by name, else by the first expression found in it."""
    declared = _declared(config)
    listed = config.get("extra_config")
    extra = listed if isinstance(listed, dict) else {}

    @functools.cache
    def settings(*names: str) -> Mapping[str, Json]:
        own = next((extra[name] for name in names if name in extra), None)
        if own is None:
            rules = (rule for rule in extra if any(matches(rule, name, anywhere=True) for name in names))
            own = extra.get(next(rules, ""))
        return {**declared, **_overrides(own)}

    return settings


def _overrides(own: Json) -> dict[str, Json]:
    """A layer's own settings; ``dense`` where its bits are those of a float."""
    bits = own.get("bits") if isinstance(own, dict) else None
    dense = isinstance(bits, int) and bits >= DENSE_BITS
    kind = floats.kind_of(own.get("data_type")) if isinstance(own, dict) else ""
    return {**overrides(own), **({"dense": True} if dense else {}), **({"data_type": kind} if kind else {})}


def _planner(config: Mapping[str, Json]) -> Planner:
    """``extra_config``, then the blocks that were gone through; a head only where ``extra_config`` names it."""
    settings = _settings(config)
    listed = config.get("extra_config")
    extra = listed if isinstance(listed, dict) else {}
    blocks = _blocks(config)

    def plan(names: tuple[str, ...], role: str) -> Intent:
        declared = settings(*names)
        if "dense" in declared:
            return Intent(quantized=False, reason="extra_config keeps it at 16 bits")
        if role in ("head", "embedding", "router"):
            named = any(name in extra for name in names)
            return Intent(quantized=True if named else None, attributes=declared if named else None)
        if role not in ("linear", "expert", "vision"):
            return Intent()
        inside = (
            any(name.startswith(block) for name in names for block in blocks) if blocks else not outside_blocks(names)
        )
        if not inside:
            return Intent(quantized=False, reason="it lies outside the blocks that are quantized")
        return Intent(quantized=True, attributes=declared)

    return plan


def _blocks(config: Mapping[str, Json]) -> tuple[str, ...]:
    """Prefixes of the quantized blocks: one name, names with commas between, or a list."""
    value = config.get("block_name_to_quantize") or config.get("to_quant_block_names")
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(part.strip() for part in parts if isinstance(part, str) and part.strip())


def _layout(weight: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    """As GPTQ without ``g_idx``, or as AWQ's gemm."""
    if "data_type" in attributes:
        return floats.layout(weight, shape, attributes)
    if attributes.get("packing") == "awq":
        return awq_layout(weight, shape, {**attributes, "packing": "gemm"})
    return along_inputs_layout(weight, shape, {"g_idx": False, **attributes})


def _activations(config: Mapping[str, Json]) -> bool:
    bits = config.get("act_bits")
    return isinstance(bits, int) and bits < DENSE_BITS


def _decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    if "data_type" in weight.attributes:
        from checker.methods._auto_round_float_numbers import decode as decode_floats

        return decode_floats(checkpoint, weight, window)
    if weight.attributes["packing"] == "awq":
        from checker.methods._awq_numbers import decode

        return decode(checkpoint, replace(weight, attributes={**weight.attributes, "packing": "gemm"}), window)
    from checker.methods._packed_numbers import decode_along_inputs

    return decode_along_inputs(checkpoint, weight, window)


def _group_size(value: Json) -> str | None:
    """As for GPTQ; 8-bit floats have 0 for the whole matrix, or the rows and columns of a block."""
    block = isinstance(value, list) and len(value) == 2 and all(keys.group_size(size) is None for size in value)  # noqa: PLR2004
    return None if block or value == 0 else keys.group_size(value)


def _stored_dense(config: Mapping[str, Json]) -> str:
    fake = config.get("packing_format") == "auto_round:fake"
    return "auto_round:fake keeps rounded weights in their own type" if fake else ""


register_method(
    Method(
        id="auto-round",
        quant_method="auto-round",
        documentation=__doc__ or "",
        keys={
            **keys.COMMON,
            "quant_method": one_of(*NAMES),
            "bits": one_of(4, 8, 2, 3, 5, 6, 7),
            "group_size": _group_size,
            "packing_format": keys.text,
            "extra_config": keys.mapping_or_none,
            "low_gpu_mem_usage": boolean,
        },
        open_keys=True,
        declares=lambda config: config.get("quant_method") in NAMES,
        declared=_declared,
        recognise=_recognise,
        layout=_layout,
        skips=lambda _: None,
        planner=_planner,
        stored_dense=_stored_dense,
        activations=_activations,
        decode=_decode,
        config_class="transformers.AutoRoundConfig",
        limits={
            "weights.error.R": Limit(warn=2, fail=4),
            "weights.error.gain": Limit(fail=0.05),
            "outputs.modules.error_activations": Limit(warn=0.2, fail=0.4),  # of 4 bits
        },
    )
)
