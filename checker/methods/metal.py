"""MLX and Metal: affine quantization with a scale and a bias for each group, and MLX's microscaling modes.

Stored per layer (``mlx.core.quantize``; transformers/integrations/metal_quantization.py): ``weight`` U32 [out, in ·
bits / 32], codes one after the other from the lowest bit on, over word borders for 3, 5 and 6 bits; ``scales`` [out, in
/ group_size]; and ``biases`` (mlx-lm) or ``qbiases`` (transformers), all in the model's dtype. Decoded: code · scale +
bias. MLX begins at the end of the larger magnitude, so its scales can be negative. The modes mxfp4, mxfp8 and nvfp4
have E2M1 or E4M3 codes, U8 scales (E8M0 or E4M3) and no biases.

mlx-lm writes its settings under ``quantization`` and again under ``quantization_config``: ``bits``, ``group_size``,
``mode``, and under a layer's name other settings or false. There is no ``quant_method``, so transformers refuses such a
file. Layers left dense are not listed: a layer is quantized if it has scales. Embedding and output head are quantized
as well, tied ones as one. transformers writes ``quant_method: metal`` and follows its own rules; it reads 2, 4 and 8
bits.

Tensors tell bits · group_size, not each: 4 bits in groups of 64 look like 8 bits in groups of 32. The pair that gives
widths which occur elsewhere in the file is taken, and the config is held against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from checker.checkpoint import Checkpoint
from checker.config_values import Domain, boolean, modules_to_not_convert, names_or_none, one_of
from checker.domain import Json, Limit
from checker.facts import StoredWeight
from checker.methods._metal_state import BITS, MODES, layout, recognise
from checker.registry import Intent, Method, Planner, Unfit, register_method

if TYPE_CHECKING:
    from checker.coded import CodedWeight, Window

METAL_BITS = (2, 4, 8)
SETTINGS = ("bits", "group_size", "mode")


def _positive(value: Json) -> str | None:
    good = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return None if good else f"must be a positive integer, not {repr(value)[:60]}"


KEYS: Mapping[str, Domain] = {
    "quant_method": one_of("metal"),
    "bits": one_of(*BITS),
    "group_size": _positive,
    "mode": one_of(*MODES),
    "modules_to_not_convert": names_or_none,
    "dequantize": boolean,
    "linear_class": lambda value: None,  # noqa: ARG005 - left over from other formats that mlx-lm converts
}


def _declares(config: Mapping[str, Json]) -> bool:
    method = config.get("quant_method")
    return method == "metal" or (method is None and "bits" in config and "group_size" in config)


def _contradictions(config: Mapping[str, Json]) -> list[tuple[str, str]]:
    """Overrides of single layers, and what transformers cannot read."""
    bits = config.get("bits", 4)
    if config.get("quant_method") == "metal":
        wrong = bits in BITS and bits not in METAL_BITS
        return [("bits", f"bits is {bits}; transformers reads 2, 4 and 8 bits only")] if wrong else []
    found = []
    for name, override in config.items():
        if isinstance(override, Mapping):
            domains = (KEYS[key](override[key]) for key in SETTINGS if key in override)
            found += [(name, f"the settings of {name[:100]} are wrong: {fault}") for fault in domains if fault]
    return found


def _declared(config: Mapping[str, Json]) -> dict[str, Json]:
    defaults = {"bits": 4, "group_size": 64} if config.get("quant_method") == "metal" else {}
    found = defaults | {key: config[key] for key in SETTINGS if key in config and KEYS[key](config[key]) is None}
    return {"mode": "affine", **found}


def _planner(config: Mapping[str, Json]) -> Planner:
    """The rules of transformers for its own files; in MLX's a layer's own settings, and else either is right."""
    if config.get("quant_method") == "metal":
        return lambda names, role: Intent()  # noqa: ARG005 - the general rules hold
    declared = _declared(config)

    def plan(names: tuple[str, ...], role: str) -> Intent:
        del role
        override = next((config[name] for name in names if isinstance(config.get(name), Mapping | bool)), None)
        if override is False:
            return Intent(quantized=False, reason="config.json switches it off")
        if isinstance(override, Mapping):
            settings = {key: override[key] for key in SETTINGS if key in override and KEYS[key](override[key]) is None}
            return Intent(quantized=True, attributes={"mode": "affine", **settings})
        return Intent(open=True, attributes=declared)

    return plan


def _unfit(config: Mapping[str, Json]) -> Unfit:
    """Both writers need whole groups; transformers fails without them, mlx-lm leaves the layer dense."""
    group = _declared(config).get("group_size")
    size = group if isinstance(group, int) and group > 0 and config.get("quant_method") is None else 1
    return lambda shape: f"its {shape[-1]} inputs are no multiple of group_size {size}" if shape[-1] % size else ""


def _decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    from checker.methods._metal_numbers import decode

    return decode(checkpoint, weight, window)


register_method(
    Method(
        id="metal",
        quant_method="metal",
        documentation=__doc__ or "",
        keys=KEYS,
        open_keys=True,
        declares=_declares,
        declared=_declared,
        recognise=recognise,
        layout=layout,
        skips=modules_to_not_convert,
        planner=_planner,
        unfit=_unfit,
        ties_quantized=True,
        contradictions=_contradictions,
        decode=_decode,
        config_class="transformers.MetalConfig",
        limits={"weights.error.gain": Limit(fail=0.1)},
    )
)
