"""Published checkpoints of small floats, and all that compressed-tensors holds."""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np
from published import EXPERT, EXPERT_INNER, EXPERTS, HIDDEN, LATENT, LINEAR, SHARED, Published
from published_formats import (
    fp8,
    fp8_blocks,
    fp8_scalar,
    int8_rows,
    mxfp4,
    nvfp4,
    nvfp4_modelopt,
    packed_int4,
    stored,
)

BF16 = ml_dtypes.bfloat16
# transformers loads the codes of these files without their scales
FOREIGN = ("config.truthful", "layers.complete", "memory.ratio")
KV = [f"model.layers.{layer}.self_attn.{name}_scale" for layer in (0, 1) for name in "kv"]
CASES: Mapping[str, Published] = {
    "RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w8a8": Published(
        family="llama", forms={LINEAR: int8_rows}, method="compressed-tensors"
    ),
    "RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16": Published(
        family="llama", forms={LINEAR: packed_int4()}, method="compressed-tensors"
    ),
    "RedHatAI/*-quantized.w4a16 (activation order by groups)": Published(
        family="llama", forms={LINEAR: packed_int4(act_order=True)}, method="compressed-tensors"
    ),
    "RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8-dynamic": Published(
        family="llama", forms={LINEAR: fp8(1, BF16)}, method="compressed-tensors"
    ),
    "RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8": Published(
        family="llama", forms={LINEAR: fp8(None, BF16, scale_shape=(1,), input_scale=0.02)}, method="compressed-tensors"
    ),
    "RedHatAI/*-FP8-KV": Published(
        family="llama",
        forms={LINEAR: fp8(None, BF16, scale_shape=(1,), input_scale=0.02)},
        method="compressed-tensors",
        extra={name: stored(np.array([0.02], BF16)) for name in KV},
    ),
    "RedHatAI/Qwen3-30B-A3B-FP8-dynamic": Published(
        family="qwen3_moe", forms={LINEAR: fp8(1, BF16), EXPERT: fp8(1, BF16)}, method="compressed-tensors"
    ),
    "RedHatAI/Llama-3.1-8B-Instruct-NVFP4": Published(
        family="llama", forms={LINEAR: nvfp4}, method="compressed-tensors"
    ),
    "moonshotai/Kimi-K2-Thinking": Published(
        family="deepseek_v3",
        forms={EXPERT: packed_int4(group_size=32, shape_dtype=np.int32)},
        method="compressed-tensors",
        own={"architectures": ["DeepseekV3ForCausalLM"], "model_type": "kimi_k2"},
    ),
    "deepseek-ai/DeepSeek-V3": Published(
        family="deepseek_v3",
        forms={
            r"self_attn\.\w+_proj(_with_mqa)?$": fp8_blocks(),
            r"mlp\.\w+_proj$": fp8_blocks(),
            EXPERT: fp8_blocks(),
            SHARED: fp8_blocks(),
        },
        method="fp8",
    ),
    "deepseek-ai/DeepSeek-V3.1": Published(
        family="deepseek_v3",
        forms={
            r"self_attn\.\w+_proj(_with_mqa)?$": fp8_blocks(powers=True),
            r"mlp\.\w+_proj$": fp8_blocks(powers=True),
            EXPERT: fp8_blocks(powers=True),
            SHARED: fp8_blocks(powers=True),
        },
        method="fp8",
    ),
    "moonshotai/Kimi-K2-Instruct": Published(
        family="deepseek_v3",
        forms={
            r"self_attn\.\w+_proj(_with_mqa)?$": fp8_blocks(),
            r"mlp\.\w+_proj$": fp8_blocks(),
            EXPERT: fp8_blocks(),
            SHARED: fp8_blocks(),
        },
        method="fp8",
        warnings=("files.valid",),  # of its own code, which is not run
        own={"model_type": "kimi_k2", "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"}},
    ),
    "Qwen/Qwen3-8B-FP8": Published(family="qwen3", forms={LINEAR: fp8_blocks(BF16)}, method="fp8"),
    "Qwen/Qwen3-30B-A3B-FP8": Published(
        family="qwen3_moe", forms={LINEAR: fp8_blocks(BF16), EXPERT: fp8_blocks(BF16)}, method="fp8"
    ),
    "meta-llama/Llama-3.1-405B-Instruct-FP8": Published(
        family="llama", forms={r"\.1\.mlp\.\w+_proj$": fp8(1, np.float32, input_scale_ub=1200.0)}, method="fbgemm_fp8"
    ),
    "openai/gpt-oss-20b": Published(family="gpt_oss", forms={r"experts\.(gate_up|down)_proj$": mxfp4}, method="mxfp4"),
    "neuralmagic/Meta-Llama-3-8B-Instruct-FP8 (AutoFP8)": Published(
        family="llama",
        forms={LINEAR: fp8(None, np.float32, scale_shape=(), input_scale=0.02)},
        method="fp8",
        failures=FOREIGN,
    ),
    "amd/Meta-Llama-3.1-8B-Instruct-FP8-KV (vLLM's fp8)": Published(
        family="llama",
        forms={LINEAR: fp8(None, np.float32, scale_shape=(), input_scale=0.02, output_scale=0.02)},
        method="fp8",
        failures=FOREIGN,
    ),
    "nvidia/Llama-3.1-8B-Instruct-FP8": Published(
        family="llama",
        forms={LINEAR: fp8(None, np.float32, scale_shape=(), input_scale=0.02)},
        method=None,
        failures=("config.method",),
    ),
    "mistralai/Devstral-Small-2-24B-Instruct-2512 (text part)": Published(
        family="mistral", method="fp8", forms={LINEAR: fp8_scalar}
    ),
    "deepseek-ai/DeepSeek-V3.2-Exp": Published(
        family="deepseek_v3",
        method="fp8",
        own={"architectures": ["DeepseekV32ForCausalLM"], "model_type": "deepseek_v32"},
        more={
            f"model.layers.{layer}.self_attn.indexer.{name}": shape
            for layer in (0, 1)
            for name, shape in {
                "k_norm.weight": (128,),
                "k_norm.bias": (128,),
                "weights_proj.weight": (4, HIDDEN),
                "wk.weight": (128, HIDDEN),
                "wq_b.weight": (512, 128),
            }.items()
        },
        forms={
            r"indexer\.w[kq]": fp8_blocks(powers=True),
            LATENT: fp8_blocks(powers=True),
            r"mlp\.\w+_proj$": fp8_blocks(powers=True),
            EXPERT: fp8_blocks(powers=True),
            SHARED: fp8_blocks(powers=True),
        },
    ),
    "MiniMaxAI/MiniMax-M2": Published(
        family="mixtral",
        method="fp8",
        own={"architectures": ["MiniMaxM2ForCausalLM"], "model_type": "minimax_m2"},
        more={f"model.layers.{layer}.block_sparse_moe.e_score_correction_bias": (EXPERTS,) for layer in (0, 1)},
        forms={LINEAR: fp8_blocks(), EXPERT: fp8_blocks()},
    ),
    "zai-org/GLM-4.5-Air-FP8": Published(
        family="deepseek_v3",
        method="compressed-tensors",
        own={"architectures": ["Glm4MoeForCausalLM"], "model_type": "glm4_moe"},
        forms={
            LATENT: fp8(1, np.float32),
            r"mlp\.\w+_proj$": fp8(1, np.float32),
            EXPERT: fp8(1, np.float32),
            SHARED: fp8(1, np.float32),
        },
    ),
    "nvidia/Llama-3.1-8B-Instruct-FP4": Published(
        family="llama",
        method=None,
        failures=("config.method",),
        forms={LINEAR: nvfp4_modelopt},
        files={
            "hf_quant_config.json": {
                "producer": {"name": "modelopt", "version": "0.37.0"},
                "quantization": {
                    "quant_algo": "NVFP4",
                    "kv_cache_quant_algo": "FP8",
                    "group_size": 16,
                    "exclude_modules": ["lm_head"],
                },
            }
        },
    ),
    "Qwen/Qwen3-Next-80B-A3B-Instruct-FP8": Published(
        family="qwen3_next",
        method="fp8",
        own={
            "full_attention_interval": 2,
            "linear_conv_kernel_dim": 4,
            "linear_key_head_dim": 64,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 2,
            "linear_value_head_dim": 64,
            "shared_expert_intermediate_size": EXPERT_INNER,
            "layer_types": ["linear_attention", "full_attention"],
        },
        forms={
            LINEAR: fp8_blocks(BF16),
            EXPERT: fp8_blocks(BF16),
            r"shared_expert\.\w+$": fp8_blocks(BF16),
            r"linear_attn\.(in_proj_qkvz|out_proj)$": fp8_blocks(BF16),
            r"^mtp\.layers.*_proj$": fp8_blocks(BF16),
        },
        more={
            "mtp.fc.weight": (HIDDEN, 2 * HIDDEN),
            "mtp.norm.weight": (HIDDEN,),
            "mtp.layers.0.self_attn.q_proj.weight": (2 * HIDDEN, HIDDEN),
            "mtp.layers.0.mlp.gate.weight": (EXPERTS, HIDDEN),
            "mtp.layers.0.mlp.experts.0.up_proj.weight": (EXPERT_INNER, HIDDEN),
        },
    ),
    "RedHatAI/Qwen3-30B-A3B-NVFP4": Published(
        family="qwen3_moe", method="compressed-tensors", forms={LINEAR: nvfp4, EXPERT: nvfp4}
    ),
}
