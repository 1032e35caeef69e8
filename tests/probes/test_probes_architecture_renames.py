"""Models whose tensors transformers renames, joins or splits as it loads them: what their files lack or hold too many.

The checkpoints are written by ``save_pretrained``, in the naming of the file that differs from the module tree's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from models import Damaged, Judged, Zoo, damage, judge_files, write_tensors

from checker.domain import Finding, Outcome, Severity

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CHECK = "layers.architecture"
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "vocab_size": 160,
    "max_position_embeddings": 64,
}
VISION = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
DEEPSEEK = {
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "n_group": 2,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
MODELS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {  # config class, model class, options
    "mixtral": ("MixtralConfig", "MixtralForCausalLM", {**TEXT, "num_local_experts": 4}),
    "qwen3-moe": ("Qwen3MoeConfig", "Qwen3MoeForCausalLM", {**TEXT, **EXPERTS}),
    "deepseek-v3": ("DeepseekV3Config", "DeepseekV3ForCausalLM", {**TEXT, **DEEPSEEK}),
    "gpt-oss": (
        "GptOssConfig",
        "GptOssForCausalLM",
        {**TEXT, "num_local_experts": 4, "num_experts_per_tok": 2, "layer_types": ["full_attention"] * 2},
    ),
    "llava": (
        "LlavaConfig",
        "LlavaForConditionalGeneration",
        {
            "text_config": {**TEXT, "model_type": "llama"},
            "vision_config": {**VISION, "model_type": "clip_vision_model"},
            "image_token_index": 159,
        },
    ),
    "gemma3": (
        "Gemma3Config",
        "Gemma3ForConditionalGeneration",
        {"text_config": TEXT, "vision_config": VISION, "mm_tokens_per_image": 4},
    ),
    "mistral3": (
        "Mistral3Config",
        "Mistral3ForConditionalGeneration",
        {
            "text_config": {**TEXT, "model_type": "mistral"},
            "vision_config": {**VISION, "model_type": "pixtral", "head_dim": 16},
            "tie_word_embeddings": False,
        },
    ),
    "qwen2-vl": (
        "Qwen2VLConfig",
        "Qwen2VLForConditionalGeneration",
        {
            "text_config": {**TEXT, "rope_parameters": MROPE},
            "vision_config": {"depth": 2, "embed_dim": 64, "hidden_size": 64, "num_heads": 4, "patch_size": 8},
            "tie_word_embeddings": False,
        },
    ),
    "qwen3-vl-moe": (
        "Qwen3VLMoeConfig",
        "Qwen3VLMoeForConditionalGeneration",
        {
            "text_config": {**TEXT, **EXPERTS, "rope_parameters": MROPE},
            "vision_config": {
                "depth": 2,
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_heads": 4,
                "patch_size": 8,
                "out_hidden_size": 64,
                "deepstack_visual_indexes": [0],
            },
        },
    ),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a model's checkpoint; each is written once."""
    root = tmp_path_factory.mktemp("renamed")

    def folder(name: str) -> Path:
        target = root / name
        if not target.exists():
            config_class, model_class, options = MODELS[name]
            torch.manual_seed(sum(map(ord, name)))
            config = getattr(transformers, config_class)(**options)
            getattr(transformers, model_class)(config).to(torch.bfloat16).save_pretrained(target)
        return target

    return folder


def judge(folder: Path) -> Judged:
    return judge_files(folder, checks=(CHECK,))


def findings(folder: Path) -> tuple[Finding, ...]:
    return judge(folder).results[CHECK].findings


@pytest.mark.parametrize("name", MODELS)
def test_a_healthy_file_gives_no_finding(saved: Callable[[str], Path], name: str) -> None:
    judged = judge(saved(name))
    assert judged.results[CHECK].outcome is Outcome.PASS, judged.text()


@pytest.mark.parametrize("name", MODELS)
def test_a_file_in_the_naming_of_the_modules_gives_no_finding(
    saved: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    from checker.probes.skeleton import build_model, read_config

    state = build_model(read_config(saved(name))).state_dict()
    with damage(saved(name), tmp_path / "renamed") as damaged:
        damaged.tensors.clear()
        for parameter, tensor in state.items():
            damaged.put(parameter, "BF16", list(tensor.shape), bytes(2 * tensor.numel()))
        if damaged.config.get("tie_word_embeddings", True):
            damaged.tensors.pop("lm_head.weight", None)
    judged = judge(tmp_path / "renamed")
    assert judged.results[CHECK].outcome is Outcome.PASS, judged.text()


LOST = [
    ("mixtral", "model.layers.1.block_sparse_moe.experts.2.w3.weight"),
    ("mixtral", "model.layers.1.block_sparse_moe.gate.weight"),
    ("qwen3-moe", "model.layers.0.mlp.experts.3.down_proj.weight"),
    ("qwen3-moe", "model.layers.0.mlp.experts.0.gate_proj.weight"),
    ("deepseek-v3", "model.layers.1.mlp.experts.7.up_proj.weight"),
    ("deepseek-v3", "model.layers.1.mlp.gate.e_score_correction_bias"),
    ("deepseek-v3", "model.layers.1.mlp.shared_experts.down_proj.weight"),
    ("gpt-oss", "model.layers.0.mlp.experts.gate_up_proj"),
    ("gpt-oss", "model.layers.0.mlp.experts.down_proj_bias"),
    ("gpt-oss", "model.layers.0.self_attn.q_proj.bias"),
    ("gpt-oss", "model.layers.0.self_attn.sinks"),
    ("llava", "language_model.model.layers.1.mlp.down_proj.weight"),
    ("llava", "language_model.lm_head.weight"),
    ("llava", "vision_tower.encoder.layers.0.self_attn.q_proj.bias"),
    ("llava", "multi_modal_projector.linear_1.bias"),
    ("gemma3", "vision_tower.encoder.layers.1.mlp.fc1.weight"),
    ("gemma3", "language_model.model.embed_tokens.weight"),  # the head is tied to it
    ("mistral3", "vision_tower.transformer.layers.0.attention.k_proj.weight"),
    ("mistral3", "multi_modal_projector.patch_merger.merging_layer.weight"),
    ("qwen2-vl", "visual.blocks.1.attn.qkv.bias"),
    ("qwen2-vl", "model.layers.0.self_attn.k_proj.bias"),
    ("qwen2-vl", "lm_head.weight"),
    ("qwen3-vl-moe", "model.language_model.layers.1.mlp.experts.gate_up_proj"),
]


@pytest.mark.parametrize(("name", "tensor"), LOST)
def test_a_lost_tensor_is_named_as_the_file_names_it(
    saved: Callable[[str], Path], tmp_path: Path, name: str, tensor: str
) -> None:
    with damage(saved(name), tmp_path / "broken") as damaged:
        del damaged.tensors[tensor]
    assert [(finding.where, finding.severity, finding.observed) for finding in findings(tmp_path / "broken")] == [
        (tensor, Severity.FAIL, "missing")
    ]


TURNED = [
    ("mixtral", "model.layers.0.block_sparse_moe.experts.1.w1.weight"),
    ("qwen3-moe", "model.layers.0.mlp.experts.3.up_proj.weight"),
    ("deepseek-v3", "model.layers.1.mlp.experts.0.down_proj.weight"),
    ("llava", "language_model.model.layers.0.mlp.up_proj.weight"),
    ("llava", "vision_tower.encoder.layers.0.mlp.fc2.weight"),
    ("qwen2-vl", "visual.blocks.0.mlp.fc1.weight"),
    ("mistral3", "language_model.lm_head.weight"),
    ("gpt-oss", "model.layers.0.mlp.experts.gate_up_proj"),
]


@pytest.mark.parametrize(("name", "tensor"), TURNED)
def test_a_transposed_tensor(saved: Callable[[str], Path], tmp_path: Path, name: str, tensor: str) -> None:
    with damage(saved(name), tmp_path / "broken") as damaged:
        shape = damaged.tensors[tensor].shape
        damaged.tensors[tensor].shape = [*shape[:-2], shape[-1], shape[-2]]
    (finding,) = findings(tmp_path / "broken")
    assert (finding.where, finding.severity) == (tensor, Severity.FAIL)
    assert (finding.observed, finding.limit) == ([*shape[:-2], shape[-1], shape[-2]], shape)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("stray", ["stray.weight", "vision_tower.stray.weight", "model.layers.0.mlp.stray_proj.weight"])
def test_a_stray_tensor(saved: Callable[[str], Path], tmp_path: Path, name: str, stray: str) -> None:
    with damage(saved(name), tmp_path / "broken") as damaged:
        damaged.put(stray, "BF16", [2, 2], bytes(8))
    assert [(finding.where, finding.severity) for finding in findings(tmp_path / "broken")] == [(stray, Severity.WARN)]


def test_fewer_and_more_experts_than_the_config_says(saved: Callable[[str], Path], tmp_path: Path) -> None:
    for count, index, seen in ((3, 3, Severity.WARN), (5, 4, Severity.FAIL)):
        with damage(saved("mixtral"), tmp_path / str(count)) as damaged:
            damaged.config["num_local_experts"] = count
        found = {finding.where: finding for finding in findings(tmp_path / str(count))}
        for layer in (0, 1):
            block = f"model.layers.{layer}.block_sparse_moe"
            assert f"{block}.gate.weight" in found
            for part in ("w1", "w2", "w3"):
                assert found[f"{block}.experts.{index}.{part}.weight"].severity is seen


def test_more_layers_than_the_file_holds(saved: Callable[[str], Path], tmp_path: Path) -> None:
    with damage(saved("llava"), tmp_path / "broken") as damaged:
        damaged.config["text_config"]["num_hidden_layers"] = 3
        damaged.config["vision_config"]["num_hidden_layers"] = 1
    found = findings(tmp_path / "broken")
    lost = {finding.where for finding in found if finding.severity is Severity.FAIL}
    spare = {finding.where for finding in found if finding.severity is Severity.WARN}
    assert len(lost) == 9
    assert all(name.startswith("language_model.model.layers.2.") for name in lost)
    assert len(spare) == 16
    assert all(name.startswith("vision_tower.encoder.layers.1.") for name in spare)


def as_published(damaged: Damaged) -> None:
    """The names that CLIP towers have in the files of the Hub: one level more than transformers 5 writes."""
    for name in [name for name in damaged.tensors if name.startswith("vision_tower.")]:
        damaged.tensors[name.replace("vision_tower.", "vision_tower.vision_model.", 1)] = damaged.tensors.pop(name)


def test_names_as_published(saved: Callable[[str], Path], tmp_path: Path) -> None:
    with damage(saved("llava"), tmp_path / "healthy") as damaged:
        as_published(damaged)
    assert findings(tmp_path / "healthy") == ()
    lost = "vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias"
    with damage(saved("llava"), tmp_path / "broken") as damaged:
        as_published(damaged)
        del damaged.tensors[lost]
    assert [finding.where for finding in findings(tmp_path / "broken")] == [lost]


def test_a_copy_under_a_second_name(saved: Callable[[str], Path], tmp_path: Path) -> None:
    copy = "model.vision_tower.encoder.layers.0.mlp.fc1.bias"
    with damage(saved("llava"), tmp_path / "broken") as damaged:
        damaged.put(copy, "BF16", [128], bytes(256))
    (finding,) = findings(tmp_path / "broken")
    assert finding.severity is Severity.WARN
    assert finding.where.endswith("vision_tower.encoder.layers.0.mlp.fc1.bias")


@pytest.fixture
def expert_by_expert(saved: Callable[[str], Path], tmp_path: Path) -> Iterator[Damaged]:
    """GPT-OSS with a linear layer for each expert, as libraries write it that quantize linear layers only."""
    with damage(saved("gpt-oss"), tmp_path / "unfused") as damaged:
        for name in [name for name in damaged.tensors if ".experts." in name]:
            experts, *shape = damaged.tensors.pop(name).shape
            module, _, kind = name.rpartition(".")
            last = f"{kind.removesuffix('_bias')}.bias" if kind.endswith("_bias") else f"{kind}.weight"
            for index in range(experts):
                size = shape[::-1]
                damaged.put(
                    f"{module}.{index}.{last}", "BF16", size, bytes(2 * size[0] * (size[-1] if size[1:] else 1))
                )
        yield damaged


def write(damaged: Damaged, folder: Path) -> Path:
    write_tensors(folder / "model.safetensors", damaged.tensors, damaged.metadata)
    return folder


def test_fused_experts_may_be_stored_one_by_one(expert_by_expert: Damaged, tmp_path: Path) -> None:
    assert findings(write(expert_by_expert, tmp_path / "unfused")) == ()


def test_one_of_the_experts_is_lost(expert_by_expert: Damaged, tmp_path: Path) -> None:
    lost = "model.layers.1.mlp.experts.2.down_proj.weight"
    del expert_by_expert.tensors[lost]
    found = findings(write(expert_by_expert, tmp_path / "unfused"))
    assert [(finding.where, finding.severity) for finding in found] == [(lost, Severity.FAIL)]


def test_one_of_the_experts_has_another_shape(expert_by_expert: Damaged, tmp_path: Path) -> None:
    turned = "model.layers.1.mlp.experts.2.gate_up_proj.weight"
    expert_by_expert.tensors[turned].shape.reverse()
    found = findings(write(expert_by_expert, tmp_path / "unfused"))
    assert [(finding.where, finding.observed) for finding in found] == [(turned, [64, 256])]


@pytest.mark.parametrize("lost", ["model.layers.0.mlp.experts.1.up_proj.weight", "model.layers.1.mlp.gate.weight"])
def test_a_quantized_mixture_that_lost_a_tensor(zoo: Zoo, tmp_path: Path, lost: str) -> None:
    with damage(zoo.quantized("qwen3-moe", "nf4"), tmp_path / "broken") as damaged:
        del damaged.tensors[lost]
    assert [(finding.where, finding.severity) for finding in findings(tmp_path / "broken")] == [(lost, Severity.FAIL)]


def test_weights_of_an_unknown_method_are_not_compared(saved: Callable[[str], Path], tmp_path: Path) -> None:
    with damage(saved("mixtral"), tmp_path / "unknown") as damaged:
        damaged.config["quantization_config"] = {"quant_method": "home-made"}
    assert judge(tmp_path / "unknown").results[CHECK].outcome is Outcome.SKIP


@pytest.mark.parametrize(("key", "value"), [("model_type", "home-made"), ("architectures", ["HomeMadeForCausalLM"])])
def test_a_config_of_which_nothing_can_be_built(
    saved: Callable[[str], Path], tmp_path: Path, key: str, value: object
) -> None:
    with damage(saved("mixtral"), tmp_path / "broken") as damaged:
        damaged.config[key] = value
    result = judge(tmp_path / "broken").results[CHECK]
    assert result.outcome is Outcome.ERROR
    assert result.error is not None
    assert "cannot be built" in result.error.message
