"""What both bitsandbytes methods share: the keys of their ``quantization_config`` and where skip lists stand.

Source: ``BitsAndBytesConfig`` in transformers/utils/quantization_config.py (5.23.0). transformers ignores unknown keys
with at most a log line and then quantizes to something else; here they are mistakes.
"""

from __future__ import annotations

from collections.abc import Mapping

from checker.config_values import Domain, boolean, names_or_none, number, one_of
from checker.domain import Json

DTYPES = ("float32", "float16", "bfloat16")
STORAGE = {"uint8": "U8", "int8": "I8", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}

KEYS: Mapping[str, Domain] = {
    "quant_method": one_of("bitsandbytes"),
    "load_in_4bit": boolean,
    "load_in_8bit": boolean,
    "_load_in_4bit": boolean,
    "_load_in_8bit": boolean,
    "llm_int8_threshold": number,
    "llm_int8_skip_modules": names_or_none,
    "llm_int8_enable_fp32_cpu_offload": boolean,
    "llm_int8_has_fp16_weight": boolean,
    "bnb_4bit_compute_dtype": one_of(*DTYPES, "auto", None),
    "bnb_4bit_quant_type": one_of("fp4", "nf4"),
    "bnb_4bit_use_double_quant": boolean,
    "bnb_4bit_quant_storage": one_of(*STORAGE, None),
}

CONFIG_CLASS = "transformers.BitsAndBytesConfig"


def is_bitsandbytes(config: Mapping[str, Json]) -> bool:
    """Whether transformers would take the config for bitsandbytes; older ones name no ``quant_method``."""
    flags = config.get("load_in_4bit") or config.get("load_in_8bit")
    return bool(config.get("quant_method") == "bitsandbytes" or ("quant_method" not in config and flags))


def contradictions(config: Mapping[str, Json]) -> list[tuple[str, str]]:
    """The method is named and exactly one of the two flags set; transformers takes an empty config for 4-bit fp4."""
    if "quant_method" not in config:
        return [
            ("quant_method", "quant_method is missing; other loaders than transformers would load the model as dense")
        ]
    four, eight = bool(config.get("load_in_4bit")), bool(config.get("load_in_8bit"))
    if four and eight:
        return [("load_in_8bit", "load_in_4bit and load_in_8bit are both true; keep one")]
    if not four and not eight:
        return [("load_in_4bit", "neither load_in_4bit nor load_in_8bit is true; transformers would fall back to fp4")]
    if config.get("llm_int8_has_fp16_weight"):
        return [("llm_int8_has_fp16_weight", "llm_int8_has_fp16_weight keeps the weights in 16 bit; set it to false")]
    return []


def skips(config: Mapping[str, Json]) -> tuple[str, ...] | None:
    """The skip list; None stands for transformers' default (tied weights and the output head)."""
    listed = config.get("llm_int8_skip_modules")
    return tuple(str(name) for name in listed) if isinstance(listed, list) else None
