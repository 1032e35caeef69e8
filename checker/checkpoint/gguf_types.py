"""Tables of llama.cpp: the types of tensors, the recipes of whole files, and its names for the weights of a decoder.

Sources: ``enum ggml_type`` and the block structures in ggml/src/ggml-common.h; ``enum llama_ftype`` in
include/llama.h; the names in gguf-py/gguf/constants.py and tensor_mapping.py (gguf 0.19.0).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from checker.domain import Json

# ggml type -> dtype; the numbers left out belonged to types that llama.cpp has removed
TYPES: Mapping[int, str] = {
    0: "F32",
    1: "F16",
    2: "GGUF_Q4_0",
    3: "GGUF_Q4_1",
    6: "GGUF_Q5_0",
    7: "GGUF_Q5_1",
    8: "GGUF_Q8_0",
    9: "GGUF_Q8_1",
    10: "GGUF_Q2_K",
    11: "GGUF_Q3_K",
    12: "GGUF_Q4_K",
    13: "GGUF_Q5_K",
    14: "GGUF_Q6_K",
    15: "GGUF_Q8_K",
    16: "GGUF_IQ2_XXS",
    17: "GGUF_IQ2_XS",
    18: "GGUF_IQ3_XXS",
    19: "GGUF_IQ1_S",
    20: "GGUF_IQ4_NL",
    21: "GGUF_IQ3_S",
    22: "GGUF_IQ2_S",
    23: "GGUF_IQ4_XS",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "GGUF_IQ1_M",
    30: "BF16",
    34: "GGUF_TQ1_0",
    35: "GGUF_TQ2_0",
    39: "GGUF_MXFP4",
    40: "GGUF_NVFP4",
    41: "GGUF_Q1_0",
}

# dtype -> (values of a block, bytes of a block)
BLOCKS: Mapping[str, tuple[int, int]] = {
    "I8": (1, 1),
    "I16": (1, 2),
    "F16": (1, 2),
    "BF16": (1, 2),
    "I32": (1, 4),
    "F32": (1, 4),
    "I64": (1, 8),
    "F64": (1, 8),
    "GGUF_Q4_0": (32, 18),
    "GGUF_Q4_1": (32, 20),
    "GGUF_Q5_0": (32, 22),
    "GGUF_Q5_1": (32, 24),
    "GGUF_Q8_0": (32, 34),
    "GGUF_Q8_1": (32, 40),
    "GGUF_Q2_K": (256, 84),
    "GGUF_Q3_K": (256, 110),
    "GGUF_Q4_K": (256, 144),
    "GGUF_Q5_K": (256, 176),
    "GGUF_Q6_K": (256, 210),
    "GGUF_Q8_K": (256, 292),
    "GGUF_IQ1_S": (256, 50),
    "GGUF_IQ1_M": (256, 56),
    "GGUF_IQ2_XXS": (256, 66),
    "GGUF_IQ2_XS": (256, 74),
    "GGUF_IQ2_S": (256, 82),
    "GGUF_IQ3_XXS": (256, 98),
    "GGUF_IQ3_S": (256, 110),
    "GGUF_IQ4_NL": (32, 18),
    "GGUF_IQ4_XS": (256, 136),
    "GGUF_TQ1_0": (256, 54),
    "GGUF_TQ2_0": (256, 66),
    "GGUF_MXFP4": (32, 17),
    "GGUF_NVFP4": (64, 36),
    "GGUF_Q1_0": (128, 18),
}

# general.file_type -> the recipe's name as in file names
FILE_TYPES: Mapping[int, str] = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
}

_RENAMED = (
    (re.compile(r"^token_embd\."), "model.embed_tokens."),
    (re.compile(r"^output\."), "lm_head."),
    (re.compile(r"^output_norm\."), "model.norm."),
    (re.compile(r"^blk\."), "model.layers."),
    (re.compile(r"\.attn_norm\."), ".input_layernorm."),
    (re.compile(r"\.ffn_norm\."), ".post_attention_layernorm."),
    (re.compile(r"\.attn_(q|k|v)_norm\."), r".self_attn.\1_norm."),
    (re.compile(r"\.attn_(q|k|v)\."), r".self_attn.\1_proj."),
    (re.compile(r"\.attn_output\."), ".self_attn.o_proj."),
    (re.compile(r"\.ffn_gate_inp\."), ".mlp.gate."),
    (re.compile(r"\.ffn_(gate|up|down)\."), r".mlp.\1_proj."),
)
_UNNAMED = re.compile(r"_exps?\.|_shexp\.|ssm_|attn_qkv|position_embd|token_types")


def dense_name(name: str) -> str | None:
    """What transformers calls a tensor of an ordinary decoder; None where llama.cpp joins, splits or adds tensors.

    Source: ``DENSE_DECODER_RENAMINGS`` in transformers/integrations/gguf/gguf_conversion_mapping.py (5.23.0).
    """
    if _UNNAMED.search(name):
        return None
    new = name
    for pattern, replacement in _RENAMED:
        new = pattern.sub(replacement, new)
    return new if new != name else None


def gguf_config(metadata: Mapping[str, str], name: str) -> dict[str, Json]:
    """The config of a repository that has none: what the file says of itself, as far as quant-verify asks for it.

    ``file_type`` is the recipe that the quantizer was told to use (``general.file_type``), under llama.cpp's name.
    """
    architecture = metadata.get("general.architecture", "")
    quantization: dict[str, Json] = {"quant_method": "gguf", "gguf_file": name}
    recipe = metadata.get("general.file_type", "")
    if recipe.isdecimal() and int(recipe) in FILE_TYPES:
        quantization["file_type"] = FILE_TYPES[int(recipe)]
    if metadata.get("general.quantized_by"):
        quantization["quantized_by"] = metadata["general.quantized_by"]
    return {
        "model_type": architecture,
        "architectures": [f"GGUF {architecture}"],
        "quantization_config": quantization,
    }
