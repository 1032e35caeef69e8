"""SpQR: 3-bit weights in tiles of 16 × 16 with quantized scales, outliers in a sparse matrix (arXiv:2306.03078).

Stored per layer (``QuantizedLinear``, spqr_quant/inference.py 0.2.0): ``dense_weights`` I64, one 64-bit word a row of a
tile: scale, zero point and 16 weights of 3 bits, 8 bits of the tile's second order; ``row_offsets`` and ``col_vals``,
I32, the outliers in compressed sparse rows (16-bit column and half float a word), or interleaved by 16 rows
(``ptcsr``); ``in_perm`` I32, two 16-bit columns a word, where inputs are permuted. Their lengths stand in the config
under ``shapes``.

The kernels take offsets and columns unchecked; all are validated here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from checker.config_values import Domain, modules_to_not_convert, names_or_none, one_of
from checker.domain import Json
from checker.facts import ExpectedTensor, Flaw, StoredWeight
from checker.inventory import Inventory
from checker.methods._parts import READ_REMOTELY, as_found, part, size
from checker.registry import Method, register_method

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

TILE, BITS = 16, 3
PARTS = ("dense_weights", "row_offsets", "col_vals", "in_perm")
OFFSETS_READ = 1 << 20  # bytes of row offsets that are read also from a Hub repository: they tell the shape
HINT = "the kernels take this unchecked; quantize the layer again"


def _shapes(value: Json) -> str | None:
    good = isinstance(value, Mapping) and all(size(item, 0) is not None for item in value.values())
    return None if good else f"must map tensors to their lengths, not {repr(value)[:100]}"


KEYS: Mapping[str, Domain] = {
    "quant_method": one_of("spqr"),
    "bits": one_of(BITS),
    "beta1": one_of(TILE),
    "beta2": one_of(TILE),
    "shapes": _shapes,
    "modules_to_not_convert": names_or_none,
}


def _declares(config: Mapping[str, Json]) -> bool:
    return config.get("quant_method") == "spqr"


def _declared(config: Mapping[str, Json]) -> dict[str, Json]:
    return {"bits": config.get("bits", BITS)}


def _recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    modules = dict.fromkeys(inventory.modules("dense_weights"))
    modules.update(dict.fromkeys(inventory.modules("col_vals")))
    return tuple(_read(inventory, module) for module in modules)


def _read(inventory: Inventory, module: str) -> StoredWeight:
    header = inventory.header(module, "dense_weights")
    offsets = _integers(inventory, module, "row_offsets")
    interleaved = offsets is not None and bool(offsets.any()) and not (offsets % TILE).any()
    shape = _dense_shape(inventory, module, interleaved=interleaved)
    if shape is None and interleaved:
        interleaved = False
        shape = _dense_shape(inventory, module, interleaved=False)
    attributes: dict[str, Json] = {"bits": BITS, "storage": "ptcsr" if interleaved else "csr"}
    permuted = inventory.header(module, "in_perm") is not None
    if permuted:
        attributes["permuted"] = True
    else:
        attributes["columns_rounded_to"] = TILE  # only whole tiles are stored
    dense = f"{module}.weight"
    flaws = [*_said_otherwise(inventory, module)]
    if shape is not None and offsets is not None:
        flaws += _outlier_flaws(inventory, module, offsets, shape[1])
        flaws += _permutation_flaws(inventory, module, shape[1])
    return StoredWeight(
        module=module,
        weight=f"{module}.dense_weights",
        dense=dense,
        shape=shape,
        attributes=attributes,
        expected=_layout(dense, shape, attributes) if shape else (as_found(f"{module}.dense_weights", header),),
        flaws=tuple(flaws),
    )


def _integers(inventory: Inventory, module: str, suffix: str) -> npt.NDArray[np.int64] | None:
    """The numbers of an int32 tensor, None where they are absent, of another type, or far away and many."""
    import numpy as np

    header = inventory.header(module, suffix)
    if header is None or header.dtype != "I32" or len(header.shape) != 1 or not header.shape[0]:
        return None
    if inventory.checkpoint.remote and header.nbytes > (OFFSETS_READ if suffix == "row_offsets" else READ_REMOTELY):
        return None
    return inventory.checkpoint.array(header.name).astype(np.int64)


def _dense_shape(inventory: Inventory, module: str, *, interleaved: bool) -> tuple[int, int] | None:
    """Rows by the offsets, columns by the permutation or, in whole tiles, by the number of words."""
    header, offsets = inventory.header(module, "dense_weights"), inventory.header(module, "row_offsets")
    order = inventory.header(module, "in_perm")
    if header is None or len(header.shape) != 1 or offsets is None or not offsets.shape or offsets.shape[0] < 2:  # noqa: PLR2004
        return None
    rows = (offsets.shape[0] - 1) * (TILE if interleaved else 1)
    tiles, rest = divmod(header.shape[0], TILE * math.ceil(rows / TILE))
    if order is not None and len(order.shape) == 1 and order.shape[0]:
        return rows, order.shape[0] * 2
    return None if rest or not tiles else (rows, tiles * TILE)


def _said_otherwise(inventory: Inventory, module: str) -> Iterator[Flaw]:
    """``shapes`` of the config against the tensors; an empty tensor may be left out of the file."""
    shapes = (inventory.config or {}).get("shapes")
    for suffix in PARTS if isinstance(shapes, Mapping) else ():
        header = inventory.header(module, suffix)
        stored = header.shape[0] if header is not None and header.shape else 0
        said = shapes.get(f"{module}.{suffix}.shape") if isinstance(shapes, Mapping) else None
        if said is None or (said != stored and (header is not None or suffix == "in_perm")):
            name = f"{module}.{suffix}"
            message = f"the config says {name} has {'no known length' if said is None else said}, it has {stored:,}"
            yield Flaw(where=name, message=message, observed=stored, expected=said, hint="restore the right config")


def _outlier_flaws(inventory: Inventory, module: str, offsets: npt.NDArray[np.int64], columns: int) -> Iterator[Flaw]:
    import numpy as np

    name = f"{module}.row_offsets"
    words = _integers(inventory, module, "col_vals")
    count = words.size if words is not None else None
    if offsets[0] != 0 or (np.diff(offsets) < 0).any():
        yield Flaw(where=name, message=f"{name} does not rise from 0", hint=HINT)
    elif count is not None and offsets[-1] != count:
        message = f"{name} ends at {int(offsets[-1]):,}, there are {count:,} outliers"
        yield Flaw(where=name, message=message, observed=int(offsets[-1]), expected=count, hint=HINT)
    if words is None:
        return
    largest = int((words & 0xFFFF).max())
    if largest >= columns:
        name = f"{module}.col_vals"
        message = f"{name} names column {largest:,} of {columns:,}"
        yield Flaw(where=name, message=message, observed=largest, expected=columns - 1, hint=HINT)
    values = (words >> 16 & 0xFFFF).astype(np.uint16).view(np.float16)
    if not np.isfinite(values).all():
        name = f"{module}.col_vals"
        yield Flaw(where=name, message=f"outliers of {name} are NaN or infinite", hint="quantize the layer again")


def _permutation_flaws(inventory: Inventory, module: str, columns: int) -> Iterator[Flaw]:
    import numpy as np

    words = _integers(inventory, module, "in_perm")
    if words is None:
        return
    order = words.astype(np.int32).view(np.uint16)
    if not np.array_equal(np.sort(order), np.arange(columns)):
        name = f"{module}.in_perm"
        yield Flaw(where=name, message=f"{name} is no permutation of {columns:,} columns", hint=HINT)


def _layout(weight: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    module = weight.removesuffix(".weight")
    rows, columns = shape[-2:]
    down, across = math.ceil(rows / TILE), math.ceil(columns / TILE)
    offsets = (down if attributes.get("storage") == "ptcsr" else rows) + 1
    expected = [
        part(f"{module}.dense_weights", "I64", (down * across * TILE,), companion=False),
        part(f"{module}.row_offsets", "I32", (offsets,)),
        ExpectedTensor(
            name=f"{module}.col_vals", dtype="I32", shape=None, nbytes=None, max_bytes=4 * TILE * TILE * down * across
        ),
    ]
    if attributes.get("permuted"):
        expected.append(part(f"{module}.in_perm", "I32", (columns // 2,)))
    return tuple(expected)


register_method(
    Method(
        id="spqr",
        quant_method="spqr",
        documentation=__doc__ or "",
        keys=KEYS,
        declares=_declares,
        declared=_declared,
        recognise=_recognise,
        layout=_layout,
        skips=modules_to_not_convert,
        not_decoded="two orders of quantized scales and a sparse matrix lie over the codes",
        from_documentation=True,
        config_class="transformers.SpQRConfig",
    )
)
