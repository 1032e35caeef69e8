"""Integers packed into 32-bit words, by their headers: what GPTQ, AWQ and AutoRound store and of which sizes.

Two ways to pack: along the inputs (GPTQ, AutoRound's own: ``qweight`` [in · bits / 32, out]) and along the outputs
(AWQ's gemm: ``qweight`` [in, out · bits / 32]). Both have ``scales`` [groups, out] and ``qzeros`` [groups, out · bits
/ 32]. Source: gptqmodel/nn_modules/qlinear/__init__.py, awq/modules/linear/*.py of AutoAWQ.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from checker.checkpoint import TensorHeader
from checker.domain import Json
from checker.facts import ExpectedTensor
from checker.inventory import Inventory

WORD = 32  # bits
WIDTHS = (4, 8, 2, 3, 5, 6, 7)  # bits of a code, the most usual first
USUAL_GROUPS = (128, 64, 32, 16, 256, 512, 1024)
ITEM_BYTES = {"I32": 4, "I16": 2, "F16": 2, "BF16": 2, "F32": 4}
SCALE_DTYPES = ("F16", "BF16")
MATRIX = 2


def words(count: int, bits: int) -> int:
    """32-bit words that ``count`` codes take."""
    return math.ceil(count * bits / WORD)


def matrix(header: TensorHeader | None) -> tuple[int, int] | None:
    """The shape of a matrix without an empty side; None for anything else."""
    if header is None or len(header.shape) != MATRIX or min(header.shape) < 1:
        return None
    return header.shape[0], header.shape[1]


def tensor(name: str, dtype: str, shape: tuple[int, ...], *, packed: bool = False) -> ExpectedTensor:
    """One tensor of a layout, with its bytes."""
    nbytes = math.prod(shape) * ITEM_BYTES.get(dtype, 1)
    return ExpectedTensor(name=name, dtype=dtype, shape=shape, nbytes=nbytes, companion=not packed)


def bias(module: str, outputs: int, attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    """The bias of a packed layer where there is one; some tools store zeros for a layer that has none."""
    dtype = attributes.get("bias")
    if dtype not in ITEM_BYTES:
        return ()
    return (ExpectedTensor(name=f"{module}.bias", dtype=dtype, shape=(outputs,), nbytes=outputs * ITEM_BYTES[dtype],
                           optional=True),)  # fmt: skip


def group_count(inputs: int, group_size: int) -> int:
    """Groups along the inputs; -1 stands for one group of all."""
    return 1 if group_size < 1 else math.ceil(inputs / group_size)


def stored_group_size(inputs: int, groups: int, declared: Json) -> int:
    """The group size that a number of groups means: the declared one if it fits, else the most likely one.

    Where groups are partial or there is but one, several sizes give the same number of groups, and shapes cannot tell
    them apart.
    """
    if isinstance(declared, int) and not isinstance(declared, bool) and (declared == -1 or declared > 0):
        wanted = inputs if declared == -1 else declared
        if math.ceil(inputs / wanted) == groups:
            return declared
    if inputs % groups == 0:
        return inputs // groups
    fitting = (size for size in USUAL_GROUPS if math.ceil(inputs / size) == groups)
    return next(fitting, math.ceil(inputs / groups))


@functools.lru_cache(maxsize=4096)
def widths(count: int, stored: int) -> frozenset[int]:
    """Bits a code may have, if ``count`` codes take ``stored`` words."""
    return frozenset(bits for bits in WIDTHS if words(count, bits) == stored)


def choose_width(candidates: Iterable[frozenset[int]], declared: Json) -> int:
    """The bits that all evidence allows; if it contradicts itself, in its order; the declared bits break a tie."""
    left = frozenset(WIDTHS)
    for found in candidates:
        left = left & found or left
    if isinstance(declared, int) and declared in left:
        return declared
    return next(bits for bits in WIDTHS if bits in left)


def scale_dtype(inventory: Inventory, modules: Iterable[str], suffix: str = "scales") -> str:
    """The type that most layers keep their scales in, of those that the tools write; F16 where none does."""
    headers = (inventory.header(module, suffix) for module in modules)
    count = Counter(header.dtype for header in headers if header is not None and header.dtype in SCALE_DTYPES)
    return count.most_common(1)[0][0] if count else SCALE_DTYPES[0]


def bias_dtype(inventory: Inventory, module: str) -> str | None:
    """The type of a packed layer's bias, None where none is stored."""
    header = inventory.header(module, "bias")
    return header.dtype if header is not None and header.dtype in ITEM_BYTES else None


def along_inputs_layout(
    weight: str, shape: tuple[int, ...], attributes: Mapping[str, Any]
) -> tuple[ExpectedTensor, ...]:
    """The tensors of one layer packed along the inputs, for a dense weight [out, in]."""
    module = weight.removesuffix(".weight")
    if len(shape) != MATRIX:
        return (tensor(f"{module}.qweight", "I32", (0, 0), packed=True),)
    outputs, inputs = shape
    bits = int(attributes.get("bits", 4))
    groups = group_count(inputs, int(attributes.get("group_size", -1)))
    order = (tensor(f"{module}.g_idx", "I32", (inputs,)),) if attributes.get("g_idx", True) else ()
    return (
        tensor(f"{module}.qweight", "I32", (words(inputs, bits), outputs), packed=True),
        tensor(f"{module}.qzeros", "I32", (groups, words(outputs, bits))),
        tensor(f"{module}.scales", attributes.get("scale_dtype", "F16"), (groups, outputs)),
        *order,
        *bias(module, outputs, attributes),
    )
