"""mxfp4: the experts of GPT-OSS in 4-bit floats, 32 values to a scale (OCP microscaling 1.0); the rest stays dense.

Stored per layer (transformers/integrations/mxfp4.py): ``gate_up_proj_blocks`` U8 [experts, out, in / 32, 16], two E2M1
codes a byte, the low nibble first, and ``gate_up_proj_scales`` U8 [experts, out, in / 32]; likewise ``down_proj``.
Biases, routers, attention and embeddings are not touched. The dense parameters are [experts, in, out], so that groups
run along their columns.

Decoded: code · 2^(scale − 127) (``convert_moe_packed_tensors``). Scales rounded up (OpenAI, modelopt) leave the largest
value of a group between 3 and 6, scales rounded down clip it at 6. Weights trained in this format need not reach it.
Without kernels from the Hub transformers decodes such a model into dense weights as it loads it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from checker.checkpoint import Checkpoint
from checker.config_values import boolean, modules_to_not_convert, names_or_none, one_of
from checker.domain import Json, Limit
from checker.facts import ExpectedTensor, Flaw, StoredWeight
from checker.inventory import Inventory
from checker.registry import Method, register_method

if TYPE_CHECKING:
    from checker.coded import CodedWeight, Window

GROUP = 32
BYTES = GROUP // 2  # of one group
BLOCKS, SCALES = "_blocks", "_scales"
STACK = 3  # dimensions of the dense parameter
MOST_EXPERTS = 1 << 14
ATTRIBUTES: dict[str, Json] = {"bits": 4, "quant_type": "e2m1", "group_size": GROUP}


def _declares(config: Mapping[str, Json]) -> bool:
    return config.get("quant_method") == "mxfp4"


def _declared(config: Mapping[str, Json]) -> dict[str, Json]:
    del config  # nothing of it changes the layout
    return ATTRIBUTES


def _recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    return tuple(_read_weight(inventory, dense) for dense in dict.fromkeys(_names(inventory)))


def _names(inventory: Inventory) -> Iterator[str]:
    """Dense names of whatever has blocks of bytes, or byte scales that have lost theirs."""
    for suffix in inventory.suffixes:
        for end in (BLOCKS, SCALES):
            if suffix.endswith(end) and len(suffix) > len(end):
                for module in inventory.modules(suffix):
                    dense = f"{module}.{suffix}".removesuffix(end)
                    header = inventory.tensors[f"{module}.{suffix}"]
                    kept = inventory.config is not None and "proj" in suffix
                    if kept or (header.dtype == "U8" and len(header.shape) >= STACK):
                        yield dense


def _read_weight(inventory: Inventory, dense: str) -> StoredWeight:
    blocks = inventory.tensors.get(f"{dense}{BLOCKS}")
    scales = inventory.tensors.get(f"{dense}{SCALES}")
    shape: tuple[int, ...] | None = None
    flaws: list[Flaw] = []
    if blocks is not None:
        known = len(blocks.shape) == STACK + 1 and blocks.shape[3] == BYTES and 0 not in blocks.shape
        if known and blocks.shape[0] <= MOST_EXPERTS:
            shape = (blocks.shape[0], blocks.shape[2] * GROUP, blocks.shape[1])
        else:
            message = f"{blocks.name} has shape {list(blocks.shape)}, not [experts, out, in / {GROUP}, {BYTES}]"
            flaws.append(Flaw(where=blocks.name, message=message, observed=list(blocks.shape)))
    likely = (0, 0, 0)
    if scales is not None and len(scales.shape) == STACK:
        likely = (scales.shape[0], scales.shape[2] * GROUP, scales.shape[1])
    expected = _layout(dense, shape or likely, ATTRIBUTES)
    return StoredWeight(
        module=dense,
        weight=f"{dense}{BLOCKS}",
        shape=shape,
        attributes=ATTRIBUTES,
        expected=expected if shape or scales else expected[:1],
        flaws=tuple(flaws),
        dense=dense,
        grain=(GROUP, 1),
    )


def _layout(dense: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    """The tensors of a parameter [experts, in, out]."""
    del attributes
    if len(shape) != STACK:
        return ()
    scales = (shape[0], shape[2], math.ceil(shape[1] / GROUP))
    codes = (*scales, BYTES)
    return (
        ExpectedTensor(name=f"{dense}{BLOCKS}", dtype="U8", shape=codes, nbytes=math.prod(codes), companion=False),
        ExpectedTensor(name=f"{dense}{SCALES}", dtype="U8", shape=scales, nbytes=math.prod(scales)),
    )


def _decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    from checker.methods._float_numbers import decode_mxfp4

    return decode_mxfp4(checkpoint, weight, window)


register_method(
    Method(
        id="mxfp4",
        quant_method="mxfp4",
        documentation=__doc__ or "",
        keys={"quant_method": one_of("mxfp4"), "modules_to_not_convert": names_or_none, "dequantize": boolean},
        declares=_declares,
        declared=_declared,
        recognise=_recognise,
        layout=_layout,
        skips=modules_to_not_convert,
        roles=frozenset(["expert"]),
        decode=_decode,
        config_class="transformers.Mxfp4Config",
        limits={
            "weights.error.R": Limit(warn=1.3, fail=2.0),
            "weights.error.gain": Limit(fail=0.04),
            "weights.codes.extreme": Limit(warn=0.5, fail=0.05),
        },
    )
)
