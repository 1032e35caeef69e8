"""What methods without a decoder share: rows of a layout, and a look at numbers that must at least be numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator

from checker.checkpoint import TensorHeader
from checker.domain import Json
from checker.facts import ExpectedTensor, Flaw
from checker.inventory import Inventory

ITEM_BYTES = {"U8": 1, "I8": 1, "F16": 2, "BF16": 2, "I16": 2, "I32": 4, "F32": 4, "I64": 8}
FLOATS = ("F16", "BF16", "F32")
LARGEST_DIMENSION = 1 << 31
READ_REMOTELY = 1 << 16  # bytes; larger tensors are looked at only where they lie on this machine


def part(
    name: str, dtype: str, shape: tuple[int, ...], *, companion: bool = True, optional: bool = False
) -> ExpectedTensor:
    """One row of a layout, its size exact."""
    nbytes = math.prod(shape) * ITEM_BYTES[dtype]
    return ExpectedTensor(name=name, dtype=dtype, shape=shape, nbytes=nbytes, companion=companion, optional=optional)


def as_found(name: str, header: TensorHeader | None) -> ExpectedTensor:
    """The packed weight where nothing says what it should be: as it lies there, or missing."""
    if header is None:
        return part(name, "I32", (0,), companion=False)
    return ExpectedTensor(name=name, dtype=header.dtype, shape=header.shape, nbytes=header.nbytes, companion=False)


def float_dtype(header: TensorHeader | None, usual: str = "F16") -> str:
    """The floating-point type that a tensor has; ``usual`` where it is absent or of another kind."""
    return header.dtype if header is not None and header.dtype in FLOATS else usual


def size(value: Json, least: int = 1) -> int | None:
    """A number that can be a dimension, or None."""
    if isinstance(value, int) and not isinstance(value, bool) and least <= value < LARGEST_DIMENSION:
        return value
    return None


def is_size(value: Json) -> str | None:
    """A domain: a positive integer."""
    return None if size(value) is not None else f"must be a positive integer, not {repr(value)[:100]}"


def number_flaws(inventory: Inventory, *names: str, zeros: bool = False) -> Iterator[Flaw]:
    """Floating-point tensors whose numbers are not all finite, or all zero (unless ``zeros``)."""
    for name in names:
        header = inventory.tensors.get(name)
        if header is None or header.dtype not in FLOATS or not header.nbytes:
            continue
        if inventory.checkpoint.remote and header.nbytes > READ_REMOTELY:
            continue
        yield from _of_values(inventory, header, zeros=zeros)


def _of_values(inventory: Inventory, header: TensorHeader, *, zeros: bool) -> Iterator[Flaw]:
    import numpy as np

    values = inventory.checkpoint.float32(header.name)
    wrong = int(np.count_nonzero(~np.isfinite(values)))
    hint = "the tensor was damaged or never written; quantize the layer again"
    if wrong:
        message = f"{wrong:,} of the {values.size:,} numbers of {header.name} are NaN or infinite"
        yield Flaw(where=header.name, message=message, observed=wrong, expected=0, hint=hint)
    elif not zeros and not values.any():
        message = f"all {values.size:,} numbers of {header.name} are zero"
        yield Flaw(where=header.name, message=message, observed=0, hint=hint)
