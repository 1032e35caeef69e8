"""AWQ (arXiv:2306.00978): 4-bit integers in groups along the inputs, whose channels were scaled by their activations.

Stored per layer [out, in] (AutoAWQ, gptqmodel, AutoRound), packing ``gemm``: ``qweight`` I32 [in, out / 8], eight
codes of neighbouring outputs to a word in the order 0 2 4 6 1 3 5 7; ``qzeros`` I32 [groups, out / 8], packed alike;
``scales`` F16 [groups, out]. Decoded: (code − zero) · scale. The packings ``gemv``, ``gemv_fast`` and ``llm-awq`` hold
the same numbers in other orders; what each looks like says ``checker/methods/_awq_layout.py``. gptqmodel also writes 2
to 8 bits, in plain order.

Calibration multiplies input channels of a layer, and divides the output channels of the layer before, by factors that
are found in no file: one gain for each row and column is fitted before the error is judged (R 1.0 to 1.2 on healthy
files; without the fit up to 20). An asymmetric group holds an extreme code, 0 or 15.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from checker.architecture import skip_matches
from checker.checkpoint import Checkpoint
from checker.config_values import boolean, modules_to_not_convert, names_or_none, one_of
from checker.domain import Json, Limit
from checker.facts import StoredWeight
from checker.inventory import Inventory
from checker.methods import _packed_keys as keys
from checker.methods._awq_layout import PACKINGS, layout
from checker.methods._awq_stored import find_weights
from checker.methods._packed_plan import beside_language, dynamic_rule, dynamic_rules, overrides, valid
from checker.registry import Intent, Method, Planner, register_method

if TYPE_CHECKING:
    from checker.coded import CodedWeight, Window


def _packing(config: Mapping[str, Json]) -> str:
    """The declared packing: ``version`` in AutoAWQ's configs, ``format`` in gptqmodel's."""
    if config.get("backend") == "llm-awq":
        return "llm-awq"
    text = str(config.get("version") or config.get("format") or config.get("checkpoint_format") or "gemm").lower()
    return text if text in PACKINGS else "gemm"


def _declared(config: Mapping[str, Json]) -> dict[str, Json]:
    zero_point = config.get("zero_point", config.get("sym") is not True)
    return {
        "bits": valid("bits", config.get("bits", config.get("w_bit")), 4),
        "group_size": valid("group_size", config.get("group_size", config.get("q_group_size")), 128),
        "symmetric": zero_point is False,
        "packing": _packing(config),
    }


def _recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    config = inventory.config
    return find_weights(inventory, None if config is None else _declared(config))


def _planner(config: Mapping[str, Json]) -> Planner:
    """The head stays dense whatever the skip list says; gptqmodel's ``dynamic`` may keep further modules.

    AutoAWQ looks for an entry anywhere in a module's name, transformers at its start or end: either keeps it dense.
    gptqmodel goes through the language part only and writes no list of the rest.
    """
    rules = dynamic_rules(config.get("dynamic"))
    declared = _declared(config)
    skipped = modules_to_not_convert(config) or ()
    own_tool = "meta" in config

    def plan(names: tuple[str, ...], role: str) -> Intent:
        rule = dynamic_rule(rules, names)
        if rule is not None and rule.settings is None:
            return Intent(quantized=False, reason=f"{rule.written!r} of dynamic keeps it")
        if role == "head":
            return Intent(quantized=False, reason="AWQ keeps the output head")
        if role not in ("linear", "expert", "vision"):
            return Intent()
        if any(entry in name for entry in skipped for name in names):
            plain = any(skip_matches(entry, name) for entry in skipped for name in names)
            return Intent() if plain else Intent(open=True)
        if own_tool and beside_language(names):
            return Intent(open=True)
        return Intent(attributes={**declared, **overrides(rule.settings)} if rule else None)

    return plan


def _contradictions(config: Mapping[str, Json]) -> list[tuple[str, str]]:
    version, written = config.get("version"), config.get("format")
    if isinstance(version, str) and isinstance(written, str) and version.lower() != written.lower():
        return [
            ("format", f"version is {version[:40]!r} and format is {written[:40]!r}; loaders differ in which they read")
        ]
    return []


def _decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    from checker.methods._awq_numbers import decode

    return decode(checkpoint, weight, window)


def _packing_name(value: Json) -> str | None:
    """One of the packings; AutoAWQ writes capitals too."""
    lowered = value.lower() if isinstance(value, str) else value
    return None if lowered is None else one_of(*PACKINGS)(lowered)


register_method(
    Method(
        id="awq",
        quant_method="awq",
        documentation=__doc__ or "",
        keys={
            **keys.COMMON,
            "quant_method": one_of("awq"),
            "bits": one_of(4, 8, 2, 3, 5, 6, 7),
            "zero_point": boolean,
            "version": _packing_name,
            "format": _packing_name,
            "modules_to_not_convert": names_or_none,
        },
        open_keys=True,
        declares=lambda config: config.get("quant_method") == "awq",
        declared=_declared,
        recognise=_recognise,
        layout=layout,
        skips=modules_to_not_convert,
        planner=_planner,
        contradictions=_contradictions,
        decode=_decode,
        rescales=True,
        config_class="transformers.AwqConfig",
        limits={
            "weights.error.R": Limit(warn=1.5, fail=2.5),
            "weights.codes.extreme": Limit(warn=0.98, fail=0.9),
        },
    )
)
