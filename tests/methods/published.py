"""Published checkpoints made small: the tensor names of an architecture, and a folder written from a ``Published``.

What is written after each one's ``quantization_config`` stands in ``published_configs.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from models import Stored, write_tensors
from published_formats import Maker, dense

from checker.domain import Json

HIDDEN, INNER, EXPERT_INNER, VOCABULARY, HEADS, KEY_VALUE_HEADS = 256, 512, 128, 320, 4, 2
HEAD = HIDDEN // HEADS
EXPERTS = 4
MATRIX = 2
LINEAR = r"layers\.\d+\.(self_attn|mlp)\.\w+_proj$"
LATENT = r"self_attn\.\w+_proj(_with_mqa)?$"
EXPERT = r"\.experts\.\d+\.\w+$"
SHARED = r"\.shared_experts\.\w+$"
CONFIGS: Mapping[str, Mapping[str, Json]] = json.loads(
    (Path(__file__).parent / "published_configs.json").read_text(encoding="utf-8")
)
MIXTURES = ("mixtral", "qwen3_moe", "qwen3_moe_mlx", "qwen3_next", "deepseek_v3")
Shapes = Iterator[tuple[str, tuple[int, ...]]]

SIZES: Mapping[str, Json] = {
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEY_VALUE_HEADS,
    "head_dim": HEAD,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "hidden_act": "silu",
}
FAMILIES: Mapping[str, Mapping[str, Json]] = {
    "llama": {"architectures": ["LlamaForCausalLM"], "model_type": "llama"},
    "mistral": {"architectures": ["MistralForCausalLM"], "model_type": "mistral"},
    "mixtral": {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "num_local_experts": EXPERTS,
        "num_experts_per_tok": 2,
    },
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"},
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"},
    "qwen3_moe": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "num_experts": EXPERTS,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": EXPERT_INNER,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    },
    "deepseek_v3": {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "first_k_dense_replace": 1,
        "n_routed_experts": EXPERTS,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": EXPERT_INNER,
        "q_lora_rank": 128,
        "kv_lora_rank": 128,
        "qk_nope_head_dim": 64,
        "qk_rope_head_dim": 64,
        "v_head_dim": 64,
        "num_nextn_predict_layers": 0,
    },
    "gpt_oss": {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "num_local_experts": EXPERTS,
        "num_experts_per_tok": 2,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "bitnet": {"architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": "relu2"},
    "phi3": {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3"},
    "qwen3_next": {
        "architectures": ["Qwen3NextForCausalLM"],
        "model_type": "qwen3_next",
        "num_experts": EXPERTS,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": EXPERT_INNER,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    },
    "gemma3_text": {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text"},
}


@dataclass(frozen=True, kw_only=True)
class Published:
    """One repository: its architecture, what form its modules are stored in, and what is right to say about it."""

    family: str
    forms: Mapping[str, Maker]  # expression over the module's name -> form; the first that matches; otherwise dense
    method: str | None  # the id that must be recognised
    tied: bool = False
    dtype: str = "bfloat16"
    config_keys: tuple[str, ...] = ("quantization_config",)
    own: Mapping[str, Json] = field(default_factory=dict)  # further keys of config.json
    extra: Mapping[str, Stored] = field(default_factory=dict)  # further tensors
    files: Mapping[str, Json] = field(default_factory=dict)  # further JSON files
    renamed: tuple[tuple[str, str], ...] = ()  # expressions over tensor names, and what stands there instead
    more: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # further tensors of the dense model
    failures: tuple[str, ...] = ()  # the checks that fail, and are right to
    warnings: tuple[str, ...] = ()  # the checks that warn, and are right to


def write(folder: Path, entry: Published, quantization: Mapping[str, Json]) -> Path:
    """The checkpoint's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        **SIZES,
        **FAMILIES[entry.family.removesuffix("_mlx")],
        "tie_word_embeddings": entry.tied,
        "torch_dtype": entry.dtype,
    }
    config |= {**entry.own, **{key: dict(quantization) for key in entry.config_keys}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name, content in entry.files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    tensors: dict[str, Stored] = {}
    for original, shape in (*shapes(entry.family, tied=entry.tied), *entry.more.items()):
        name = original
        for pattern, replacement in entry.renamed:
            name = re.sub(pattern, replacement, name)
        module = name.removesuffix(".weight")
        form = next((form for pattern, form in entry.forms.items() if re.search(pattern, module)), None)
        tensors |= dense(name, shape, entry.dtype) if form is None or len(shape) < MATRIX else form(module, shape)
    write_tensors(folder / "model.safetensors", tensors | dict(entry.extra), {"format": "pt"})
    return folder


def shapes(family: str, *, tied: bool) -> Shapes:
    """Every tensor of the dense model, under the names that are published."""
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    for number in range(2):
        prefix = f"model.layers.{number}"
        yield f"{prefix}.input_layernorm.weight", (HIDDEN,)
        yield from _mixing(prefix, family, number)
        yield f"{prefix}.post_attention_layernorm.weight", (HIDDEN,)
        if family == "gemma3_text":
            yield from ((f"{prefix}.{side}_feedforward_layernorm.weight", (HIDDEN,)) for side in ("pre", "post"))
        yield from _feed_forward(prefix, family, number)
    yield "model.norm.weight", (HIDDEN,)
    if not tied:
        yield "lm_head.weight", (VOCABULARY, HIDDEN)


def _mixing(prefix: str, family: str, number: int) -> Shapes:
    attention = f"{prefix}.self_attn"
    if family == "deepseek_v3":
        yield from _latent_attention(attention)
    elif family == "phi3":
        yield f"{attention}.qkv_proj.weight", (HIDDEN + 2 * KEY_VALUE_HEADS * HEAD, HIDDEN)
        yield f"{attention}.o_proj.weight", (HIDDEN, HIDDEN)
    elif family == "qwen3_next" and number == 0:
        yield from _linear_attention(f"{prefix}.linear_attn")
    else:
        yield from _attention(attention, family)


def _linear_attention(prefix: str) -> Shapes:
    yield f"{prefix}.A_log", (2,)
    yield f"{prefix}.dt_bias", (2,)
    yield f"{prefix}.conv1d.weight", (384, 1, 4)
    yield f"{prefix}.in_proj_qkvz.weight", (512, HIDDEN)
    yield f"{prefix}.in_proj_ba.weight", (4, HIDDEN)
    yield f"{prefix}.norm.weight", (64,)
    yield f"{prefix}.out_proj.weight", (HIDDEN, 128)


def _attention(prefix: str, family: str) -> Shapes:
    narrow = KEY_VALUE_HEADS * HEAD
    for name, rows in (("q", HIDDEN), ("k", narrow), ("v", narrow), ("o", HIDDEN)):
        yield f"{prefix}.{name}_proj.weight", (rows, HIDDEN)
        if family == "gpt_oss" or (family == "qwen2" and name != "o"):
            yield f"{prefix}.{name}_proj.bias", (rows,)
    if family in ("qwen3", "qwen3_moe", "qwen3_moe_mlx", "qwen3_next", "gemma3_text"):
        yield from ((f"{prefix}.{name}_norm.weight", (HEAD,)) for name in "qk")
    if family == "gpt_oss":
        yield f"{prefix}.sinks", (HEADS,)
    if family == "bitnet":
        yield f"{prefix}.attn_sub_norm.weight", (HIDDEN,)


def _latent_attention(prefix: str) -> Shapes:
    yield f"{prefix}.q_a_proj.weight", (128, HIDDEN)
    yield f"{prefix}.q_a_layernorm.weight", (128,)
    yield f"{prefix}.q_b_proj.weight", (HEADS * 128, 128)
    yield f"{prefix}.kv_a_proj_with_mqa.weight", (192, HIDDEN)
    yield f"{prefix}.kv_a_layernorm.weight", (128,)
    yield f"{prefix}.kv_b_proj.weight", (HEADS * 128, 128)
    yield f"{prefix}.o_proj.weight", (HIDDEN, HEADS * 64)


def _feed_forward(prefix: str, family: str, number: int) -> Shapes:
    mixture = f"{prefix}.block_sparse_moe" if family == "mixtral" else f"{prefix}.mlp"
    if family == "gpt_oss":
        yield from _fused_experts(mixture)
    elif family == "phi3":
        yield f"{mixture}.gate_up_proj.weight", (2 * INNER, HIDDEN)
        yield f"{mixture}.down_proj.weight", (HIDDEN, INNER)
    elif family in MIXTURES and (family != "deepseek_v3" or number):
        yield from _mixture(mixture, family)
    else:
        yield from _mlp(mixture, INNER)
        if family == "bitnet":
            yield f"{mixture}.ffn_sub_norm.weight", (INNER,)


def _mixture(prefix: str, family: str) -> Shapes:
    yield f"{prefix}.gate.weight", (EXPERTS, HIDDEN)
    if family == "qwen3_moe_mlx":
        for name, shape in _mlp(f"{prefix}.switch_mlp", EXPERT_INNER):
            yield name, (EXPERTS, *shape)
        return
    for expert in range(EXPERTS):
        name = f"{prefix}.experts.{expert}"
        yield from _mlp(name, INNER, ("w1", "w3", "w2")) if family == "mixtral" else _mlp(name, EXPERT_INNER)
    if family == "deepseek_v3":
        yield f"{prefix}.gate.e_score_correction_bias", (EXPERTS,)
        yield from _mlp(f"{prefix}.shared_experts", EXPERT_INNER)
    if family == "qwen3_next":
        yield f"{prefix}.shared_expert_gate.weight", (1, HIDDEN)
        yield from _mlp(f"{prefix}.shared_expert", EXPERT_INNER)


def _fused_experts(prefix: str) -> Shapes:
    yield f"{prefix}.router.weight", (EXPERTS, HIDDEN)
    yield f"{prefix}.router.bias", (EXPERTS,)
    yield f"{prefix}.experts.gate_up_proj", (EXPERTS, 2 * INNER, HIDDEN)
    yield f"{prefix}.experts.gate_up_proj_bias", (EXPERTS, 2 * INNER)
    yield f"{prefix}.experts.down_proj", (EXPERTS, HIDDEN, INNER)
    yield f"{prefix}.experts.down_proj_bias", (EXPERTS, HIDDEN)


def _mlp(prefix: str, width: int, names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")) -> Shapes:
    yield f"{prefix}.{names[0]}.weight", (width, HIDDEN)
    yield f"{prefix}.{names[1]}.weight", (width, HIDDEN)
    yield f"{prefix}.{names[2]}.weight", (HIDDEN, width)
