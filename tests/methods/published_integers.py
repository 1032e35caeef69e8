"""Published checkpoints of integer and code book methods: GPTQ, AWQ, AutoRound, bitsandbytes, MLX, BitNet, AQLM."""

from __future__ import annotations

from collections.abc import Mapping

from published import EXPERT, LINEAR, Published
from published_formats import aqlm, awq, bitsandbytes, gptq, int8_bitsandbytes, mlx, ternary

CASES: Mapping[str, Published] = {
    "TheBloke/Llama-2-7B-GPTQ": Published(
        family="llama",
        forms={LINEAR: gptq()},
        method="gptq",
        dtype="float16",
        own={"pretraining_tp": 1, "rope_scaling": None},
        files={
            "quantize_config.json": {"bits": 4, "group_size": 128, "damp_percent": 0.1, "desc_act": False, "sym": True}
        },
    ),
    "TheBloke/Mistral-7B-v0.1-GPTQ (act order)": Published(
        family="mistral", forms={LINEAR: gptq(act_order=True)}, method="gptq", dtype="bfloat16"
    ),
    "TheBloke/Mixtral-8x7B-Instruct-v0.1-GPTQ": Published(
        family="mixtral",
        forms={LINEAR: gptq(group_size=-1, act_order=True), EXPERT: gptq(group_size=-1, act_order=True)},
        method="gptq",
    ),
    "Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4": Published(
        family="qwen2", forms={LINEAR: gptq()}, method="gptq", dtype="float16"
    ),
    "Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8": Published(
        family="qwen2", forms={LINEAR: gptq(bits=8)}, method="gptq", dtype="float16"
    ),
    "Qwen/Qwen3-30B-A3B-GPTQ-Int4": Published(
        family="qwen3_moe", forms={LINEAR: gptq(), EXPERT: gptq()}, method="gptq", dtype="float16"
    ),
    "ModelCloud/Llama-3.2-1B-Instruct-gptqmodel-4bit-vortex-v2": Published(
        family="llama", forms={LINEAR: gptq(group_size=32, act_order=True)}, method="gptq", tied=True
    ),
    "ModelCloud (dynamic)": Published(
        family="llama",
        forms={
            r"\.1\.mlp\.gate": gptq(bits=8, group_size=32),
            r"\.0\.mlp\.(up|gate)|\.1\.mlp|self_attn\.\w+_proj": gptq(),
        },
        method="gptq",
    ),
    "hugging-quants/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4": Published(
        family="llama", forms={LINEAR: gptq(act_order=True)}, method="gptq", dtype="float16"
    ),
    "Intel/*-int4-inc": Published(family="qwen2", forms={LINEAR: gptq()}, method="auto-round"),
    "Intel/*-int4-inc (as gptq)": Published(family="qwen2", forms={LINEAR: gptq(symmetric=False)}, method="gptq"),
    "Qwen/Qwen2.5-7B-Instruct-AWQ": Published(family="qwen2", forms={LINEAR: awq()}, method="awq", dtype="float16"),
    "casperhansen/llama-3-8b-instruct-awq": Published(
        family="llama", forms={LINEAR: awq()}, method="awq", dtype="float16"
    ),
    "TheBloke/Llama-2-7B-Chat-AWQ": Published(
        family="llama",
        forms={LINEAR: awq()},
        method="awq",
        dtype="float16",
        files={"quant_config.json": {"zero_point": True, "q_group_size": 128, "w_bit": 4, "version": "GEMM"}},
    ),
    "TheBloke/Mixtral-8x7B-Instruct-v0.1-AWQ": Published(
        family="mixtral", forms={LINEAR: awq(), EXPERT: awq()}, method="awq", dtype="float16"
    ),
    "hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4": Published(
        family="llama", forms={LINEAR: awq()}, method="awq", dtype="float16"
    ),
    "Qwen/Qwen3-8B-AWQ": Published(family="qwen3", forms={LINEAR: awq()}, method="awq", dtype="float16"),
    "hugging-quants/Meta-Llama-3.1-8B-Instruct-BNB-NF4": Published(
        family="llama", forms={LINEAR: bitsandbytes()}, method="bitsandbytes-4bit"
    ),
    "unsloth/llama-3-8b-bnb-4bit": Published(
        family="llama",
        forms={LINEAR: bitsandbytes()},
        method="bitsandbytes-4bit",
        own={"unsloth_version": "2024.9", "pad_token_id": 128255},
    ),
    "unsloth/Llama-3.2-1B-Instruct-unsloth-bnb-4bit": Published(
        family="llama",
        forms={r"0\.mlp|1\.self_attn\.\w+_proj": bitsandbytes()},
        method="bitsandbytes-4bit",
        tied=True,
        own={"unsloth_fixed": True},
        warnings=("layers.excluded",),  # names of other models' parts: they match nothing here
    ),
    "microsoft/bitnet-b1.58-2B-4T": Published(family="bitnet", forms={LINEAR: ternary}, method="bitnet", tied=True),
    "mlx-community/Meta-Llama-3.1-8B-Instruct-4bit": Published(
        family="llama",
        forms={LINEAR: mlx(), "embed_tokens|lm_head": mlx()},
        method="metal",
        config_keys=("quantization", "quantization_config"),
    ),
    "mlx-community/Qwen3-0.6B-4bit": Published(
        family="qwen3",
        forms={LINEAR: mlx(), "embed_tokens": mlx()},
        method="metal",
        tied=True,
        config_keys=("quantization", "quantization_config"),
    ),
    "mlx-community/Llama-3.2-1B-Instruct-4bit (old)": Published(
        family="llama",
        forms={LINEAR: mlx(), "embed_tokens": mlx()},
        method="metal",
        tied=True,
        config_keys=("quantization",),
    ),
    "ISTA-DASLab/Meta-Llama-3-8B-Instruct-AQLM-2Bit-1x16": Published(
        family="llama", forms={LINEAR: aqlm}, method="aqlm", dtype="float16"
    ),
    "a model in 8 bits of 2023": Published(
        family="llama",
        method="bitsandbytes-8bit",
        dtype="float16",
        failures=("config.keys",),  # no quant_method
        forms={LINEAR: int8_bitsandbytes(format_stored=False)},
    ),
    "a model in 8 bits of 2024": Published(
        family="llama", method="bitsandbytes-8bit", dtype="float16", forms={LINEAR: int8_bitsandbytes()}
    ),
    "kaitchup/Phi-3-mini-4k-instruct-gptq-4bit": Published(
        family="phi3", method="gptq", dtype="float16", forms={LINEAR: gptq()}
    ),
    "mlx-community/Qwen3-30B-A3B-4bit": Published(
        family="qwen3_moe_mlx",
        method="metal",
        config_keys=("quantization", "quantization_config"),
        forms={LINEAR: mlx(), "embed_tokens|lm_head": mlx(), "switch_mlp": mlx(), r"mlp\.gate$": mlx(bits=8)},
    ),
    "mlx-community/Llama-3.2-3B-Instruct-8bit": Published(
        family="llama",
        method="metal",
        tied=True,
        config_keys=("quantization", "quantization_config"),
        forms={LINEAR: mlx(bits=8), "embed_tokens": mlx(bits=8)},
    ),
    "an MLX model of mixed widths": Published(
        family="llama",
        method="metal",
        config_keys=("quantization", "quantization_config"),
        forms={r"1\.mlp\.down|embed_tokens|lm_head": mlx(bits=8), LINEAR: mlx()},
    ),
    "a GPTQ model of an unknown architecture": Published(
        family="llama",
        method="gptq",
        forms={LINEAR: gptq()},
        own={"architectures": ["UnheardOfForCausalLM"], "model_type": "unheard_of"},
    ),
}
