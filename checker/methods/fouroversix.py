"""fouroversix: NVFP4 whose blocks are scaled to 4 or to 6, whichever errs less (arXiv:2512.02010); MXFP4 as well.

Stored per layer (``FourOverSixLinear``, fouroversix/model/modules/linear.py, 1.0.5): ``quantized_weight_values`` U8
[out, in / 2], two E2M1 codes a byte, the low nibble first; ``quantized_weight_scale_factors``, flat, in the tensor
cores' tiles of 128 × 4: F8_E4M3 for 16 values (nvfp4) or F8_E8M0 for 32 (mxfp4); ``quantized_weight_amax`` F32 [1];
``quantized_weight_metadata``, six whole numbers: the dense shape, the padded one, whether codes are packed, whether
scales are in tiles.

Decoded: code · scale · amax / (6 · 256), the largest code and scale of the adaptive rules (``scale_rule`` mse, mae,
abs_max); 6 · 448 for static_6, 4 · 448 for static_4. MXFP4: code · 2^(byte − 127). The rule is in the config only.
Skipped modules are named in full. A module of ``module_config_overrides`` takes the defaults for all it leaves out.
fouroversix pads rows to 128 and columns to 4 blocks, and its modules do not load what was padded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from checker.checkpoint import Checkpoint
from checker.domain import Json, Limit
from checker.facts import ExpectedTensor, Flaw, StoredWeight
from checker.inventory import Inventory
from checker.methods import _fouroversix_config as shared
from checker.registry import Method, register_method

if TYPE_CHECKING:
    from checker.coded import CodedWeight, Window

VALUES = "quantized_weight_values"
SCALES = "quantized_weight_scale_factors"
AMAX = "quantized_weight_amax"
METADATA = "quantized_weight_metadata"
MATRIX = 2
NUMBERS = 6  # of the metadata
ITEM_BYTES = {"I32": 4, "I64": 8}
ROWS = 128  # of a tile of scales


def _declares(config: Mapping[str, Json]) -> bool:
    return config.get("quant_method") == "fouroversix"


def _recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    return tuple(_read_weight(inventory, module) for module in inventory.modules(VALUES, SCALES, METADATA))


def _read_weight(inventory: Inventory, module: str) -> StoredWeight:
    header = inventory.header(module, VALUES)
    scales = inventory.header(module, SCALES)
    metadata = inventory.header(module, METADATA)
    kind = _kind(scales.dtype if scales is not None else "", inventory.config, module)
    attributes: dict[str, Json] = {
        **shared.attributes_of(kind),
        "metadata_dtype": metadata.dtype if metadata is not None and metadata.dtype in ITEM_BYTES else "I64",
    }
    flaws: list[Flaw] = []
    shape = None
    if header is not None and len(header.shape) == MATRIX and 0 not in header.shape:
        shape = (header.shape[0], header.shape[1] * 2)
        flaws += _metadata_flaws(inventory, module, shape)
    elif header is not None:
        message = f"{header.name} has shape {list(header.shape)}: no matrix of codes"
        flaws.append(Flaw(where=header.name, message=message, observed=list(header.shape)))
    dense = f"{module}.weight"
    return StoredWeight(
        module=module,
        weight=f"{module}.{VALUES}",
        shape=shape,
        attributes=attributes,
        expected=_layout(dense, shape or (0, 0), attributes)[: None if shape else 1],
        flaws=tuple(flaws),
        dense=dense,
        grain=(ROWS, 0),
    )


def _kind(dtype: str, config: Mapping[str, Json] | None, module: str) -> str:
    """The type of the codes: the scales' type tells mxfp4; of those with E4M3 scales the config tells which."""
    if dtype == "F8_E8M0":
        return "mxfp4"
    declared = shared.kind_of(config, module) if config is not None else "nvfp4"
    return declared if declared in shared.E4M3_SCALES or not dtype else "nvfp4"


def _metadata_flaws(inventory: Inventory, module: str, shape: tuple[int, int]) -> list[Flaw]:
    """The six numbers against the tensors; layers.complete reports a metadata tensor of another type or length."""
    header = inventory.header(module, METADATA)
    if header is None or header.dtype not in ITEM_BYTES or header.shape != (NUMBERS,):
        return []
    numbers = inventory.checkpoint.array(header.name).tolist()
    if numbers[2:4] == list(shape) and numbers[:2] != numbers[2:4] and 0 < numbers[0] <= shape[0]:
        message = f"{module} is padded from {numbers[:2]} to {numbers[2:4]}; its module does not load padded codes"
        return [Flaw(where=header.name, message=message, observed=numbers[2:4], expected=numbers[:2])]
    wanted = [*shape, *shape]
    if numbers[:4] != wanted or numbers[4] != 1 or numbers[5] not in (0, 1):
        message = f"{header.name} says {numbers}, the codes are of a matrix {list(shape)}"
        return [Flaw(where=header.name, message=message, observed=numbers, expected=[*wanted, 1, 1])]
    return []


def _layout(dense: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    """The tensors of one layer [out, in]."""
    if len(shape) != MATRIX:
        return ()
    module = dense.removesuffix(".weight")
    rows, packed = shape[0], math.ceil(shape[1] / 2)
    count = rows * math.ceil(shape[1] / int(attributes.get("group_size", 16)))
    kind = str(attributes.get("metadata_dtype", "I64"))
    return (
        ExpectedTensor(
            name=f"{module}.{VALUES}", dtype="U8", shape=(rows, packed), nbytes=rows * packed, companion=False
        ),
        ExpectedTensor(
            name=f"{module}.{SCALES}",
            dtype=str(attributes.get("scale_dtype", "F8_E4M3")),
            shape=(count,),
            nbytes=count,
        ),
        ExpectedTensor(name=f"{module}.{AMAX}", dtype="F32", shape=(1,), nbytes=4),
        ExpectedTensor(name=f"{module}.{METADATA}", dtype=kind, shape=(NUMBERS,), nbytes=NUMBERS * ITEM_BYTES[kind]),
    )


def _decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    from checker.methods._float_numbers import decode_fouroversix

    rule = shared.scale_rule(checkpoint.config or {}, weight.module)
    return decode_fouroversix(checkpoint, weight, window, rule)


register_method(
    Method(
        id="fouroversix",
        quant_method="fouroversix",
        documentation=__doc__ or "",
        keys=shared.KEYS,
        open_keys=True,
        declares=_declares,
        declared=shared.declared,
        recognise=_recognise,
        layout=_layout,
        skips=shared.skips,
        entry_matches=shared.entry_matches,
        planner=shared.planner,
        stored_dense=shared.stored_dense,
        activations=lambda _: True,
        decode=_decode,
        config_class="transformers.FourOverSixConfig",
        limits={
            "weights.error.R": Limit(warn=1.3, fail=2.0),
            "outputs.modules.error_activations": Limit(warn=0.2, fail=0.4),
            "weights.error.gain": Limit(fail=0.04),
            "weights.codes.extreme": Limit(warn=0.5, fail=0.05),
        },
    )
)
