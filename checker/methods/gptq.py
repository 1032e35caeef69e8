"""GPTQ (arXiv:2210.17323): integers of 2, 3, 4 or 8 bits, groups along the inputs, calibrated against activations.

Stored per layer [out, in] (gptqmodel, AutoGPTQ, optimum; ``TorchLinear`` in gptqmodel/nn_modules/qlinear/torch.py):
``qweight`` I32 [in · bits / 32, out], codes along the inputs, low bits first, running on over word borders; ``scales``
F16 [groups, out]; ``qzeros`` I32 [groups, out · bits / 32], zero points along the outputs; ``g_idx`` I32 [in], the
group of each input, permuted where the columns were quantized in activation order (``desc_act``). Decoded: (code −
zero) · scale.

Two versions of zero points: format ``gptq`` stores each less one (whole words minus 0x11111111, carries included, and
for 3 bits field by field: ``convert_gptq_v1_to_v2_format_module`` in gptqmodel/utils/model.py), ``gptq_v2`` as it is.
``gptq_p``, which gptqmodel needs for 5, 6 and 7 bits, splits codes into planes of whole fields
(gptqmodel/utils/planar_packing.py). Symmetric grids have their zero at 2^(bits − 1), so there the file itself tells.

Rounding moves weights that are still to come to make up for each error, so the decoded weight is further from the
baseline than rounding to the nearest: R 1.3 to 2.2 on healthy files. A zero point off by one gives 13 and more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from checker.checkpoint import Checkpoint
from checker.config_values import boolean, one_of
from checker.domain import Json, Limit
from checker.facts import StoredWeight
from checker.inventory import Inventory
from checker.methods import _packed_keys as keys
from checker.methods._packed_along_inputs import Reading, claims, packed_modules, read_weights
from checker.methods._packed_plan import (
    beside_language,
    dynamic_rule,
    dynamic_rules,
    outside_blocks,
    overrides,
    valid,
)
from checker.methods._packed_words import along_inputs_layout
from checker.registry import Intent, Method, Planner, register_method

if TYPE_CHECKING:
    from checker.coded import CodedWeight, Window

FORMATS = ("gptq", "gptq_v2", "gptq_p")


def _format(config: Mapping[str, Json]) -> str:
    """The declared format; older writers know only ``checkpoint_format``, and the oldest neither."""
    return str(config.get("checkpoint_format") or config.get("format") or "gptq").lower()


def _declared(config: Mapping[str, Json]) -> dict[str, Json]:
    return {
        "bits": valid("bits", config.get("bits"), 4),
        "group_size": valid("group_size", config.get("group_size"), 128),
        "symmetric": valid("symmetric", config.get("sym"), default=True),
        "act_order": valid("act_order", config.get("desc_act"), default=False),
        "zero_point_format": "gptq" if _format(config) == "gptq" else "gptq_v2",
    }


def _recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    config = inventory.config
    modules = [module for module in packed_modules(inventory) if claims(inventory, module, declared=config is not None)]
    if not modules or (config is None and not inventory.modules("g_idx")):
        return ()  # without g_idx it is AutoRound's, unless the config says otherwise
    declared = _declared(config) if config is not None else {}
    chosen = _format(config or {})
    reading = Reading(minus_one=chosen == "gptq", planar=chosen == "gptq_p", group_index=True)
    return read_weights(inventory, modules, reading, _per_module(config or {}, declared))


def _per_module(config: Mapping[str, Json], declared: Mapping[str, Json]) -> Callable[[str], Mapping[str, Json]]:
    """(module) → the settings declared for it: what breaks ties where shapes leave several readings."""
    rules = dynamic_rules(config.get("dynamic"))

    def settings(module: str) -> Mapping[str, Json]:
        rule = dynamic_rule(rules, (module,))
        return {**declared, **overrides(rule.settings)} if rule else declared

    return settings


def _planner(config: Mapping[str, Json]) -> Planner:
    """``dynamic``, then ``modules_in_block_to_quantize``; only decoder blocks, and the head where it is asked for."""
    declared = _declared(config)
    rules = dynamic_rules(config.get("dynamic"))
    only = [str(name) for group in _lists(config.get("modules_in_block_to_quantize")) for name in _lists(group)]
    head = config.get("lm_head") is True

    def plan(names: tuple[str, ...], role: str) -> Intent:
        rule = dynamic_rule(rules, names)
        if rule is not None and rule.settings is None:
            return Intent(quantized=False, reason=f"{rule.written!r} of dynamic keeps it")
        attributes = {**declared, **overrides(rule.settings)} if rule else None
        if role == "head":
            return Intent(quantized=True if head else None, attributes=attributes)
        if role not in ("linear", "expert", "vision"):
            return Intent(attributes=attributes)
        if beside_language(names) or outside_blocks(names):
            return Intent(quantized=False, reason="GPTQ quantizes the decoder blocks of the language part only")
        if only and not any(name.endswith(entry) for name in names for entry in only):
            return Intent(quantized=False, reason="modules_in_block_to_quantize does not name it")
        return Intent(attributes=attributes)

    return plan


def _lists(value: Json) -> list[Any]:
    return value if isinstance(value, list) else [value] if isinstance(value, str) else []


def _contradictions(config: Mapping[str, Json]) -> list[tuple[str, str]]:
    first, second = config.get("checkpoint_format"), config.get("format")
    if isinstance(first, str) and isinstance(second, str) and first != second:
        return [
            (
                "format",
                f"checkpoint_format is {first[:40]!r} and format is {second[:40]!r}; loaders differ in which they read",
            )
        ]
    return []


def _decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    from checker.methods._packed_numbers import decode_along_inputs

    return decode_along_inputs(checkpoint, weight, window)


register_method(
    Method(
        id="gptq",
        quant_method="gptq",
        documentation=__doc__ or "",
        keys={
            **keys.COMMON,
            "quant_method": one_of("gptq"),
            "bits": one_of(4, 8, 2, 3, 5, 6, 7),
            "checkpoint_format": one_of(*FORMATS),
            "format": one_of(*FORMATS),
            "damp_percent": keys.fraction,
            "act_group_aware": keys.boolean_or_none,
            "true_sequential": boolean,
            "static_groups": boolean,
            "modules_in_block_to_quantize": keys.lists_of_names,
        },
        open_keys=True,
        declares=lambda config: config.get("quant_method") == "gptq",
        declared=_declared,
        recognise=_recognise,
        layout=along_inputs_layout,
        skips=lambda _: None,
        planner=_planner,
        contradictions=_contradictions,
        decode=_decode,
        config_class="transformers.GPTQConfig",
        # errors are fed back: more of them than rounding makes, and less exact gains at 2 bits
        limits={"weights.error.R": Limit(warn=4, fail=8), "weights.error.gain": Limit(fail=0.05)},
    )
)
