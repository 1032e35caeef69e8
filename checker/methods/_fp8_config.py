"""The ``quantization_config`` of fp8 and mxfp8: its keys, what it declares, and what it keeps dense.

Source: ``FineGrainedFP8Config`` in transformers/utils/quantization_config.py (5.23.0). Without ``weight_block_size`` it
takes blocks of 128 × 128; null means one scale a weight. DeepSeek writes ``fmt``, MiniMax ``ignored_layers``.
"""

from __future__ import annotations

from collections.abc import Mapping

from checker.config_values import Domain, boolean, names_or_none, one_of
from checker.domain import Json
from checker.methods._fp8_layout import FP4_GROUP, Block
from checker.registry import Intent, Planner

USUAL_BLOCK: Block = (128, 128)
UNDECLARED: Block = (128, 128)  # tried first where no config says anything
BEYOND = ("eh_proj", "head", "embed_tokens")  # of layers for predicting further tokens, which transformers leaves out
CONFIG_CLASS = "transformers.FineGrainedFP8Config"


def block_or_none(value: Json) -> str | None:
    """Null, or two positive whole numbers."""
    good = value is None or (
        isinstance(value, list)
        and len(value) == 2  # noqa: PLR2004 - rows and columns
        and all(isinstance(item, int) and not isinstance(item, bool) and 0 < item < 1 << 31 for item in value)
    )
    return None if good else f"must be null or two positive whole numbers, not {repr(value)[:200]}"


def keys(quant_method: str) -> Mapping[str, Domain]:
    """The keys that transformers reads, and those that publishers add."""
    return {
        "quant_method": one_of(quant_method),
        "activation_scheme": one_of("dynamic", "static"),
        "weight_block_size": block_or_none,
        "dequantize": boolean,
        "modules_to_not_convert": names_or_none,
        "ignored_layers": names_or_none,
        "modules_to_convert": names_or_none,
        "scale_fmt": one_of("float", "ue8m0"),
        "expert_dtype": one_of("fp8", "fp4"),
        "fmt": one_of("e4m3", "float8_e4m3fn"),
    }


def declared_block(config: Mapping[str, Json]) -> Block | None:
    """The block size; None for one scale a weight. What cannot be one counts as not given (config.keys reports it)."""
    value = config.get("weight_block_size", list(USUAL_BLOCK))
    if value is None:
        return None
    return (value[0], value[1]) if block_or_none(value) is None else USUAL_BLOCK


def powers_declared(config: Mapping[str, Json]) -> bool:
    """Whether scales are said to be powers of two."""
    return config.get("scale_fmt") == "ue8m0"


def embeddings(config: Mapping[str, Json]) -> tuple[str, ...]:
    """Ends of the names of embedding tables that are converted as well."""
    listed = config.get("modules_to_convert")
    return tuple(name for name in listed if isinstance(name, str) and name) if isinstance(listed, list) else ()


def declared(config: Mapping[str, Json]) -> dict[str, Json]:
    """What holds for every linear layer."""
    block = declared_block(config)
    found: dict[str, Json] = {
        "bits": 8,
        "quant_type": "e4m3",
        "block_size": list(block) if block else None,
        "activation_scheme": config.get("activation_scheme", "dynamic"),
    }
    if "scale_fmt" in config:
        found["scale_fmt"] = config["scale_fmt"]
    return found


def skips(config: Mapping[str, Json]) -> tuple[str, ...] | None:
    """The skip list; None stands for transformers' default (tied weights and the output head)."""
    listed = config.get("modules_to_not_convert")
    if listed is None:
        listed = config.get("ignored_layers")
    return tuple(str(name) for name in listed) if isinstance(listed, list) else None


def planner(config: Mapping[str, Json]) -> Planner:
    """Experts in fp4, converted embedding tables; layers that transformers leaves out may be stored either way."""
    usual = declared(config)
    experts = {**usual, "bits": 4, "quant_type": "e2m1", "block_size": [1, FP4_GROUP]}
    tables, four = embeddings(config), config.get("expert_dtype") == "fp4"

    def plan(names: tuple[str, ...], role: str) -> Intent:
        if role == "expert" and four:
            return Intent(attributes=experts)
        if role == "embedding" and tables and any(name.endswith(tables) for name in names):
            attributes = {"bits": 8, "quant_type": "e4m3", "block_size": None}
            return Intent(quantized=True, attributes=attributes)
        if ".layers." in names[0] and names[0].rpartition(".")[2] in BEYOND:
            return Intent(open=True, attributes=usual)
        return Intent()

    return plan
