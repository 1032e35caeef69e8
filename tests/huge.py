"""A checkpoint of DeepSeek-V3's shape without its 688 GB: true config, index and headers, tensor data that are holes.

Names, dtypes and shapes are those of the published checkpoint (modeling_deepseek.py and inference/model.py of
deepseek-ai/DeepSeek-V3): 61 layers, the first three dense, 256 routed experts and a shared one, latent attention, and
the multi-token prediction layer that transformers does not load. Every linear weight is F8_E4M3 with one F32 scale per
128 x 128 block. The files are as long as the real ones but occupy a few megabytes.

``python tests/huge.py FOLDER [LAYERS]`` writes one to look at.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Tensor = tuple[str, str, tuple[int, ...]]  # name, dtype, shape

BLOCK = 128
SHARD_BYTES = 4_260_000_000  # of the published files; gives 163 of them
LAYERS = 61
ITEM_BYTES = {"F8_E4M3": 1, "BF16": 2, "F32": 4}
CONFIG: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "ep_size": 1,
    "first_k_dense_replace": 3,
    "hidden_act": "silu",
    "hidden_size": 7168,
    "initializer_range": 0.02,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "model_type": "deepseek_v3",
    "moe_intermediate_size": 2048,
    "moe_layer_freq": 1,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "quantization_config": {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [BLOCK, BLOCK],
    },
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "rope_theta": 10000,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "tie_word_embeddings": False,
    "topk_group": 4,
    "topk_method": "noaux_tc",
    "torch_dtype": "bfloat16",
    "transformers_version": "4.33.1",
    "use_cache": True,
    "v_head_dim": 128,
    "vocab_size": 129280,
}


def tensors(layers: int = LAYERS, *, prediction: bool = True) -> Iterator[Tensor]:
    """Every tensor in the order of the model; ``prediction`` adds the layer after the last."""
    hidden, vocabulary = CONFIG["hidden_size"], CONFIG["vocab_size"]
    yield "model.embed_tokens.weight", "BF16", (vocabulary, hidden)
    for number in range(layers):
        yield from _layer(number)
    if prediction:
        prefix = f"model.layers.{layers}"
        yield f"{prefix}.embed_tokens.weight", "BF16", (vocabulary, hidden)
        yield from ((f"{prefix}.{norm}.weight", "BF16", (hidden,)) for norm in ("enorm", "hnorm"))
        yield f"{prefix}.eh_proj.weight", "BF16", (hidden, 2 * hidden)
        yield from _layer(layers)
        yield f"{prefix}.shared_head.norm.weight", "BF16", (hidden,)
        yield f"{prefix}.shared_head.head.weight", "BF16", (vocabulary, hidden)
    yield "model.norm.weight", "BF16", (hidden,)
    yield "lm_head.weight", "BF16", (vocabulary, hidden)


def _layer(number: int) -> Iterator[Tensor]:
    hidden, heads = CONFIG["hidden_size"], CONFIG["num_attention_heads"]
    query, key_value = CONFIG["q_lora_rank"], CONFIG["kv_lora_rank"]
    plain, rotary, value = CONFIG["qk_nope_head_dim"], CONFIG["qk_rope_head_dim"], CONFIG["v_head_dim"]
    prefix = f"model.layers.{number}"
    attention = f"{prefix}.self_attn"
    yield from _quantized(f"{attention}.q_a_proj", query, hidden)
    yield f"{attention}.q_a_layernorm.weight", "BF16", (query,)
    yield from _quantized(f"{attention}.q_b_proj", heads * (plain + rotary), query)
    yield from _quantized(f"{attention}.kv_a_proj_with_mqa", key_value + rotary, hidden)
    yield f"{attention}.kv_a_layernorm.weight", "BF16", (key_value,)
    yield from _quantized(f"{attention}.kv_b_proj", heads * (plain + value), key_value)
    yield from _quantized(f"{attention}.o_proj", hidden, heads * value)
    if number < CONFIG["first_k_dense_replace"]:
        yield from _mlp(f"{prefix}.mlp", CONFIG["intermediate_size"])
    else:
        experts, width = CONFIG["n_routed_experts"], CONFIG["moe_intermediate_size"]
        yield f"{prefix}.mlp.gate.weight", "BF16", (experts, hidden)
        yield f"{prefix}.mlp.gate.e_score_correction_bias", "F32", (experts,)
        for expert in range(experts):
            yield from _mlp(f"{prefix}.mlp.experts.{expert}", width)
        yield from _mlp(f"{prefix}.mlp.shared_experts", width * CONFIG["n_shared_experts"])
    yield f"{prefix}.input_layernorm.weight", "BF16", (hidden,)
    yield f"{prefix}.post_attention_layernorm.weight", "BF16", (hidden,)


def _mlp(prefix: str, width: int) -> Iterator[Tensor]:
    hidden = CONFIG["hidden_size"]
    for name, rows, columns in (("gate", width, hidden), ("up", width, hidden), ("down", hidden, width)):
        yield from _quantized(f"{prefix}.{name}_proj", rows, columns)


def _quantized(module: str, rows: int, columns: int) -> Iterator[Tensor]:
    yield f"{module}.weight", "F8_E4M3", (rows, columns)
    yield f"{module}.weight_scale_inv", "F32", (math.ceil(rows / BLOCK), math.ceil(columns / BLOCK))


def write(folder: Path, layers: int = LAYERS, *, prediction: bool = True) -> int:
    """A checkpoint of so many layers in shards of the published size; returns the number of its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, Tensor]] = [{}]
    filled = total = 0
    for tensor in tensors(layers, prediction=prediction):
        nbytes = size(tensor)
        if filled + nbytes > SHARD_BYTES:
            shards.append({})
            filled = 0
        shards[-1][tensor[0]] = tensor
        filled += nbytes
        total += nbytes
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):06d}.safetensors"
        _write_shard(folder / name, shard)
        weight_map |= dict.fromkeys(shard, name)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    config = {**CONFIG, "num_hidden_layers": layers, "num_nextn_predict_layers": int(prediction)}
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    return len(weight_map)


def size(tensor: Tensor) -> int:
    """Stored bytes."""
    return math.prod(tensor[2]) * ITEM_BYTES[tensor[1]]


def _write_shard(path: Path, shard: dict[str, Tensor]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    reached = 0
    for name, tensor in shard.items():
        end = reached + size(tensor)
        header[name] = {"dtype": tensor[1], "shape": list(tensor[2]), "data_offsets": [reached, end]}
        reached = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.flush()
        os.truncate(file.fileno(), 8 + len(raw) + reached)  # the data are one hole: no byte of them is on the disk


if __name__ == "__main__":
    target, *more = sys.argv[1:]
    sys.stdout.write(f"{write(Path(target), *map(int, more)):,} tensors\n")
