"""mxfp8: 8-bit floats in groups of 32 with a power of two as scale (OCP microscaling 1.0), read as fp8 is.

Stored per layer: ``weight`` F8_E4M3 [out, in] and ``weight_scale_inv`` [out, in / 32], exponents as F8_E8M0 or as U8
bytes: 2^(byte − 127). Experts one by one or fused, as in fp8. transformers registers the same quantizer and config
class for both (``FineGrainedFP8Config``), so the config must name the blocks: ``weight_block_size`` [1, 32] and
``scale_fmt`` ue8m0; without them blocks of 128 × 128 with scales in F32 are built.

Decoded: code · 2^(byte − 127). Scales rounded down clip the largest values of a group (R up to 1.5), scales rounded up
do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from checker.checkpoint import Checkpoint
from checker.domain import Json, Limit
from checker.facts import StoredWeight
from checker.inventory import Inventory
from checker.methods import _fp8_config as shared
from checker.methods._fp8_habits import MX_BLOCK, has_exponents, is_mxfp8
from checker.methods._fp8_layout import layout
from checker.methods._fp8_stored import find, read
from checker.registry import Method, register_method

if TYPE_CHECKING:
    from checker.coded import CodedWeight, Window


def _declares(config: Mapping[str, Json]) -> bool:
    return config.get("quant_method") == "mxfp8"


def _recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    """Undeclared, files whose first scales are no exponents are passed over at once: large mixtures are fp8."""
    if inventory.config is None and not has_exponents(inventory):
        return ()
    found = find(inventory)
    if not found or (inventory.config is None and not is_mxfp8(inventory, found)):
        return ()
    return read(inventory, found)


def _contradictions(config: Mapping[str, Json]) -> list[tuple[str, str]]:
    """The defaults of the config class are those of fp8."""
    flaws = []
    if shared.declared_block(config) != MX_BLOCK:
        flaws.append(
            ("weight_block_size", "weight_block_size must be [1, 32] for mxfp8; transformers takes [128, 128]")
        )
    if not shared.powers_declared(config):
        flaws.append(("scale_fmt", "scale_fmt must be ue8m0 for mxfp8; transformers takes scales for float"))
    return flaws


def _decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    from checker.methods._fp8_numbers import decode

    return decode(checkpoint, weight, window)


register_method(
    Method(
        id="mxfp8",
        quant_method="mxfp8",
        documentation=__doc__ or "",
        keys=shared.keys("mxfp8"),
        open_keys=True,
        declares=_declares,
        declared=shared.declared,
        recognise=_recognise,
        layout=layout,
        skips=shared.skips,
        planner=shared.planner,
        contradictions=_contradictions,
        activations=lambda config: config.get("dequantize") is not True,
        decode=_decode,
        config_class=shared.CONFIG_CLASS,
        limits={
            "weights.error.R": Limit(warn=1.6, fail=2.5),
            "weights.error.gain": Limit(fail=0.02),
            "weights.codes.extreme": Limit(warn=0.99, fail=0.5),
        },
    )
)
