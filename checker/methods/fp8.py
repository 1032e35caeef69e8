"""fp8: fine-grained 8-bit floats, as DeepSeek-V3 introduced them (arXiv:2412.19437) and transformers quantizes.

Stored per layer (``FP8Linear``, transformers/integrations/finegrained_fp8.py): ``weight`` F8_E4M3 [out, in];
``weight_scale_inv``, one scale a block of ``weight_block_size`` (128 × 128; the last block may be partial), or one for
the matrix where that is null. Scales are F32 or BF16, or powers of two as F8_E8M0 or U8 bytes (``scale_fmt`` ue8m0,
which may also be kept in F32). Some publishers call them ``scale`` or ``qscale_weight``. ``activation_scale`` where
activations are static. Experts one by one like layers, or fused: ``gate_up_proj`` and ``down_proj`` [experts, out, in]
with ``…_scale_inv``. ``expert_dtype`` fp4 (DeepSeek-V4): experts as I8 [out, in / 2], two E2M1 codes a byte, the low
nibble first, and one scale for 32 values. Embedding tables of ``modules_to_convert`` have one ``weight_scale``.

Decoded: code · scale, the stored scale being what a weight is multiplied with in spite of its name (``Fp8Dequantize``).
transformers leaves a weight dense whose size is no multiple of the block when it quantizes itself, and saves a scale
for it all the same; that shows in layers.coverage. Of a mixture it saves experts one by one beside fused scales, which
it cannot read again; that shows as missing scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from checker.checkpoint import Checkpoint
from checker.domain import Json, Limit
from checker.facts import StoredWeight
from checker.inventory import Inventory
from checker.methods import _fp8_config as shared
from checker.methods._fp8_habits import is_mxfp8
from checker.methods._fp8_layout import layout
from checker.methods._fp8_stored import find, read
from checker.registry import Method, register_method

if TYPE_CHECKING:
    from checker.coded import CodedWeight, Window


def _declares(config: Mapping[str, Json]) -> bool:
    return config.get("quant_method") == "fp8"


def _recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    """Undeclared, groups of 32 with bytes as scales are called mxfp8."""
    found = find(inventory)
    if not found or (inventory.config is None and is_mxfp8(inventory, found)):
        return ()
    return read(inventory, found)


def _decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    from checker.methods._fp8_numbers import decode

    return decode(checkpoint, weight, window)


register_method(
    Method(
        id="fp8",
        quant_method="fp8",
        documentation=__doc__ or "",
        keys=shared.keys("fp8"),
        open_keys=True,
        declares=_declares,
        declared=shared.declared,
        recognise=_recognise,
        layout=layout,
        skips=shared.skips,
        planner=shared.planner,
        activations=lambda config: config.get("dequantize") is not True,
        decode=_decode,
        config_class=shared.CONFIG_CLASS,
        limits={"weights.error.gain": Limit(fail=0.03), "weights.codes.extreme": Limit(warn=0.99, fail=0.5)},
    )
)
