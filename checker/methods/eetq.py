"""EETQ: int8 weights with one scale an output, permuted for the kernel that multiplies them with float16 activations.

Stored per layer (transformers/integrations/eetq.py): ``weight`` I8 [in, out] and ``weight_scales`` F16 [out]. The bytes
are not in the order that the shape suggests. ``quant_weights`` (EETQ, FasterTransformer's cutlass_preprocessors.cc;
PyTorch has the same in torch/quantization/_quantized_conversions.py) takes the codes q [in, out], q = W / scale with
scale = max|W| of an output / 128, and

1. permutes each 16 inputs to 0 1 8 9 2 3 10 11 4 5 12 13 6 7 14 15,
2. transposes to [out, in],
3. interleaves two outputs in tiles of 64 inputs,
4. adds 128 and swaps the inner two of each four bytes.

Here that is undone. Layers must have a multiple of 64 inputs and outputs; EETQ refuses others. The permutation is that
for Turing, Ampere and later cards; Volta (compute capability 7.0) leaves steps 1 and 3 out, which nothing records.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from checker.checkpoint import Checkpoint, TensorHeader
from checker.config_values import Domain, modules_to_not_convert, names_or_none, one_of
from checker.domain import Json, Limit
from checker.facts import ExpectedTensor, Flaw, StoredWeight
from checker.inventory import Inventory
from checker.registry import Method, register_method

if TYPE_CHECKING:
    from checker.coded import Bytes, CodedWeight, Window

MATRIX = 2  # dimensions
TILE = 64  # inputs that lie together
PAIR = 2  # outputs that are interleaved
LARGEST_CODE = 127
ROW_ORDER = (0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15)

KEYS: Mapping[str, Domain] = {
    "quant_method": one_of("eetq"),
    "weights": one_of("int8"),
    "modules_to_not_convert": names_or_none,
}


def _declares(config: Mapping[str, Json]) -> bool:
    return config.get("quant_method") == "eetq"


def _declared(config: Mapping[str, Json]) -> dict[str, Json]:
    del config  # there is one layout
    return {"bits": 8, "storage": "I8"}


def _recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    """Int8 matrices with ``weight_scales``; when declared, also those that have lost one or the other."""
    scaled = inventory.modules("weight_scales")
    modules = {module: None for module in scaled if _is_matrix(inventory.header(module, "weight"))}
    if inventory.config is not None:
        modules |= dict.fromkeys(scaled)
        modules |= {
            module: None for module in inventory.modules("weight") if _is_matrix(inventory.header(module, "weight"))
        }
    return tuple(_read_weight(inventory, module) for module in modules)


def _is_matrix(header: TensorHeader | None) -> bool:
    return header is not None and header.dtype == "I8" and len(header.shape) == MATRIX and all(header.shape)


def _read_weight(inventory: Inventory, module: str) -> StoredWeight:
    header = inventory.header(module, "weight")
    good = header is not None and len(header.shape) == MATRIX
    shape = header.shape[::-1] if header is not None and good else None
    flaws = []
    if shape is not None and (shape[0] % TILE or shape[1] % TILE):
        message = (
            f"{module}.weight has {shape[1]} inputs and {shape[0]} outputs; the permutation works on multiples of 64"
        )
        hint = "EETQ cannot have written this; keep the layer dense"
        flaws.append(Flaw(where=f"{module}.weight", message=message, expected="multiples of 64", hint=hint))
    return StoredWeight(
        module=module,
        weight=f"{module}.weight",
        shape=shape,
        attributes={"bits": 8, "storage": header.dtype if header else "I8"},
        expected=_layout(f"{module}.weight", shape or (0, 0), {}),
        flaws=tuple(flaws),
        grain=(PAIR, 0),
    )


def _layout(weight: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    del attributes
    scales = f"{weight.removesuffix('.weight')}.weight_scales"
    return (
        ExpectedTensor(name=weight, dtype="I8", shape=shape[::-1], nbytes=math.prod(shape), companion=False),
        ExpectedTensor(name=scales, dtype="F16", shape=shape[:1], nbytes=2 * shape[0]),
    )


def _decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    import numpy as np

    from checker.code_books import integer_book
    from checker.coded import Place, Scaling, tiled

    place = Place.of(weight.grid, window)
    rows, inputs = place.rows, weight.grid[1]
    start, stop = rows.start * inputs, rows.stop * inputs
    width = weight.grid[0]  # bytes of a row as stored
    stored = checkpoint.part(weight.weight, start // width, math.ceil(stop / width)).reshape(-1).view(np.uint8)
    codes = restore(stored[start - start // width * width :][: stop - start], inputs)
    scales = checkpoint.float32(f"{weight.module}.weight_scales", rows.start, rows.stop)
    book = integer_book(8, bias=128, limit=LARGEST_CODE)
    return tiled(codes, Scaling(scales=scales[:, None]), (1, inputs), book, place)


def restore(stored: Bytes, inputs: int) -> Bytes:
    """The permutation undone. Bytes of some pairs of outputs, flat → codes + 128 [outputs, inputs]."""
    import numpy as np

    quads = stored.reshape(-1, inputs // TILE, PAIR, TILE // 4, 4)[..., [0, 2, 1, 3]]
    order = np.argsort(ROW_ORDER)
    rows = quads.reshape(-1, inputs // TILE, PAIR, TILE // 16, 16)[..., order]
    return np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(-1, inputs)


register_method(
    Method(
        id="eetq",
        quant_method="eetq",
        documentation=__doc__ or "",
        keys=KEYS,
        declares=_declares,
        declared=_declared,
        recognise=_recognise,
        layout=_layout,
        skips=modules_to_not_convert,
        decode=_decode,
        from_documentation=True,
        config_class="transformers.EetqConfig",
        limits={"weights.error.gain": Limit(fail=0.005)},
    )
)
