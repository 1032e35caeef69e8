"""Published checkpoints of models that see, whose lists name their parts in one way and their tensors in another."""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
from published import EXPERT, EXPERTS, HIDDEN, INNER, LINEAR, SIZES, Published
from published_formats import awq, bitsandbytes, fp8, fp8_blocks, packed_int4

from checker.domain import Json

BF16 = ml_dtypes.bfloat16
VISION_WIDTH = 128
SIGLIP = "vision_tower.vision_model.encoder.layers.0"
SIGLIP_LINEAR = {
    **{f"self_attn.{name}_proj": (VISION_WIDTH, VISION_WIDTH) for name in ("k", "v", "q", "out")},
    "mlp.fc1": (256, VISION_WIDTH),
    "mlp.fc2": (VISION_WIDTH, 256),
}
GEMMA_VISION: Mapping[str, tuple[int, ...]] = {
    "vision_tower.vision_model.embeddings.patch_embedding.weight": (VISION_WIDTH, 3, 14, 14),
    "vision_tower.vision_model.embeddings.patch_embedding.bias": (VISION_WIDTH,),
    "vision_tower.vision_model.embeddings.position_embedding.weight": (64, VISION_WIDTH),
    **{f"{SIGLIP}.{name}.weight": shape for name, shape in SIGLIP_LINEAR.items()},
    **{f"{SIGLIP}.layer_norm1.{name}": (VISION_WIDTH,) for name in ("weight", "bias")},
    "multi_modal_projector.mm_input_projection_weight": (VISION_WIDTH, HIDDEN),
    "multi_modal_projector.mm_soft_emb_norm.weight": (VISION_WIDTH,),
}
GEMMA: dict[str, Json] = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "text_config": {**SIZES, "model_type": "gemma3_text"},
    "vision_config": {
        "hidden_size": VISION_WIDTH,
        "intermediate_size": 256,
        "model_type": "siglip_vision_model",
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "patch_size": 14,
        "image_size": 112,
    },
    "mm_tokens_per_image": 16,
}
INSIDE = ((r"^model\.", "language_model.model."),)
QWEN_VISION: Mapping[str, tuple[int, ...]] = {
    "visual.patch_embed.proj.weight": (VISION_WIDTH, 3, 2, 14, 14),
    "visual.blocks.0.attn.qkv.weight": (3 * VISION_WIDTH, VISION_WIDTH),
    "visual.blocks.0.attn.qkv.bias": (3 * VISION_WIDTH,),
    "visual.blocks.0.attn.proj.weight": (VISION_WIDTH, VISION_WIDTH),
    "visual.blocks.0.mlp.gate_proj.weight": (256, VISION_WIDTH),
    "visual.blocks.0.mlp.up_proj.weight": (256, VISION_WIDTH),
    "visual.blocks.0.mlp.down_proj.weight": (VISION_WIDTH, 256),
    "visual.blocks.0.norm1.weight": (VISION_WIDTH,),
    "visual.merger.ln_q.weight": (VISION_WIDTH,),
    "visual.merger.mlp.0.weight": (4 * VISION_WIDTH, 4 * VISION_WIDTH),
    "visual.merger.mlp.2.weight": (HIDDEN, 4 * VISION_WIDTH),
}
QWEN_VL: dict[str, Json] = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "model_type": "qwen2_5_vl",
    "vision_config": {
        "depth": 1,
        "hidden_size": VISION_WIDTH,
        "intermediate_size": 256,
        "num_heads": 2,
        "out_hidden_size": HIDDEN,
        "model_type": "qwen2_5_vl",
    },
}
CASES: Mapping[str, Published] = {
    "RedHatAI/gemma-3-4b-it-FP8-dynamic (names of transformers 4.49)": Published(
        family="gemma3_text",
        tied=True,
        own=GEMMA,
        renamed=INSIDE,
        more=GEMMA_VISION,
        method="compressed-tensors",
        forms={rf"language_model.*{LINEAR}": fp8(1, BF16)},
    ),
    "RedHatAI/gemma-3-27b-it-quantized.w4a16 (names of transformers 4.52)": Published(
        family="gemma3_text",
        tied=True,
        own=GEMMA,
        renamed=INSIDE,
        more=GEMMA_VISION,
        method="compressed-tensors",
        forms={rf"language_model.*{LINEAR}": packed_int4()},
    ),
    "unsloth/gemma-3-4b-it-unsloth-bnb-4bit": Published(
        family="gemma3_text",
        tied=True,
        own=GEMMA,
        renamed=INSIDE,
        more=GEMMA_VISION,
        method="bitsandbytes-4bit",
        forms={r"language_model.*(0\.mlp|self_attn)\.\w+_proj": bitsandbytes(), r"self_attn\.\w+_proj": bitsandbytes()},
        warnings=("layers.excluded",),
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct-AWQ": Published(
        family="qwen2",
        own=QWEN_VL,
        more=QWEN_VISION,
        method="awq",
        dtype="float16",
        forms={rf"^model\..*{LINEAR}": awq()},
    ),
    "a Qwen2.5-VL in NF4 that keeps its merger dense": Published(
        family="qwen2",
        own=QWEN_VL,
        more=QWEN_VISION,
        method="bitsandbytes-4bit",
        forms={rf"{LINEAR}": bitsandbytes(), r"visual\.blocks\.0\.(attn|mlp)\.\w+$": bitsandbytes()},
        failures=(
            "layers.coverage",
        ),  # "merger" matched in transformers 4; 5 makes it a 4-bit layer, which fails in its forward
        warnings=("layers.excluded",),
    ),
    "a Qwen2.5-VL in NF4 that keeps its vision part dense": Published(
        family="qwen2",
        own=QWEN_VL,
        more=QWEN_VISION,
        method="bitsandbytes-4bit",
        forms={LINEAR: bitsandbytes()},
        failures=(
            "layers.coverage",
        ),  # "merger" matched in transformers 4; 5 makes it a 4-bit layer, which fails in its forward
        warnings=("layers.excluded",),
    ),
    "RedHatAI/Llama-4-Scout-17B-16E-Instruct-quantized.w4a16": Published(
        family="mixtral",
        method="compressed-tensors",
        own={
            "architectures": ["Llama4ForConditionalGeneration"],
            "model_type": "llama4",
            "text_config": {**SIZES, "model_type": "llama4_text", "num_local_experts": EXPERTS},
            "vision_config": {"model_type": "llama4_vision_model", "hidden_size": VISION_WIDTH},
        },
        renamed=(
            (r"^model\.layers", "language_model.model.layers"),
            (r"^(model\.norm|model\.embed|lm_head)", r"language_model.\1"),
            (r"block_sparse_moe\.gate", "feed_forward.router"),
            (r"block_sparse_moe", "feed_forward"),
            (r"\.w1\.", ".gate_proj."),
            (r"\.w3\.", ".up_proj."),
            (r"\.w2\.", ".down_proj."),
        ),
        more={
            "vision_model.model.layers.0.self_attn.q_proj.weight": (VISION_WIDTH, VISION_WIDTH),
            "vision_model.model.layers.0.mlp.fc1.weight": (256, VISION_WIDTH),
            "vision_model.patch_embedding.linear.weight": (VISION_WIDTH, 588),
            "multi_modal_projector.linear_1.weight": (HIDDEN, VISION_WIDTH),
            **{
                f"model.layers.{layer}.block_sparse_moe.shared_expert.{name}.weight": (INNER, HIDDEN)
                for layer in (0, 1)
                for name in ("w1", "w3")
            },
            **{f"model.layers.{layer}.block_sparse_moe.shared_expert.w2.weight": (HIDDEN, INNER) for layer in (0, 1)},
        },
        forms={EXPERT: packed_int4(), r"shared_expert\.\w+$": packed_int4()},
    ),
    "Qwen/Qwen3-VL-8B-Instruct-FP8": Published(
        family="qwen3",
        method="fp8",
        own={
            "architectures": ["Qwen3VLForConditionalGeneration"],
            "model_type": "qwen3_vl",
            "text_config": {**SIZES, "model_type": "qwen3_vl_text"},
            "vision_config": {"depth": 1, "hidden_size": VISION_WIDTH, "model_type": "qwen3_vl"},
        },
        renamed=((r"^model\.", "model.language_model."), (r"^visual", "model.visual")),
        more={
            "visual.blocks.0.attn.qkv.weight": (3 * VISION_WIDTH, VISION_WIDTH),
            "visual.blocks.0.attn.proj.weight": (VISION_WIDTH, VISION_WIDTH),
            "visual.blocks.0.mlp.linear_fc1.weight": (256, VISION_WIDTH),
            "visual.blocks.0.mlp.linear_fc2.weight": (VISION_WIDTH, 256),
            "visual.deepstack_merger_list.0.linear_fc1.weight": (512, 512),
            "visual.deepstack_merger_list.0.linear_fc2.weight": (HIDDEN, 512),
            "visual.merger.linear_fc1.weight": (512, 512),
            "visual.merger.linear_fc2.weight": (HIDDEN, 512),
            "visual.patch_embed.proj.weight": (VISION_WIDTH, 3, 2, 16, 16),
            "visual.pos_embed.weight": (64, VISION_WIDTH),
        },
        forms={rf"language_model.*{LINEAR}": fp8_blocks(BF16)},
    ),
}
