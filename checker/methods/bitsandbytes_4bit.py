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
from typing import Any

import numpy as np
import numpy.typing as npt

from checker.checkpoint import Checkpoint
from checker.coded import Bytes, CodedWeight, Float32, blocks_of, cell_variance, nibbles
from checker.domain import Json
from checker.facts import ExpectedTensor, StoredWeight
from checker.methods import bitsandbytes_config as shared
from checker.methods.bitsandbytes_state import ITEM_BYTES, find_weights, read_weight
from checker.registry import LoadedWeight, Method, register_method

# fmt: off
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)
# fmt: on
FP4 = tuple(x / 12 for x in (0, 0.0625, 8, 12, 4, 6, 2, 3, -0.0, -0.0625, -8, -12, -4, -6, -2, -3))
CODE_BOOKS = {"nf4": np.array(NF4, np.float32), "fp4": np.array(FP4, np.float32)}
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


def _recognise(checkpoint: Checkpoint) -> tuple[StoredWeight, ...]:
    return tuple(read_weight(checkpoint, module, _layout) for module in find_weights(checkpoint.tensors))


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


def _decode(checkpoint: Checkpoint, weight: StoredWeight) -> CodedWeight:
    """Codes and tables of one weight whose tensors are known to be complete and of the right size."""
    quant_type = str(weight.attributes["quant_type"])
    block_size = int(weight.attributes["block_size"])
    book = CODE_BOOKS[quant_type]
    zero = int(np.flatnonzero(book == 0)[0])
    codes = blocks_of(checkpoint.read(weight.weight), block_size // 2, zero << 4 | zero)
    pairs = nibbles(high_first=True)
    scales, flaw, scale_flaw = _absmax(checkpoint, weight)
    scales = _settle_zero_blocks(
        scales, codes, (book[pairs] == 0).all(axis=1), weight.attributes["double_quantization"]
    )
    variance = cell_variance(book)
    extreme = np.abs(book) == 1
    stored = checkpoint.float32(f"{weight.weight}.quant_map")
    if not np.array_equal(stored, book):
        flaw = f"the stored code book (quant_map) is not that of {quant_type}; kernels that read it decode otherwise"
    count = math.prod(weight.shape or ())
    return CodedWeight(
        shape=weight.shape or (),
        codes=codes,
        scales=scales,
        levels=book[pairs],
        variance=variance[pairs].sum(axis=1),
        extreme=extreme[pairs].any(axis=1),
        extreme_variance=float(variance[extreme].mean()),
        symbols=pairs,
        symbol_count=16,
        bits=4,
        padding=codes.size * 2 - count,
        code_book_flaw=flaw,
        scale_flaw=scale_flaw,
    )


def _absmax(checkpoint: Checkpoint, weight: StoredWeight) -> tuple[Float32, str, str]:
    """One scale a block, double quantization resolved; what is wrong with the nested code book, and with its scales."""
    if not weight.attributes["double_quantization"]:
        return checkpoint.float32(f"{weight.weight}.absmax"), "", ""
    codes = checkpoint.read(f"{weight.weight}.absmax")
    book = checkpoint.float32(f"{weight.weight}.nested_quant_map")
    nested = checkpoint.float32(f"{weight.weight}.nested_absmax")
    group = int(weight.attributes["nested_block_size"])
    with np.errstate(invalid="ignore", over="ignore"):  # hostile scales are reported, not warned about
        scales = book[codes] * np.repeat(nested, group)[: codes.size] + np.float32(weight.attributes["nested_offset"])
    canonical = np.allclose(book, dynamic_map(), rtol=0, atol=1e-6)
    flaw = "" if canonical else "nested_quant_map is not bitsandbytes' dynamic 8-bit code book"
    return scales, flaw, _nested_flaw(codes, nested, group)


def _nested_flaw(codes: Bytes, nested: Float32, group: int) -> str:
    """A nested scale of zero is right only where all scales of the group were equal, and so their codes are."""
    for index in np.flatnonzero(nested == 0).tolist():
        members = codes[index * group : (index + 1) * group]
        if (members != members[0]).any():
            return f"nested_absmax is zero over {members.size} scales that differ"
    return ""


def _settle_zero_blocks(scales: Float32, codes: Bytes, zero_byte: npt.NDArray[np.bool_], nested: bool) -> Float32:
    """Scales of blocks of zeros back to 0: the library puts 1e-38 there, double quantization its own rounding error.

    That error is at most half the widest gap of the 8-bit code book, 0.007, of a nested scale, which is no larger than
    the largest scale. Shapes: scales [blocks], codes [blocks, bytes per block], zero_byte [256].
    """
    finite = np.abs(scales[np.isfinite(scales)])
    bound = max(1e-37, 0.0075 * float(finite.max(initial=0)) if nested else 0)
    small = np.flatnonzero(np.abs(scales) <= bound)
    scales[small[np.take(zero_byte, codes[small]).all(axis=1)]] = 0
    return scales


def dynamic_map() -> Float32:
    """The signed dynamic 8-bit code book: 7 exponent bits, linear fractions, 0 and 1 (arXiv:1511.04561). Shape [256].

    Source: ``create_dynamic_map`` in bitsandbytes/functional.py.
    """
    values = [0.0, 1.0]
    for exponent in range(7):
        bounds = np.linspace(0.1, 1, 2**exponent + 1, dtype=np.float32)
        means = (bounds[:-1] + bounds[1:]) / 2 * np.float32(10.0 ** (exponent - 6))
        values += [*means.tolist(), *(-means).tolist()]
    return np.array(sorted(values), np.float32)


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
    )
)
