"""MLX's tensors, and the bits and group size behind shapes that allow several."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from checker.checkpoint import TensorHeader
from checker.domain import Json
from checker.facts import ExpectedTensor, Flaw, StoredWeight
from checker.inventory import Inventory

BITS = (1, 2, 3, 4, 5, 6, 8)
MODES = ("affine", "mxfp4", "mxfp8", "nvfp4")
MICROSCALED = {128: ("mxfp4", 4, 32), 256: ("mxfp8", 8, 32), 64: ("nvfp4", 4, 16)}  # bits · group -> mode, bits, group
FLOATS = {"F16": 2, "BF16": 2, "F32": 4}
SMALLEST_GROUP = 8
USUAL_GROUPS = (32, 64, 128)
WORD = 32  # bits
MATRIX, STACK = 2, 3  # dimensions
MOST_EXPERTS = 4096

Setting = tuple[str, int, int]  # mode, bits, group size


def recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    """U32 weights with scales; when one has them, or the config declares the method, those without as well."""
    scaled = {module: None for module in inventory.modules("scales") if _is_packed(inventory.header(module, "weight"))}
    if scaled or inventory.config is not None:
        named = inventory.modules("weight")
        scaled |= {module: None for module in named if _is_packed(inventory.header(module, "weight"))}
    if not scaled:
        return ()
    group = _Group(inventory, list(scaled))
    return tuple(group.weight(module) for module in scaled)


def _is_packed(header: TensorHeader | None) -> bool:
    return header is not None and header.dtype == "U32" and len(header.shape) in (MATRIX, STACK) and all(header.shape)


class _Group:
    """All packed weights of a file: together they tell what each alone leaves open."""

    def __init__(self, inventory: Inventory, modules: list[str]) -> None:
        self._inventory = inventory
        config = inventory.config or {}
        self._declared = {name: item for name, item in config.items() if isinstance(item, Mapping)} | {"": config}
        self._biases = "qbiases" if inventory.modules("qbiases") else "biases"
        self._widths = {inventory.tensors[f"{module}.weight"].shape[-2] for module in modules}
        self._votes: Counter[Setting] = Counter()
        lengths = Counter(header.shape[0] for header in inventory.tensors.values() if len(header.shape) == 1)
        self._widths |= set(lengths)
        width = lengths.most_common(1)[0][0] if lengths else 0  # of norms: the model's own, which most layers take in
        for module in modules:
            for setting in self._fitting(module):
                self._votes[setting] += 1 + (self._inputs(module, setting) == width)
        counts = Counter(
            header.dtype
            for module in modules
            if (header := inventory.header(module, "scales")) is not None and header.dtype in (*FLOATS, "U8")
        )
        self._usual = counts.most_common(1)[0][0] if counts else "BF16"

    def _candidates(self, module: str) -> list[Setting]:
        """Settings that the shapes of weight and scales allow."""
        scales = self._inventory.header(module, "scales")
        weight = self._inventory.tensors[f"{module}.weight"]
        if scales is None or not scales.shape or not scales.shape[-1] or WORD * weight.shape[-1] % scales.shape[-1]:
            return []
        product = WORD * weight.shape[-1] // scales.shape[-1]
        if scales.dtype == "U8":
            return [MICROSCALED[product]] if product in MICROSCALED else []
        return [
            ("affine", bits, product // bits)
            for bits in BITS
            if product % bits == 0 and product // bits >= SMALLEST_GROUP
        ]

    def _fitting(self, module: str) -> list[Setting]:
        """Those that give a number of inputs which is a width of something else in the file."""
        return [item for item in self._candidates(module) if self._inputs(module, item) in self._widths]

    def _inputs(self, module: str, setting: Setting) -> int:
        return WORD * self._inventory.tensors[f"{module}.weight"].shape[-1] // setting[1]

    def _setting(self, module: str) -> tuple[Setting, bool]:
        """The setting of one weight, and whether its shapes allow any.

        Of those that fit, the one that fits most weights of the file; what the config says settles a draw, and what it
        says of this very layer is taken if it fits.
        """
        own = self._declared.get(module, self._declared[""])
        said = (str(own.get("mode", "affine")), own.get("bits", 4), own.get("group_size", 64))
        for choice in (self._fitting(module), self._candidates(module)):
            if said in choice and module in self._declared:
                return said, True
            if choice:
                return max(choice, key=lambda item: (self._votes[item], item == said, item[2] in USUAL_GROUPS)), True
        good = said[0] in MODES and said[1] in BITS and isinstance(said[2], int) and said[2] > 0
        return (said if good else ("affine", 4, 64)), False

    def weight(self, module: str) -> StoredWeight:
        """One weight as it is stored."""
        weight = self._inventory.tensors[f"{module}.weight"]
        (mode, bits, group), possible = self._setting(module)
        scales = self._inventory.header(module, "scales")
        flaws = []
        inputs = WORD * weight.shape[-1] // bits
        if scales is not None and not possible:
            message = f"{module}.scales {list(scales.shape)} cannot belong to {module}.weight {list(weight.shape)}"
            flaws.append(Flaw(where=f"{module}.scales", message=message, hint="quantize the layer again"))
        shape = (*weight.shape[:-1], inputs)
        attributes: dict[str, Json] = {
            "bits": bits,
            "group_size": group,
            "mode": mode,
            "scale_dtype": self._usual if (self._usual == "U8") == (mode != "affine") else None,
            "biases": self._biases,
        }
        return StoredWeight(
            module=module,
            weight=f"{module}.weight",
            shape=shape,
            attributes=attributes,
            expected=layout(f"{module}.weight", shape, attributes),
            flaws=tuple(flaws),
            dense_parts=_expert_parts(module, shape),
            grain=(1, 0),
        )


def _expert_parts(module: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    """The single experts' weights that mlx-lm stacks: ``mlp.switch_mlp.gate_proj`` of ``mlp.experts.3.gate_proj``."""
    parent, _, last = module.rpartition(".")
    if len(shape) != STACK or not parent.endswith("switch_mlp") or shape[0] > MOST_EXPERTS:
        return ()
    experts = f"{parent.removesuffix('switch_mlp')}experts"
    return tuple(f"{experts}.{expert}.{last}.weight" for expert in range(shape[0]))


def layout(weight: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    """The tensors of one layer, or of a stack of experts."""
    return tuple(_tensors(weight, shape, attributes))


def _tensors(weight: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> Iterator[ExpectedTensor]:
    bits, group = int(attributes.get("bits", 4)), max(1, int(attributes.get("group_size", 64)))
    affine = attributes.get("mode", "affine") == "affine"
    dtype = str(attributes.get("scale_dtype") or "BF16") if affine else "U8"
    module = weight.removesuffix(".weight")
    packed = (*shape[:-1], math.ceil(shape[-1] * bits / WORD))
    yield ExpectedTensor(name=weight, dtype="U32", shape=packed, nbytes=4 * math.prod(packed), companion=False)
    scales = (*shape[:-1], shape[-1] // group)
    nbytes = math.prod(scales) * FLOATS.get(dtype, 1)
    for part in ("scales", str(attributes.get("biases", "biases")))[: 2 if affine else 1]:
        yield ExpectedTensor(name=f"{module}.{part}", dtype=dtype, shape=scales, nbytes=nbytes)
