"""One scheme of compressed-tensors: how the weights and activations of a group of modules are quantized.

Source: ``QuantizationArgs`` and ``QuantizationScheme`` in compressed_tensors/quantization (0.20), which refuse unknown
keys; ``infer_module_format`` in compressed_tensors/compressors/format.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from checker.config_values import Domain, boolean, did_you_mean, one_of
from checker.domain import Json

PACKED = "pack-quantized"
NVFP4, MXFP4, MXFP6, MXFP8 = "nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp6-pack-quantized", "mxfp8-quantized"
INT, FLOAT, NAIVE, DENSE, MIXED = "int-quantized", "float-quantized", "naive-quantized", "dense", "mixed-precision"
SPARSE = ("marlin-24", "sparse-24-bitmask", "sparse-bitmask")
FORMATS = (PACKED, INT, FLOAT, NAIVE, NVFP4, MXFP4, MXFP6, MXFP8, MIXED, DENSE)
STRATEGIES = ("tensor", "channel", "group", "block", "token", "tensor_group", "attn_head")
_BITS = {"int": range(1, 17), "float": (4, 6, 8, 16)}  # more than a format can hold: activations
LARGEST_GROUP = 1 << 20


def anything(value: Json) -> str | None:
    """Any value: the key says nothing that could be checked here."""
    del value
    return None


_ARGUMENTS: Mapping[str, Domain] = {
    "num_bits": anything,
    "type": lambda value: one_of("int", "float")(value.lower() if isinstance(value, str) else value),
    "symmetric": boolean,
    "group_size": anything,
    "strategy": lambda value: one_of(*STRATEGIES, None)(value.lower() if isinstance(value, str) else value),
    "block_structure": anything,
    "dynamic": one_of(True, False, "local"),
    "actorder": anything,
    "scale_dtype": anything,
    "zp_dtype": anything,
    "observer": anything,
    "observer_kwargs": anything,
    "is_mse": anything,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """How one group's weights are quantized, every value checked; ``group_size`` 0 and ``block`` () where unused."""

    format: str
    bits: int
    type: str
    symmetric: bool
    strategy: str
    group_size: int = 0
    block: tuple[int, ...] = ()
    act_order: bool = False
    inputs: tuple[str, ...] = ()  # companions that calibrated activations store: "input_scale", …
    outputs: tuple[str, ...] = ()

    def declared(self) -> dict[str, Json]:
        """The attributes that stored weights must agree with."""
        found: dict[str, Json] = {
            "format": self.format,
            "bits": self.bits,
            "type": self.type,
            "symmetric": self.symmetric,
            "strategy": self.strategy,
        }
        if self.group_size:
            found["group_size"] = self.group_size
        if self.block:
            found["block_structure"] = list(self.block)
        if self.format == PACKED:
            found["act_order"] = self.act_order
        return found


def scheme_of(group: Any, default_format: str) -> Scheme | None:
    """The scheme of one config group; None when it leaves weights alone or is no valid one (``scheme_flaws`` says)."""
    weights = group.get("weights") if isinstance(group, Mapping) else None
    if not isinstance(weights, Mapping) or any(argument_flaws("", weights)):
        return None
    kind = str(weights.get("type", "int")).lower()
    bits, size = int(weights.get("num_bits", 8)), weights.get("group_size")
    strategy = _strategy(weights)
    own = group.get("format")
    named = own if isinstance(own, str) and own in FORMATS else default_format
    inputs = group.get("input_activations")
    return Scheme(
        format=named if named not in (MIXED, "") else _infer_format(kind, bits, size, weights, has_inputs=bool(inputs)),
        bits=bits,
        type=kind,
        symmetric=bool(weights.get("symmetric", True)),
        strategy=strategy,
        group_size=int(size or 0) if strategy in ("group", "tensor_group") else 0,
        block=tuple(_block(weights.get("block_structure"))) if strategy == "block" else (),
        act_order=weights.get("actorder") in ("group", "dynamic", True),
        inputs=_calibrated("input", inputs),
        outputs=_calibrated("output", group.get("output_activations")),
    )


def _strategy(weights: Mapping[str, Any]) -> str:
    """The strategy, inferred from the group size where it is left out (``QuantizationArgs.validate_model_after``)."""
    size = weights.get("group_size")
    given = weights.get("strategy")
    return given.lower() if isinstance(given, str) else "tensor" if size is None else "group" if size > 0 else "channel"


def _block(value: Any) -> list[int]:
    """Rows and columns of a block; older configs write "128x128"."""
    parts = value.split("x") if isinstance(value, str) else value
    good = isinstance(parts, list) and len(parts) == 2 and all(str(part).isdecimal() for part in parts)  # noqa: PLR2004
    sizes = [int(str(part)[:8]) for part in parts] if good else []
    return sizes if all(0 < size <= LARGEST_GROUP for size in sizes) else []


def _infer_format(kind: str, bits: int, size: Any, weights: Mapping[str, Any], *, has_inputs: bool) -> str:
    """``infer_module_format`` in compressed_tensors/compressors/format.py."""
    if kind == "float":
        small = {4: NVFP4 if size == 16 else MXFP4, 6: MXFP6}  # noqa: PLR2004 - the group of NVFP4
        if bits in small:
            return small[bits]
        if size == 32 and "uint8" in str(weights.get("scale_dtype")):  # noqa: PLR2004 - the group of MXFP8
            return MXFP8
        return FLOAT if has_inputs else NAIVE
    return INT if has_inputs else PACKED


def _calibrated(side: str, arguments: Any) -> tuple[str, ...]:
    """The tensors that hold what was calibrated for activations; none where they are scaled as they come."""
    if not isinstance(arguments, Mapping) or arguments.get("dynamic") is True:
        return ()
    shared = (f"{side}_global_scale",) if arguments.get("strategy") == "tensor_group" else ()
    if arguments.get("dynamic") == "local":
        return shared
    zero = () if arguments.get("symmetric", True) else (f"{side}_zero_point",)
    return (*shared, f"{side}_scale", *zero)


def unknown_keys(place: str, given: Mapping[str, Any], known: Any) -> Iterator[tuple[str, str]]:
    """Keys that the library refuses, with the nearest that it knows."""
    for key in given:
        if key not in known:
            shown = key[:60] if key.isprintable() else ascii(key)[:60]
            yield f"{place}.{shown}", f"{place} has the unknown key {shown!r}{did_you_mean(key, known)}; it is refused"


def argument_flaws(place: str, arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every value that ``QuantizationArgs`` refuses."""
    yield from unknown_keys(place, arguments, _ARGUMENTS)
    for key, domain in _ARGUMENTS.items():
        if key in arguments and (wrong := domain(arguments[key])) is not None:
            yield f"{place}.{key}", f"{place}.{key} {wrong}"
    kind, bits = str(arguments.get("type", "int")).lower(), arguments.get("num_bits", 8)
    if isinstance(bits, bool) or bits not in _BITS.get(kind, ()):
        yield f"{place}.num_bits", f"{place}.num_bits is {str(bits)[:40]!r}; {kind[:20]} takes {_listed(kind)}"
    size = arguments.get("group_size")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or not -1 <= size <= LARGEST_GROUP):
        yield f"{place}.group_size", f"{place}.group_size is {str(size)[:40]!r}; it takes -1 or a number above 0"
        return
    strategy = arguments.get("strategy")
    if strategy in ("group", "tensor_group") and (size is None or size <= 0):
        yield f"{place}.group_size", f"{place}.group_size is {size}, but the strategy is {strategy}"
    if size == 0 and strategy is None:
        yield f"{place}.group_size", f"{place}.group_size is 0"
    if strategy == "block" and not _block(arguments.get("block_structure")):
        yield f"{place}.block_structure", f"{place}.block_structure must be two numbers above 0"


def _listed(kind: str) -> str:
    return ", ".join(map(str, _BITS.get(kind, ()))) or "no bits"
