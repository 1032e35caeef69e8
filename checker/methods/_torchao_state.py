"""torchao's tensor subclasses in a safetensors file: which tensors belong together, and what shapes they must have.

A parameter ``x.y.weight`` is stored as ``x.y._weight_qdata``, ``x.y._weight_scale``, …; its class, block size and list
of tensors stand as JSON in the header's ``__metadata__`` under the parameter's name in the model, which is not always
that in the file (torchao/prototype/safetensors/safetensors_support.py). Everything of it is checked before it is used.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping

from checker.architecture import Architecture, architecture_of
from checker.checkpoint.header import TensorHeader
from checker.domain import Json
from checker.facts import Flaw, StoredWeight
from checker.inventory import Inventory
from checker.methods._torchao_layout import LAYOUTS, PARTS, TILE_OUT, expected_tensors

FLOATS = ("F32", "BF16", "F16")
LARGEST_ENTRY = 1 << 16  # characters of JSON; real ones have a few hundred
LARGEST_DIMENSION = 1 << 31
MOST_DIMENSIONS = 3
MOST_EXPERTS = 4096
_PART = re.compile(rf"_(.+?)_({'|'.join(PARTS)})")


def recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    """Every parameter that has a part of its own, in file order."""
    found = {suffix: match for suffix in inventory.suffixes if (match := _PART.fullmatch(suffix))}
    if not found:
        return ()
    names = dict.fromkeys((module, found[suffix][1]) for suffix in found for module in inventory.modules(suffix))
    architecture = architecture_of(inventory.checkpoint.config or {})
    packed = [_Packed(inventory, architecture, module, parameter) for module, parameter in names]
    usual = _usual_dtypes(packed)
    return tuple(item.weight(usual) for item in packed)


def _usual_dtypes(packed: list[_Packed]) -> Mapping[tuple[str, str], str]:
    """The float dtype that most weights of a class have for a part: writers differ there, one file does not."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for item in packed:
        for part, header in item.stored.items():
            if header.dtype in FLOATS:
                counts.setdefault((item.kind, part), Counter())[header.dtype] += 1
    return {key: counter.most_common(1)[0][0] for key, counter in counts.items()}


class _Packed:
    """One parameter: its stored parts and its entry in the metadata."""

    def __init__(self, inventory: Inventory, architecture: Architecture, module: str, parameter: str) -> None:
        self.prefix = f"{module}._{parameter}_"
        self.name = f"{module}.{parameter}"
        self.stored = {
            part: header for part in PARTS if (header := inventory.tensors.get(self.prefix + part)) is not None
        }
        self.flaws: list[Flaw] = []
        self.entry = self._entry(inventory, architecture, module, parameter)
        kind = self.entry.get("_type")
        self.kind = kind if isinstance(kind, str) and kind in LAYOUTS else _class_by_headers(self.stored)
        self.block = self._block()
        self.group = _declared_group(inventory.config)

    def _entry(
        self, inventory: Inventory, architecture: Architecture, module: str, parameter: str
    ) -> Mapping[str, Json]:
        metadata = inventory.checkpoint.metadata
        names = [f"{alias}.{parameter}" for alias in architecture.aliases(module)]
        raw = next((metadata[name] for name in names if name in metadata), None)
        if raw is None:
            self._fault(f"the header's __metadata__ says nothing of {self.name}; torchao cannot put it together")
            return {}
        try:
            entry = json.loads(raw) if len(raw) <= LARGEST_ENTRY else None
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict) or not isinstance(entry.get("_data", {}), dict):
            self._fault(f"the __metadata__ of {self.name} is no JSON object with _type and _data")
            return {}
        kind = entry.get("_type")
        if not isinstance(kind, str) or kind not in LAYOUTS:
            self._fault(f"the __metadata__ of {self.name} says _type {str(kind)[:60]!r}", expected=", ".join(LAYOUTS))
        return entry

    def _fault(self, message: str, expected: Json = None) -> None:
        hint = "save the quantized model again with save_pretrained, which writes tensors and metadata together"
        self.flaws.append(Flaw(where=f"{self.prefix}qdata", message=message, expected=expected, hint=hint))

    def _block(self) -> tuple[int, ...] | None:
        """The block size of the metadata; None where it does not say, or says nonsense (then a flaw)."""
        value = self.entry.get("_data", {}).get("block_size")
        if not value and value != 0 and self.kind == "Float8Tensor":
            return self._float8_block()
        if value is None and not self.entry:  # reported already
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            value = [value]
        good = isinstance(value, list) and 0 < len(value) <= MOST_DIMENSIONS and all(map(_is_dimension, value))
        if good:
            return tuple(value)
        self._fault(f"block_size in the __metadata__ of {self.name} is {str(value)[:60]}", expected="positive integers")
        return None

    def _float8_block(self) -> tuple[int, ...] | None:
        """Without a word of it, rows or the whole tensor: as many scales as there are."""
        qdata, scale = self.stored.get("qdata"), self.stored.get("scale")
        if qdata is None or not 1 <= len(qdata.shape) <= MOST_DIMENSIONS or not all(qdata.shape):
            return None
        whole = scale is not None and scale.numel == 1
        return qdata.shape if whole else (*(1 for _ in qdata.shape[:-1]), qdata.shape[-1])

    def weight(self, usual: Mapping[tuple[str, str], str]) -> StoredWeight:
        """What is stored, with the tensors that its class and block size ask for."""
        shape = self._shape()
        attributes = self._attributes(shape, usual)
        expected = tuple(expected_tensors(self.prefix, self.kind, shape or (0, 0), attributes))
        qdata = self.stored.get("qdata")
        if qdata is not None and shape is None:
            self._fault(f"{self.prefix}qdata is {qdata.dtype} {list(qdata.shape)}, which no {self.kind} can be")
        return StoredWeight(
            module=self.name.removesuffix(".weight"),
            weight=f"{self.prefix}qdata",
            shape=shape,
            attributes=attributes,
            expected=expected,
            flaws=tuple(self.flaws),
            dense=self.name,
            dense_parts=_expert_parts(self.name, shape),
            grain=_grain(self.kind, self.block),
            incomparable="its layout for Intel GPUs is known from documentation only"
            if self.kind == "Int4PlainInt32Tensor"
            else "",
        )

    def _shape(self) -> tuple[int, ...] | None:
        """The dense shape: what the metadata says where the codes alone do not tell, else from the codes."""
        data = self.entry.get("_data", {})
        said = data.get("shape")
        if said is not None and not (isinstance(said, list) and said and all(map(_is_dimension, said))):
            self._fault(f"shape in the __metadata__ of {self.name} is {str(said)[:60]}", expected="positive integers")
            said = None
        qdata = self.stored.get("qdata")
        if qdata is None:
            return tuple(said) if said else None
        if self.kind == "Int4TilePackedTo4dTensor":
            return tuple(said) if said and len(said) in (2, MOST_DIMENSIONS) else None
        shape = _unpacked(qdata, self.kind, data.get("elem_dtype"))
        if said and shape is not None and tuple(said) != shape:
            self._fault(f"the __metadata__ says that {self.name} has shape {said}, its codes have {list(shape)}")
        return shape

    def _attributes(self, shape: tuple[int, ...] | None, usual: Mapping[tuple[str, str], str]) -> dict[str, Json]:
        data = self.entry.get("_data", {})
        names = self.entry.get("_tensor_data_names")
        parts = [str(name) for name in names] if isinstance(names, list) else list(self.stored)
        attributes: dict[str, Json] = {
            "bits": _bits(self.kind, data, self.stored),
            "tensor_class": self.kind,
            "parts": [part for part in parts if part in PARTS],
            "block_size": list(self.block) if self.block else None,
            "dtypes": {part: usual[self.kind, part] for part in PARTS if (self.kind, part) in usual},
            **_granularity(self.kind, shape, self.block, self.group),
        }
        qdata = self.stored.get("qdata")
        if qdata is not None and qdata.dtype.startswith("F8"):
            attributes["quant_type"] = "float8_e5m2" if qdata.dtype == "F8_E5M2" else "float8_e4m3fn"
        elif self.kind == "MXTensor":
            attributes["quant_type"] = "float4_e2m1fn_x2"
        if self.kind in ("MXTensor", "NVFP4Tensor"):
            attributes["swizzled"] = data.get("is_swizzled_scales") is True
        scale = self.stored.get("scale")
        if scale is not None and scale.numel == 1 and len(scale.shape) < MOST_DIMENSIONS:
            attributes["scalar_shape"] = list(scale.shape)  # [1, 1], [1] or []: versions differ
        return attributes


def _expert_parts(name: str, shape: tuple[int, ...] | None) -> tuple[str, ...]:
    """The single experts' weights that one fused parameter joins, expert by expert, gate before up."""
    prefix, _, last = name.rpartition(".")
    if shape is None or len(shape) != MOST_DIMENSIONS or not prefix.endswith("experts") or shape[0] > MOST_EXPERTS:
        return ()
    parts = ("gate_proj", "up_proj") if last == "gate_up_proj" else (last,)
    return tuple(f"{prefix}.{expert}.{part}.weight" for expert in range(shape[0]) for part in parts)


def _is_dimension(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < LARGEST_DIMENSION


def _class_by_headers(stored: Mapping[str, TensorHeader]) -> str:
    """The class that the tensors alone suggest, for weights whose metadata is lost."""
    qdata, scale = stored.get("qdata"), stored.get("scale")
    if "scale_and_zero" in stored:
        return "Int4TilePackedTo4dTensor"
    if "per_tensor_scale" in stored:
        return "NVFP4Tensor"
    if scale is not None and scale.dtype == "F8_E8M0":
        return "MXTensor"
    if qdata is not None and qdata.dtype.startswith("F8"):
        return "Float8Tensor"
    return "Int8Tensor"


def _unpacked(qdata: TensorHeader, kind: str, element: Json) -> tuple[int, ...] | None:
    """The dense shape of codes that lie as the weight does, several to an item; None where that cannot be."""
    if not 1 <= len(qdata.shape) <= MOST_DIMENSIONS or not all(qdata.shape):
        return None
    four = isinstance(element, Mapping) and element.get("_data") == "float4_e2m1fn_x2"
    packed = {"Int4Tensor": 2, "NVFP4Tensor": 2, "Int4PlainInt32Tensor": 8, "MXTensor": 2 if four else 1}
    *leading, last = qdata.shape
    return (*leading, last * packed.get(kind, 1))


def _bits(kind: str, data: Mapping[str, Json], stored: Mapping[str, TensorHeader]) -> int:
    if kind == "IntxUnpackedToInt8Tensor":
        target = data.get("target_dtype")
        name = str(target.get("_data")) if isinstance(target, Mapping) else ""
        return int(name[3]) if re.fullmatch(r"int[1-8]", name) else 8
    if kind == "MXTensor":
        qdata = stored.get("qdata")
        return 4 if qdata is not None and qdata.dtype == "U8" else 8
    return 8 if kind in ("Int8Tensor", "Float8Tensor") else 4


def _granularity(
    kind: str, shape: tuple[int, ...] | None, block: tuple[int, ...] | None, group: Json
) -> dict[str, Json]:
    """One scale a row, a tensor or a group; a group as long as the row is what the config calls it."""
    if kind in ("MXTensor", "NVFP4Tensor"):
        return {"group_size": block[-1]} if block else {}
    if not shape or not block or len(block) != len(shape):
        return {}
    if block == shape and math.prod(shape[:-1]) > 1:
        return {"granularity": "tensor"}
    if any(size != 1 for size in block[:-1]):
        return {"granularity": "block"}
    if block[-1] == shape[-1] and group != block[-1] and not kind.startswith("Int4"):
        return {"granularity": "row"}
    return {"granularity": "group", "group_size": block[-1]}


def _declared_group(config: Mapping[str, Json] | None) -> Json:
    """A group size that the configuration names, to call a group of a whole row by the right word."""
    from checker.methods._torchao_config import declared

    return declared(config).get("group_size") if config is not None else None


def _grain(kind: str, block: tuple[int, ...] | None) -> tuple[int, int]:
    """Where a part of the weight may begin: at blocks; swizzled and tiled ones only as whole tiles of rows."""
    if kind in ("MXTensor", "NVFP4Tensor"):
        return (128, 0)
    if kind == "Int4TilePackedTo4dTensor":
        return (TILE_OUT, 0)
    return (block[-2] if block and len(block) > 1 else 1, 0)
