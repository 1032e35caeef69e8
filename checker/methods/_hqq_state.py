"""The settings that HQQ stores with every layer as small tensors, read from a file that may lie.

``HQQLinear.load_state_dict`` (hqq/core/quantize.py) takes them at their word and ``eval``s the dtype's name; here each
is checked, and the weight is judged by the tensors that such settings ask for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from checker.checkpoint import Checkpoint
from checker.domain import Json
from checker.facts import ExpectedTensor, Flaw, StoredWeight
from checker.inventory import Inventory

PACKINGS = {
    "8bit_u8": (1, "U8"),
    "4bit_u8": (2, "U8"),
    "3bit_32": (10, "I32"),
    "2bit_u8": (4, "U8"),
    "1bit_u8": (8, "U8"),
}
PACKING_OF = {
    8: "8bit_u8",
    6: "8bit_u8",
    5: "8bit_u8",
    4: "4bit_u8",
    3: "3bit_32",
    2: "2bit_u8",
    1.58: "2bit_u8",
    1: "1bit_u8",
}
DTYPES = {"torch.float16": "F16", "torch.bfloat16": "BF16", "torch.float32": "F32"}
VIEWS = {"U8": "torch.uint8", "I32": "torch.int32"}
ITEM_BYTES = {"U8": 1, "F16": 2, "BF16": 2, "F32": 4, "I32": 4}
NUMBERS = ("nbits", "group_size", "axis")  # I32 scalars
FLAGS = (
    "channel_wise",
    "encoded_state_dict",
    "offload_meta",
    "optimize",
    "quant_scale",
    "quant_zero",
    "round_zero",
    "stores_quant_config",
    "view_as_float",
)  # U8 scalars
TEXTS = {"packing": 7, "compute_dtype": 14, "unpack_view_dtype": 11}  # the longest that each can be
LARGEST_DIMENSION = 1 << 31
SMALLEST_SIGN = 4  # settings beside W_q that make a layer HQQ's own: SINQ has a W_q too


def recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    """Every layer with a ``W_q`` and the settings around it; when declared, layers that have lost W_q as well."""
    modules = dict.fromkeys(inventory.modules("W_q"))
    if inventory.config is None:
        signs = ("packing", "unpack_view_dtype", "stores_quant_config", "compute_dtype", "nbits", "quant_zero")
        modules = {
            module: None
            for module in modules
            if sum(inventory.header(module, sign) is not None for sign in signs) >= SMALLEST_SIGN
        }
    else:
        modules |= dict.fromkeys(inventory.modules("packing"))
    return tuple(_read_weight(inventory, module) for module in modules)


def _read_weight(inventory: Inventory, module: str) -> StoredWeight:
    flaws: list[Flaw] = []
    state = _State(inventory.checkpoint, module, flaws)
    attributes = state.attributes()
    shape = state.shape()
    bits, axis, group = attributes["bits"], attributes["axis"], attributes["group_size"]
    count = math.prod(shape) if shape else 0
    if shape and count % group:
        flaws.append(state.flaw("group_size", f"{count} values are no multiple of group_size {group}", "a divisor"))
    groups = count // group
    grid = (group, groups) if axis == 0 else (1, count)
    return StoredWeight(
        module=module,
        weight=f"{module}.W_q",
        shape=shape,
        attributes=attributes | {"bits": int(bits) if bits == int(bits) else 2},
        expected=layout(f"{module}.weight", shape or (0, 0), attributes),
        flaws=tuple(flaws),
        dense=f"{module}.weight",
        grid=grid if shape else (0, 0),
        grain=(group, 1) if axis == 0 else (1, group),
    )


class _State:
    """The small tensors of one layer; whatever is missing or nonsense is replaced and noted as a flaw."""

    def __init__(self, checkpoint: Checkpoint, module: str, flaws: list[Flaw]) -> None:
        self._checkpoint = checkpoint
        self._module = module
        self._flaws = flaws

    def flaw(self, key: str, what: str, expected: Json) -> Flaw:
        hint = "hqq takes this value unchecked; quantize the layer again and save it with save_pretrained"
        name = f"{self._module}.{key}"
        return Flaw(where=name, message=f"{name}: {what}", expected=expected, hint=hint)

    def attributes(self) -> dict[str, Any]:
        """Settings as the layout and the config know them."""
        bits = self._bits()
        packing = self._text("packing", PACKINGS, PACKING_OF[bits])
        if packing != PACKING_OF[bits]:
            self._flaws.append(self.flaw("packing", f"{packing} does not hold {bits} bits", PACKING_OF[bits]))
            packing = PACKING_OF[bits]
        dtype = self._text("compute_dtype", DTYPES, "torch.float16")
        view = VIEWS[PACKINGS[packing][1]]
        if self._text("unpack_view_dtype", VIEWS.values(), view) != view:
            self._flaws.append(self.flaw("unpack_view_dtype", f"not what {packing} is packed in", view))
        return {
            "bits": bits,
            "group_size": self._number("group_size", 64, lambda value: 0 < value < LARGEST_DIMENSION),
            "axis": self._number("axis", 1, lambda value: value in (0, 1)),
            "view_as_float": bool(self._number("view_as_float", 0, lambda value: value in (0, 1))),
            "packing": packing,
            "compute_dtype": DTYPES[dtype],
        }

    def shape(self) -> tuple[int, ...] | None:
        """The dense shape [out, in]."""
        values = self._values("shape", "<i8", 2)
        if values is None:
            return None
        if all(0 < value < LARGEST_DIMENSION for value in values):
            return tuple(int(value) for value in values)
        self._flaws.append(self.flaw("shape", f"{values} is no shape of a matrix", "two positive integers"))
        return None

    def _bits(self) -> float:
        header = self._checkpoint.tensors.get(f"{self._module}.nbits")
        kind = "<f4" if header is not None and header.dtype == "F32" else "<i4"
        values = self._values("nbits", kind, 1)
        bits = round(float(values[0]), 2) if values else 4
        if bits in PACKING_OF:
            return bits
        self._flaws.append(self.flaw("nbits", f"{bits:g} bits are not supported", "8, 6, 5, 4, 3, 2, 1.58 or 1"))
        return 4

    def _number(self, key: str, otherwise: int, valid: Any) -> int:
        values = self._values(key, "u1" if key in FLAGS else "<i4", 1)
        if values is None:
            return otherwise
        if valid(int(values[0])):
            return int(values[0])
        self._flaws.append(self.flaw(key, f"{int(values[0])} is out of range", None))
        return otherwise

    def _text(self, key: str, allowed: Any, otherwise: str) -> str:
        header = self._checkpoint.tensors.get(f"{self._module}.{key}")
        if header is None or not 0 < header.nbytes <= TEXTS[key]:
            return otherwise  # the layout reports that it is missing or too long
        text = bytes(self._checkpoint.read(f"{self._module}.{key}")).decode("latin-1")
        if text in allowed:
            return text
        self._flaws.append(self.flaw(key, f"says {text!a}", ", ".join(allowed)))
        return otherwise

    def _values(self, key: str, kind: str, count: int) -> list[Any] | None:
        """The values of a small tensor, None when it is missing or of another size: the layout reports that."""
        name = f"{self._module}.{key}"
        header = self._checkpoint.tensors.get(name)
        if header is None or header.nbytes != count * int(kind[-1]):
            return None
        found: list[Any] = self._checkpoint.read(name).view(kind).tolist()
        return found


def layout(dense: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    """All tensors of a layer whose dense weight is called ``dense``."""
    return tuple(_tensors(dense.removesuffix(".weight"), shape, attributes))


def _tensors(module: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> Iterator[ExpectedTensor]:
    bits = attributes.get("bits", 4)
    packing = attributes.get("packing") or PACKING_OF.get(bits, "4bit_u8")
    compute = str(attributes.get("compute_dtype") or "F16")
    group, axis = max(1, int(attributes.get("group_size") or 64)), attributes.get("axis", 1)
    groups = math.prod(shape) // group
    scales = (groups, 1) if axis == 1 else (1, groups)
    yield _tensor(f"{module}.W_q", *packed_tensor(shape, group, axis, packing, compute, attributes), companion=False)
    yield _tensor(f"{module}.scale", compute, scales)
    yield _tensor(f"{module}.zero", compute, scales)
    yield _tensor(f"{module}.shape", "I64", (2,))
    for key in NUMBERS:
        yield _tensor(f"{module}.{key}", "F32" if key == "nbits" and bits == 1.58 else "I32", ())  # noqa: PLR2004
    yield from (_tensor(f"{module}.{key}", "U8", ()) for key in FLAGS)
    for key, longest in TEXTS.items():
        yield ExpectedTensor(name=f"{module}.{key}", dtype="U8", shape=None, nbytes=None, max_bytes=longest)


def _tensor(name: str, dtype: str, shape: tuple[int, ...], *, companion: bool = True) -> ExpectedTensor:
    nbytes = math.prod(shape) * (8 if dtype == "I64" else ITEM_BYTES[dtype])
    return ExpectedTensor(name=name, dtype=dtype, shape=shape, nbytes=nbytes, companion=companion)


def packed_tensor(
    shape: tuple[int, ...], group: int, axis: int, packing: str, compute: str, attributes: Mapping[str, Any]
) -> tuple[str, tuple[int, int]]:
    """Dtype and shape of W_q."""
    groups = math.prod(shape) // group
    rows, columns = (groups, group) if axis == 1 else (group, groups)
    planes, dtype = PACKINGS[packing]
    packed = math.ceil(rows / planes) if planes == 10 else rows // planes  # noqa: PLR2004 - tenths are padded
    if attributes.get("view_as_float"):
        return compute, (packed, columns * ITEM_BYTES[dtype] // ITEM_BYTES[compute])
    return dtype, (packed, columns)
