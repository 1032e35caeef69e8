"""Gemma's quantized releases: integers of 2, 4 or 8 bits with one scale a row, embeddings as well, static activations.

Stored per linear layer (``QuantizedLinear``, transformers/integrations/gemma_quant.py 5.23.0): ``weight`` I8 [out, in],
or U8 [out, in / 2] and [out, in / 4], low bits first, minus 8 and minus 2; ``weight_scale`` F32 [out, 1];
``input_activation_scale`` and ``output_activation_scale`` F32 [], 0 where the layer was not calibrated. An embedding:
``embedding_quantized`` in the same packing, ``embedding_scale`` F32 [rows, blocks of a row].

Codes of 2 and 4 bits are stored alike: which they are stands only in the config, and shows in the width of the model.
No packer is published, so that it is not known how far healthy weights lie from a baseline's: they are not compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from checker.checkpoint import Checkpoint
from checker.domain import Json
from checker.facts import ExpectedTensor, Flaw, StoredWeight
from checker.inventory import Inventory
from checker.methods import _gemma_config as config_of
from checker.methods._parts import as_found, number_flaws, part
from checker.registry import Method, register_method

if TYPE_CHECKING:
    from checker.coded import CodedWeight, Window

MATRIX = 2
INCOMPARABLE = "no packer of this layout is published, so that healthy distances from a baseline are not known"
_SCALES = ("input_activation_scale", "output_activation_scale")


def _recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    """By the scales of activations, which no other method calls so; with the config by the scale of the rows."""
    layers = dict.fromkeys(inventory.modules(*_SCALES))
    if inventory.config is not None:
        layers.update(dict.fromkeys(inventory.modules("weight_scale")))
    tables = inventory.modules("embedding_quantized", "embedding_scale")
    if not layers and not tables:
        return ()
    bits = config_of.Bits(inventory.config or {})
    found = [_read(inventory, module, "weight", "weight_scale", bits) for module in layers]
    found += [_read(inventory, module, "embedding_quantized", "embedding_scale", bits) for module in tables]
    return tuple(found)


def _read(inventory: Inventory, module: str, codes: str, scale: str, bits: config_of.Bits) -> StoredWeight:
    header, scales = inventory.header(module, codes), inventory.header(module, scale)
    asked = bits.of(module)
    stored = 8 if header is not None and header.dtype == "I8" else 4
    if header is not None and header.dtype == "U8" and asked == 2:  # noqa: PLR2004 - bits
        stored = 2
    if header is None:
        stored = asked or 4
    blocks = scales.shape[1] if scales is not None and len(scales.shape) == MATRIX and scales.shape[1] else 1
    attributes: dict[str, Json] = {"bits": stored}
    if codes != "weight":
        attributes |= {"embedding": True, "blocks": blocks}
    elif inventory.header(module, _SCALES[0]) is not None or inventory.header(module, _SCALES[1]) is not None:
        attributes["activation_scales"] = True
    shape = None
    if header is not None and len(header.shape) == MATRIX and 0 not in header.shape:
        shape = (header.shape[0], header.shape[1] * 8 // stored)
    dense = f"{module}.weight"
    name = f"{module}.{codes}"
    return StoredWeight(
        module=module,
        weight=name,
        dense=dense,
        shape=shape,
        attributes=attributes,
        expected=_layout(dense, shape, attributes) if shape else (as_found(name, header),),
        flaws=tuple(_activation_flaws(inventory, module)),
        incomparable=INCOMPARABLE,
    )


def _activation_flaws(inventory: Inventory, module: str) -> list[Flaw]:
    """One number each; loaders take them as they are, and NaN makes every output NaN."""
    return [flaw for name in _SCALES for flaw in number_flaws(inventory, f"{module}.{name}", zeros=True)]


def _layout(weight: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    module, bits = weight.removesuffix(".weight"), attributes.get("bits")
    bits = bits if isinstance(bits, int) and bits in config_of.BITS else 4
    rows, columns = shape[-2:]
    dtype = "I8" if bits == 8 else "U8"  # noqa: PLR2004 - bits
    packed = (rows, -(-columns * bits // 8))
    if attributes.get("embedding"):
        blocks = int(attributes.get("blocks") or 1)
        return (
            part(f"{module}.embedding_quantized", dtype, packed, companion=False),
            part(f"{module}.embedding_scale", "F32", (rows, blocks)),
        )
    expected = [part(weight, dtype, packed, companion=False), part(f"{module}.weight_scale", "F32", (rows, 1))]
    if attributes.get("activation_scales", True):
        expected += [part(f"{module}.{name}", "F32", ()) for name in _SCALES]
    return tuple(expected)


def _decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    from checker.methods._gemma_numbers import decode

    return decode(checkpoint, weight, window)


register_method(
    Method(
        id="gemma",
        quant_method="gemma",
        documentation=__doc__ or "",
        keys=config_of.KEYS,
        declares=config_of.is_gemma,
        declared=config_of.declared,
        recognise=_recognise,
        layout=_layout,
        skips=config_of.skips,
        planner=config_of.planner,
        ties_quantized=True,
        activations=lambda _: True,
        decode=_decode,
        from_documentation=True,
        config_class="transformers.GemmaQuantizationConfig",
    )
)
