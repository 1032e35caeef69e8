"""The quantization state of a bitsandbytes 4-bit weight, read from a file that may lie.

``QuantState.from_dict`` (bitsandbytes/functional.py) takes the JSON blob at its word: dtype by ``getattr(torch, …)``,
any shape, any block size. Every value is checked here, and the weight is judged by the tensors that a layout of that
shape must have.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from checker.checkpoint import Checkpoint, TensorHeader
from checker.domain import Json
from checker.facts import ExpectedTensor, Flaw, StoredWeight
from checker.inventory import Inventory

Layout = Callable[[str, tuple[int, ...], Mapping[str, Any]], tuple[ExpectedTensor, ...]]
ITEM_BYTES = {"U8": 1, "I8": 1, "F16": 2, "BF16": 2, "F32": 4, "F64": 8}
BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
DENSE_DTYPES = ("float16", "bfloat16", "float32")
LARGEST_DIMENSION = 1 << 31
LARGEST_FLOAT = 3.4e38  # of 32 bit; NaN compares false, and an integer of a thousand digits does not overflow
MOST_DIMENSIONS = 3

_COMPANIONS = frozenset(["absmax", "quant_map", "nested_absmax", "nested_quant_map"])
_BLOB = "bitsandbytes__"
_COMPANION = re.compile(
    r"(?P<weight>.+\.weight)\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.bitsandbytes__\w+)"
)


def find_weights(inventory: Inventory) -> list[str]:
    """Names of the packed weights, in file order: whatever has a companion, and byte columns that have lost theirs."""
    found: dict[str, None] = {}
    suspects = [f"{module}.weight" for module in inventory.modules("weight")]
    columns = {
        name
        for name in suspects
        if inventory.tensors[name].dtype in ("U8", "I8") and inventory.tensors[name].shape[1:] == (1,)
    }
    marked = any(suffix in _COMPANIONS or suffix.startswith(_BLOB) for suffix in inventory.suffixes)
    if not marked and not columns:
        return []
    for name in inventory.tensors:
        match = _COMPANION.fullmatch(name)
        if match:
            found[match["weight"]] = None
        elif name in columns:
            found[name] = None
    return list(found)


def read_weight(checkpoint: Checkpoint, weight: str, layout: Layout) -> StoredWeight:
    """Everything that headers and blob tell about one packed weight, with every flaw found on the way."""
    flaws: list[Flaw] = []
    state = _read_state(checkpoint, weight, flaws)
    header = checkpoint.tensors.get(weight)
    nested = f"{weight}.nested_absmax" in checkpoint.tensors or "nested_blocksize" in state
    attributes = {
        "bits": 4,
        "quant_type": state.get("quant_type") or _type_by_name(checkpoint.tensors, weight) or "nf4",
        "block_size": state.get("blocksize", 64),
        "double_quantization": nested,
        "storage": header.dtype if header and header.dtype in ITEM_BYTES else "U8",
    }
    if nested:
        attributes["nested_block_size"] = state.get("nested_blocksize", 256)
        attributes["nested_offset"] = state.get("nested_offset", 0.0)
    if "dtype" in state:
        attributes["dense_dtype"] = state["dtype"]
    shape = tuple(state["shape"]) if "shape" in state else None
    expected = layout(weight, shape, attributes) if shape else _without_shape(layout, weight, header, attributes)
    return StoredWeight(
        module=weight.removesuffix(".weight"),
        weight=weight,
        shape=shape,
        attributes=attributes,
        expected=expected,
        flaws=tuple(flaws),
        grid=(1, math.prod(shape)) if shape else (0, 0),  # blocks run on from row to row
        grain=(1, int(attributes["block_size"])),
    )


def _without_shape(
    layout: Layout, weight: str, header: TensorHeader | None, attributes: Mapping[str, Any]
) -> tuple[ExpectedTensor, ...]:
    """Without a state the dense size still follows from the packed bytes, if those are there."""
    return layout(weight, (2 * header.nbytes,) if header else (0,), attributes)


def _type_by_name(tensors: Iterable[str], weight: str) -> str | None:
    prefix = f"{weight}.quant_state.bitsandbytes__"
    return next((kind for kind in ("nf4", "fp4") if prefix + kind in tensors), None)


def _read_state(checkpoint: Checkpoint, weight: str, flaws: list[Flaw]) -> dict[str, Json]:
    """The validated part of the JSON blob; what is wrong with the rest goes to ``flaws``."""
    prefix = f"{weight}.quant_state.bitsandbytes__"
    names = [name for kind in ("nf4", "fp4") if (name := prefix + kind) in checkpoint.tensors]
    if not names:
        names = [name for name in checkpoint.tensors if name.startswith(prefix)]
    if not names:
        return {}  # the layout expects the blob, so its absence is reported as a missing companion
    name = names[0]
    if len(names) > 1:
        flaws.append(Flaw(where=weight, message=f"{weight} has {len(names)} quantization states: {', '.join(names)}"))
    try:
        state = json.loads(bytes(checkpoint.read(name)).decode("utf-8")) if _small(checkpoint, name) else None
    except (ValueError, RecursionError):
        state = None
    if not isinstance(state, dict):
        flaws.append(
            Flaw(
                where=name, message=f"the quantization state {name} is no JSON object", hint="quantize the layer again"
            )
        )
        return {}
    return _valid_items(state, name, name.removeprefix(prefix), flaws)


def _small(checkpoint: Checkpoint, name: str) -> bool:
    return checkpoint.tensors[name].nbytes <= 1 << 16


def _valid_items(state: dict[str, Json], name: str, named_type: str, flaws: list[Flaw]) -> dict[str, Json]:
    """Keep what is valid; one flaw for each key that is not, is missing, unknown or contradicted by the name."""
    keys = ["quant_type", "blocksize", "dtype", "shape"]
    if any(key.startswith("nested_") for key in state):
        keys += ["nested_blocksize", "nested_dtype", "nested_offset"]
    good = {}
    for key in keys:
        if key in state and _VALID[key](state[key]):
            good[key] = state[key]
        else:
            seen = repr(state[key])[:80] if key in state else "missing"
            flaws.append(_state_flaw(name, f"{key} of the quantization state {name} is {seen}", expected=_MEANING[key]))
    unknown = sorted(state.keys() - _VALID.keys())
    flaws += [_state_flaw(name, f"the quantization state {name} has the unknown key {key[:60]!r}") for key in unknown]
    if good.get("quant_type", named_type) != named_type:
        message = f"the quantization state {name} says quant_type {good['quant_type']}, its name says {named_type}"
        flaws.append(_state_flaw(name, message, expected=named_type))
    return good


def _state_flaw(name: str, message: str, expected: Json = None) -> Flaw:
    hint = "bitsandbytes' kernels take this value unchecked; quantize the layer again and save it with save_pretrained"
    return Flaw(where=name, message=message.replace("\n", " "), expected=expected, hint=hint)


def _is_dimension(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < LARGEST_DIMENSION


def _is_block_size(value: Json) -> bool:
    return not isinstance(value, bool) and value in BLOCK_SIZES


def _is_offset(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_FLOAT


_VALID: dict[str, Callable[[Json], bool]] = {
    "quant_type": lambda value: value in ("nf4", "fp4"),
    "blocksize": _is_block_size,
    "dtype": lambda value: value in DENSE_DTYPES,
    "shape": lambda value: (
        isinstance(value, list) and 0 < len(value) <= MOST_DIMENSIONS and all(map(_is_dimension, value))
    ),
    "nested_blocksize": _is_block_size,
    "nested_dtype": lambda value: value == "float32",
    "nested_offset": _is_offset,
}
_MEANING: dict[str, Json] = {
    "quant_type": "nf4 or fp4",
    "blocksize": "a power of two from 32 to 4096",
    "dtype": "float16, bfloat16 or float32",
    "shape": "a list of positive integers",
    "nested_blocksize": "a power of two from 32 to 4096",
    "nested_dtype": "float32",
    "nested_offset": "a finite number",
}
