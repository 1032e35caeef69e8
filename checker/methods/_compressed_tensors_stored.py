"""What the headers of a checkpoint tell about its compressed-tensors weights, each value checked before it is used."""

from __future__ import annotations

import math
from typing import Any

from checker.checkpoint import TensorHeader
from checker.domain import Json
from checker.facts import Flaw, StoredWeight
from checker.inventory import Inventory
from checker.methods._compressed_tensors_layout import FLOATS, WORD, layout, scale_dtypes, strategy_of
from checker.methods._compressed_tensors_plan import Plan
from checker.methods._compressed_tensors_scheme import (
    FLOAT,
    INT,
    MXFP4,
    MXFP6,
    MXFP8,
    NAIVE,
    NVFP4,
    PACKED,
    Scheme,
)

MATRIX = 2
LARGEST_DIMENSION = 1 << 31
_BITS_BY_FREQUENCY = (4, 8, 2, 3, 6, 5, 7, 1)
_CALIBRATED = tuple(
    f"{side}_{part}" for side in ("input", "output") for part in ("scale", "zero_point", "global_scale")
)
_CACHE = tuple(f"{side}_{part}" for side in "qkv" for part in ("scale", "zero_point"))
REPAIR = "quantize the layer again; its tensors do not belong together"


class Reader:
    """Reads the weights of one checkpoint; a config that declares this method settles what headers leave open."""

    def __init__(self, inventory: Inventory) -> None:
        """Note what the whole checkpoint has: a companion that no weight has is a lie of the config, not a loss."""
        self.inventory = inventory
        self.plan = Plan(inventory.config) if inventory.config is not None else None
        self._suffixes = frozenset(inventory.suffixes)
        self._calibrated = tuple(part for part in _CALIBRATED if part in self._suffixes)
        self._rotated = bool(_transforms(inventory.config))

    def read(self, module: str) -> StoredWeight:
        """One weight, with every flaw that its headers and small tensors show."""
        role = "embedding" if "embed" in module.rpartition(".")[2] else "linear"
        scheme = self.plan.scheme((module,), role) if self.plan is not None else None
        flaws: list[Flaw] = []
        shape, attributes = self._form(module, scheme, flaws)
        scale = self.inventory.header(module, "weight_scale")
        found = scale.shape if scale is not None else None
        stored = str(attributes["format"])
        kind = FLOAT if attributes["type"] == "float" and stored == NAIVE else stored
        attributes |= strategy_of(found, shape, scheme, kind)
        if scale is not None and scale.dtype in scale_dtypes(stored):
            attributes["scale_dtype"] = scale.dtype
        if found in ((), (1, 1)):
            attributes["scalar_shape"] = list(found or ())
        self._zero_point(module, scheme, attributes)
        if stored == PACKED:
            self._order(module, scheme, attributes, shape, flaws)
        attributes["extras"] = self._extras(module, scheme)
        dense = f"{module}.weight"
        expected = layout(dense, shape, attributes)
        packed = next(part for part in expected if not part.companion)
        header = self.inventory.tensors.get(packed.name)
        if header is not None and stored == PACKED and header.dtype == packed.dtype and header.shape != packed.shape:
            flaws.append(_misfit(module, shape, header))
        if not all(shape):
            flaws.append(Flaw(where=packed.name, message=f"{packed.name} holds no matrix", hint=REPAIR))
        block = attributes.get("block_structure")
        return StoredWeight(
            module=module,
            weight=packed.name,
            shape=shape,
            attributes=attributes,
            expected=expected,
            flaws=tuple(flaws),
            dense=dense,
            grain=(block[0], block[1]) if isinstance(block, list) else (1, 0),
            incomparable="its weights are rotated (transform_config)" if self._rotated else "",
        )

    def _form(self, module: str, scheme: Scheme | None, flaws: list[Flaw]) -> tuple[tuple[int, int], dict[str, Json]]:
        """Dense shape, format, type and bits."""
        packed = self.inventory.header(module, "weight_packed")
        if packed is not None and packed.dtype == "U8":
            return self._four_bit_floats(module, packed, scheme)
        if packed is not None or self.inventory.header(module, "weight") is None:
            return self._words(module, packed, scheme, flaws)
        weight = self.inventory.tensors[f"{module}.weight"]
        shape = (weight.shape[0], weight.shape[1]) if len(weight.shape) == MATRIX else (0, 0)
        if weight.dtype == "I8":
            bits = scheme.bits if scheme is not None and scheme.type == "int" else 8  # fewer bits have a byte each, too
            return shape, {"format": _alike(scheme, INT, (NAIVE,)), "type": "int", "bits": bits}
        scale = self.inventory.header(module, "weight_scale")
        if scale is not None and scale.dtype in scale_dtypes(MXFP8):
            return shape, {"format": MXFP8, "type": "float", "bits": 8}
        return shape, {"format": _alike(scheme, FLOAT, (NAIVE,)), "type": "float", "bits": 8}

    def _four_bit_floats(
        self, module: str, packed: TensorHeader, scheme: Scheme | None
    ) -> tuple[tuple[int, int], dict[str, Json]]:
        """NVFP4 has a global scale and 8-bit floats for scales; MXFP4 and MXFP6 differ in the bytes of a group."""
        rows, width = packed.shape if len(packed.shape) == MATRIX else (0, 0)
        scale = self.inventory.header(module, "weight_scale")
        groups = scale.shape[1] if scale is not None and len(scale.shape) == MATRIX else 0
        stored = MXFP4
        if self.inventory.header(module, "weight_global_scale") or (scale is not None and scale.dtype == "F8_E4M3"):
            stored = NVFP4
        elif scale is None and scheme is not None and scheme.format in (NVFP4, MXFP4, MXFP6):
            stored = scheme.format
        elif groups and width == 24 * groups:  # bytes: 32 values of 6 bits
            stored = MXFP6
        columns = width * 4 // 3 if stored == MXFP6 else width * 2
        return (rows, columns), {"format": stored, "type": "float", "bits": 6 if stored == MXFP6 else 4}

    def _words(
        self, module: str, packed: TensorHeader | None, scheme: Scheme | None, flaws: list[Flaw]
    ) -> tuple[tuple[int, int], dict[str, Json]]:
        """Integers in 32-bit words: the shape is stored, the width follows from both."""
        header = self.inventory.header(module, "weight_shape")
        attributes: dict[str, Json] = {"format": PACKED, "type": "int"}
        shape = self._stored_shape(module, header, flaws)
        if header is not None and header.dtype in ("I32", "I64"):
            attributes["shape_dtype"] = header.dtype
        size = packed.shape if packed is not None and len(packed.shape) == MATRIX else (0, 0)
        declared = scheme.bits if scheme is not None else 4
        if shape is None:
            shape = (size[0], size[1] * WORD // max(declared, 1))
        fitting = [bits for bits in (declared, *_BITS_BY_FREQUENCY) if math.ceil(shape[1] * bits / WORD) == size[1]]
        return shape, {**attributes, "bits": fitting[0] if fitting else declared}

    def _stored_shape(self, module: str, header: TensorHeader | None, flaws: list[Flaw]) -> tuple[int, int] | None:
        if header is None or header.dtype not in ("I32", "I64") or header.shape != (MATRIX,):
            return None
        name = f"{module}.weight_shape"
        values = self.inventory.checkpoint.read(name).view("<i8" if header.dtype == "I64" else "<i4")
        rows, columns = int(values[0]), int(values[1])
        if 0 < rows < LARGEST_DIMENSION and 0 < columns < LARGEST_DIMENSION:
            return rows, columns
        flaws.append(Flaw(where=name, message=f"{name} says [{rows}, {columns}], which is no shape", hint=REPAIR))
        return None

    def _zero_point(self, module: str, scheme: Scheme | None, attributes: dict[str, Json]) -> None:
        """Whether there are zero points; those of a symmetric scheme are written by some versions, and all zero."""
        header = self.inventory.header(module, "weight_zero_point")
        symmetric = header is None
        if header is None and scheme is not None and not scheme.symmetric and "weight_zero_point" in self._suffixes:
            symmetric = False  # this one has lost its own
        if header is not None:
            attributes["zero_point"] = header.dtype if header.dtype in ("I8", "I32", "F8_E4M3") else "I32"
            if scheme is not None and scheme.symmetric and header.dtype == "I8":
                symmetric = not self.inventory.checkpoint.read(f"{module}.weight_zero_point").any()
        attributes["symmetric"] = symmetric

    def _order(
        self,
        module: str,
        scheme: Scheme | None,
        attributes: dict[str, Json],
        shape: tuple[int, int],
        flaws: list[Flaw],
    ) -> None:
        """Activation order: the group of each column; every group must have its share of them."""
        header = self.inventory.header(module, "weight_g_idx")
        lost = scheme is not None and scheme.act_order and "weight_g_idx" in self._suffixes
        attributes["act_order"] = header is not None or lost
        if header is None or header.dtype != "I32" or header.shape != (shape[1],):
            return
        name = f"{module}.weight_g_idx"
        import numpy as np

        groups = self.inventory.checkpoint.read(name).view("<i4")
        size = attributes.get("group_size")
        if (groups == -1).any():  # never set: the library takes the columns as they come
            return
        good = (
            isinstance(size, int) and groups.min(initial=0) >= 0 and groups.max(initial=0) < math.ceil(shape[1] / size)
        )
        if not good or not (np.bincount(groups) == size).all():
            text = f"{name} does not divide {shape[1]} columns into groups of {size}"
            flaws.append(Flaw(where=name, message=text, hint=REPAIR))

    def _extras(self, module: str, scheme: Scheme | None) -> list[Json]:
        """What calibration stored beside the weight: scales of activations, and of the key and value cache."""
        wanted = {f"{module}.{part}": part for part in (*scheme.inputs, *scheme.outputs)} if scheme is not None else {}
        for part in self._calibrated:
            if f"{module}.{part}" in self.inventory.tensors:
                wanted[f"{module}.{part}"] = part
        parent, _, last = module.rpartition(".")
        if last in ("k_proj", "v_proj", "q_proj"):
            for part in _CACHE:
                name = f"{parent}.{part}"
                due = self.plan is not None and self.plan.kv_cache and part in ("k_scale", "v_scale")
                own = f"{module}.output_scale" in self.inventory.tensors  # where older versions put it
                if part[0] == last[0] and (name in self.inventory.tensors or (due and not own)):
                    wanted[name] = part
        return [self._extra(name, part) for name, part in wanted.items()]

    def _extra(self, name: str, part: str) -> list[Json]:
        header = self.inventory.tensors.get(name)
        kinds = ("I8", "F8_E4M3") if part.endswith("zero_point") else ("F32",) if "global" in part else FLOATS
        if header is None:
            return [name, kinds[0], [1]]
        return [name, header.dtype if header.dtype in kinds else kinds[0], list(header.shape)]


def _alike(scheme: Scheme | None, usual: str, others: tuple[str, ...]) -> str:
    """Formats that store the same tensors: the declared one of them."""
    return scheme.format if scheme is not None and scheme.format in others else usual


def _misfit(module: str, shape: tuple[int, int], header: TensorHeader) -> Flaw:
    text = f"{module}.weight_shape says {list(shape)}, which does not fit {module}.weight_packed {list(header.shape)}"
    return Flaw(where=f"{module}.weight_shape", message=text, hint=REPAIR)


def _transforms(config: Any) -> Any:
    transform = config.get("transform_config") if config is not None else None
    return transform.get("config_groups") if isinstance(transform, dict) else None
