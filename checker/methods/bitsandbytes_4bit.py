"""bitsandbytes 4-bit: NF4 or FP4 codes in blocks of 64, with or without double quantization (arXiv:2305.14314).

Stored per layer (``Linear4bit``, bitsandbytes/nn/modules.py): ``weight``, two codes to a byte, high nibble first,
viewed in any storage dtype as [bytes, 1]; ``weight.absmax``, one scale a block; ``weight.quant_map``, the code book;
and ``weight.quant_state.bitsandbytes__nf4`` (or ``__fp4``), a JSON blob with block size, dense dtype and dense shape.
Double quantization stores absmax in 8 bit: nested_quant_map[u8] · nested_absmax[block of 256] + nested_offset.

The library's kernels do not use the stored code book (``dequantize_4bit`` and ``gemm_4bit`` know the type), so weights
are decoded with the canonical one and the stored one must equal it. bitsandbytes trusts every number of the blob: a
wrong shape makes its CPU kernel read out of bounds. All are validated here before anything is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from checker.checkpoint import Checkpoint
from checker.domain import Json
from checker.facts import ExpectedTensor, StoredWeight
from checker.inventory import Inventory
from checker.methods import bitsandbytes_config as shared
from checker.methods.bitsandbytes_state import ITEM_BYTES, find_weights, read_weight
from checker.registry import LoadedWeight, Method, register_method

if TYPE_CHECKING:
    from checker.coded import CodedWeight, Window

BLOB_LIMIT = 1024  # bytes; a real one has 80 to 180


def _declares(config: Mapping[str, Json]) -> bool:
    """Both flags set count as 4-bit, as in transformers; config.keys then says that they contradict each other."""
    return shared.is_bitsandbytes(config) and bool(config.get("load_in_4bit") or not config.get("load_in_8bit"))


def _declared(config: Mapping[str, Json]) -> dict[str, Json]:
    return {
        "bits": 4,
        "quant_type": config.get("bnb_4bit_quant_type", "fp4"),
        "double_quantization": bool(config.get("bnb_4bit_use_double_quant", False)),
        "block_size": 64,
        "storage": shared.STORAGE.get(str(config.get("bnb_4bit_quant_storage") or "uint8"), "U8"),
    }


def _recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    return tuple(read_weight(inventory.checkpoint, weight, _layout) for weight in find_weights(inventory))


def _layout(weight: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    """The tensors of one layer whose dense weight has ``shape`` (any orientation: only the size counts)."""
    count = math.prod(shape)
    blocks = math.ceil(count / attributes["block_size"])
    packed = math.ceil(count / 2)
    items = math.ceil(packed / ITEM_BYTES[attributes["storage"]])
    expected = [
        _tensor(weight, attributes["storage"], (items, 1), companion=False),
        _tensor(f"{weight}.quant_map", "F32", (16,)),
        ExpectedTensor(
            name=f"{weight}.quant_state.bitsandbytes__{attributes['quant_type']}",
            dtype="U8",
            shape=None,
            nbytes=None,
            max_bytes=BLOB_LIMIT,
        ),
    ]
    if attributes["double_quantization"]:
        groups = math.ceil(blocks / attributes.get("nested_block_size", 256))
        return (
            *expected,
            _tensor(f"{weight}.absmax", "U8", (blocks,)),
            _tensor(f"{weight}.nested_absmax", "F32", (groups,)),
            _tensor(f"{weight}.nested_quant_map", "F32", (256,)),
        )
    return (*expected, _tensor(f"{weight}.absmax", "F32", (blocks,)))


def _tensor(name: str, dtype: str, shape: tuple[int, ...], *, companion: bool = True) -> ExpectedTensor:
    nbytes = math.prod(shape) * ITEM_BYTES[dtype]
    return ExpectedTensor(name=name, dtype=dtype, shape=shape, nbytes=nbytes, companion=companion)


def _decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    from checker.methods._bitsandbytes_numbers import decode_4bit

    return decode_4bit(checkpoint, weight, window)


def _inspect_module(module: Any) -> LoadedWeight | None:
    import bitsandbytes as bnb

    if not isinstance(module, bnb.nn.Linear4bit):
        return None
    state = getattr(module.weight, "quant_state", None)
    if state is None:  # class replaced, weight never quantized: is_quantized says nothing about this
        return None
    tensors = [state.absmax, state.code]
    nested = getattr(state, "state2", None)  # gone once a CPU forward has repacked the weight
    if nested is not None:
        tensors += [nested.absmax, nested.code, state.offset]
    return LoadedWeight(
        weight_dtype=str(module.weight.dtype).removeprefix("torch."),
        compute_dtype=str(module.compute_dtype).removeprefix("torch."),
        state=tuple(tensor for tensor in tensors if tensor is not None),
    )


register_method(
    Method(
        id="bitsandbytes-4bit",
        quant_method="bitsandbytes",
        documentation=__doc__ or "",
        keys=shared.KEYS,
        declares=_declares,
        declared=_declared,
        recognise=_recognise,
        layout=_layout,
        skips=shared.skips,
        contradictions=shared.contradictions,
        decode=_decode,
        inspect_module=_inspect_module,
        config_class=shared.CONFIG_CLASS,
        quantizes_here=True,
    )
)
