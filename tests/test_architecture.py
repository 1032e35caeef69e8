"""The table of architectures against the installed transformers, and the rules that work without one."""

from __future__ import annotations

import importlib.metadata
import json
import time
from importlib import resources

import pytest

from checker.architecture import (
    Architecture,
    architecture_of,
    counterpart,
    fused_groups,
    pattern,
    skip_matches,
)

ENTRIES = [
    "model.vision_tower",
    "vision_tower",
    "lm_head",
    ".*vision.*",
    "layers.0",
    "model.layers.0",
    "model.layers.1",
    r"model\.layers\.\d+\.mlp",
    "model.layers.*.mlp",
    "self_attn",
    "q_proj",
    "mlp.gate",
    "model",
    "wo",
    "^model$",
    "head",
    "gate|router",
]
NAMES = [
    "model.vision_tower",
    "model.vision_tower.encoder.layers.0.q_proj",
    "vision_tower.encoder",
    "vision_tower",
    "my_vision_tower",
    "model.vision_towers",
    "lm_head",
    "model.lm_head",
    "lm_head.dense",
    "layers.0",
    "layers.0.q_proj",
    "layers.01",
    "model.layers.0.mlp.gate",
    "model.layers.0.mlp.gate_proj",
    "model.layers.10.mlp.down_proj",
    "model.layers.1.self_attn.q_proj",
    "model",
    "models.x",
    "encoder.block.0.layer.1.DenseReluDense.wo",
    "router.classifier",
]
SAMPLE = [
    "LlamaForCausalLM",
    "GPT2LMHeadModel",
    "BloomForCausalLM",
    "OPTForCausalLM",
    "T5ForConditionalGeneration",
    "SwitchTransformersForConditionalGeneration",
    "Qwen3MoeForCausalLM",
    "MixtralForCausalLM",
    "GPTNeoXForCausalLM",
    "BertForMaskedLM",
    "LlavaForConditionalGeneration",
    "Qwen2_5_VLForConditionalGeneration",
    "Llama4ForCausalLM",
]


def test_skip_entries_match_as_in_transformers():
    utils = pytest.importorskip("transformers.quantizers.quantizers_utils")
    for entry in ENTRIES:
        for name in NAMES:
            assert skip_matches(entry, name) is not utils.should_convert_module(name, [entry]), (entry, name)


@pytest.mark.parametrize(
    "entry", ["(a+)+$", "[", "(?P<x>a)*" * 30, "m?" * 90 + "m" * 20, "m*" * 40 + "z", "m+m+m+m+z", "." * 201, "\\"]
)
def test_a_hostile_entry_costs_no_time(entry):
    begin = time.monotonic()
    for name in ("m" * 60, "m" * 100_000, "a" * 60, "model.layers.0"):
        skip_matches(entry, name)
    assert time.monotonic() - begin < 2


def test_an_entry_taken_as_text_still_matches_itself():
    assert skip_matches("(a+)+$", "(a+)+$")
    assert skip_matches("a(b)", "a(b).c")
    assert not skip_matches("[", "model")


@pytest.mark.parametrize("name", SAMPLE)
def test_the_table_is_that_of_the_installed_library(name):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from checker.data.build_architectures import NAMING, architectures, describe

    table = json.loads(resources.files("checker.data").joinpath("architectures.json").read_text())
    if importlib.metadata.version("transformers") != table["transformers"]:
        pytest.skip(f"the table is of transformers {table['transformers']}, {transformers.__version__} is installed")
    row = describe(name, architectures()[name])
    stored = table["architectures"][name]
    stored |= {key: [table["rules"][number] for number in stored[key]] for key in NAMING if key in stored}
    assert json.loads(json.dumps(row)) == stored


def test_the_table_has_patterns_and_known_kinds_only():
    table = json.loads(resources.files("checker.data").joinpath("architectures.json").read_text())["architectures"]
    assert len(table) > 150
    kinds = {kind for row in table.values() for kind in row.get("dense", {}).values()}
    assert kinds == {"embedding", "expert", "router", "not a linear layer", "kept in float32"}
    assert all(
        pattern(name) == name for row in table.values() for name in (*row.get("dense", {}), *row.get("head", ()))
    )


@pytest.mark.parametrize(
    ("config", "known", "tied"),
    [
        pytest.param({"architectures": ["LlamaForCausalLM"]}, True, False, id="the architecture does not tie"),
        pytest.param(
            {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True}, True, True, id="the config ties"
        ),
        pytest.param({"architectures": ["GPT2LMHeadModel"]}, True, True, id="the architecture ties"),
        pytest.param(
            {"architectures": ["GPT2LMHeadModel"], "tie_word_embeddings": False}, True, False, id="config unties"
        ),
        pytest.param(
            {"architectures": ["LlamaForCausalLM"], "text_config": {"tie_word_embeddings": True}}, True, True, id="text"
        ),
        pytest.param({"architectures": ["HomeMade"], "tie_word_embeddings": True}, False, False, id="unknown"),
        pytest.param({"architectures": []}, False, False, id="empty list"),
        pytest.param({"architectures": None}, False, False, id="null"),
        pytest.param({"architectures": "LlamaForCausalLM"}, False, False, id="not a list"),
        pytest.param({"architectures": [{}], "text_config": 3}, False, False, id="not a name"),
        pytest.param({}, False, False, id="no config"),
    ],
)
def test_which_architecture_a_config_names(config, known, tied):
    architecture = architecture_of(config)
    assert (architecture.known, bool(architecture.tied)) == (known, tied)


def test_a_hostile_name_is_printable():
    assert architecture_of({"architectures": ["a\nb\x1b"]}).name.isprintable()


KNOWN = Architecture(
    name="Known",
    known=True,
    dense={
        "model.layers.*.mlp.wo.weight": "kept in float32",
        "model.embed.weight": "embedding",
        "x.conv.weight": "other",
    },
    heads=("lm_head", "cls.*.decoder"),
)
UNKNOWN = Architecture(name="Unknown", known=False)


@pytest.mark.parametrize(
    ("architecture", "module", "shape", "role"),
    [
        (KNOWN, "model.layers.3.mlp.wo", (4, 4), "kept in float32"),
        (KNOWN, "model.layers.3.mlp.wi", (4, 4), "linear"),
        (KNOWN, "model.layers.3.mlp.gate", (4, 4), "linear"),  # the table would say if it were a router
        (KNOWN, "model.layers.3.conv", (4, 4, 3), "not a linear layer"),
        (KNOWN, "model.embed", (9, 4), "embedding"),
        (KNOWN, "lm_head", (9, 4), "head"),
        (KNOWN, "cls.1.decoder", (9, 4), "head"),
        (KNOWN, "model.layers.3.mlp.experts.7.up_proj", (4, 4), "expert"),
        (KNOWN, "model.layers.3.mlp.experts", (2, 4, 4), "expert"),
        (UNKNOWN, "model.layers.3.mlp.shared_expert.up_proj", (4, 4), "linear"),
        (UNKNOWN, "model.layers.3.mlp.shared_experts.up_proj", (4, 4), "linear"),
        (UNKNOWN, "model.layers.3.block_sparse_moe.experts.7.w1", (4, 4), "expert"),
        (UNKNOWN, "model.layers.3.mlp.switch_mlp.up_proj", (8, 4, 4), "expert"),
        (UNKNOWN, "model.layers.3.block_sparse_moe.gate", (4, 4), "router"),
        (UNKNOWN, "model.layers.3.mlp.shared_expert_gate", (1, 4), "router"),
        (UNKNOWN, "model.embed_tokens", (9, 4), "embedding"),
        (UNKNOWN, "transformer.wte", (9, 4), "embedding"),
        (UNKNOWN, "model.layers.3.mlp.gate", (4, 4), "router"),
        (UNKNOWN, "model.layers.3.mlp.gate_proj", (4, 4), "linear"),
        (UNKNOWN, "model.layers.3.router.classifier", (4, 4), "router"),
        (UNKNOWN, "lm_head", (9, 4), "head"),
        (UNKNOWN, "model.vision_tower.layers.0.fc1", (4, 4), "vision"),
        (UNKNOWN, "model.layers.3.conv", (4, 4, 3), "not a linear layer"),
        (UNKNOWN, "model.layers.3.fc1", (4, 4), "linear"),
    ],
)
def test_roles(architecture, module, shape, role):
    assert architecture.role(module, f"{module}.weight", shape) == role


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.12.mlp.experts.3.up.weight", "model.layers.*.mlp.experts.*.up.weight"),
        ("h.0", "h.*"),
        ("model.layer1.x2", "model.layer1.x2"),
        ("12.weight", "12.weight"),
        ("", ""),
    ],
)
def test_pattern(name, expected):
    assert pattern(name) == expected


def test_fused_groups_are_whole():
    names = [
        "a.q_proj",
        "a.k_proj",
        "a.v_proj",
        "b.q_proj",
        "b.k_proj",
        "c.gate_proj",
        "c.up_proj",
        "d.w1",
        "d.w3",
        "query",
    ]
    assert fused_groups(names) == (("a.q_proj", "a.k_proj", "a.v_proj"), ("c.gate_proj", "c.up_proj"), ("d.w1", "d.w3"))
    assert fused_groups([]) == ()


@pytest.mark.parametrize(
    ("name", "names", "expected"),
    [
        ("model.x", ["model.x", "x"], "model.x"),
        ("model.x", ["x"], "x"),
        ("x", ["model.x"], "model.x"),
        ("h.x", ["transformer.h.x"], "transformer.h.x"),
        ("x", ["y"], None),
        ("", [], None),
        ("language_model.model.layers.0.x", ["model.language_model.layers.0.x"], "model.language_model.layers.0.x"),
        ("model.language_model.layers.0.x", ["language_model.model.layers.0.x"], "language_model.model.layers.0.x"),
        ("model.language_model.layers.0.x", ["model.layers.0.x"], "model.layers.0.x"),  # Qwen2-VL as first published
        ("model.layers.0.x", ["model.language_model.layers.0.x"], "model.language_model.layers.0.x"),
        ("lm_head.weight", ["language_model.lm_head.weight"], "language_model.lm_head.weight"),
        ("model.visual.blocks.0.x", ["visual.blocks.0.x"], "visual.blocks.0.x"),
        (
            "model.layers.0.block_sparse_moe.experts.3.w1.weight",
            ["model.layers.0.mlp.experts.3.w1.weight"],
            "model.layers.0.mlp.experts.3.w1.weight",
        ),
        ("model.layers.0.mlp.experts.3.gate_proj.weight", ["model.layers.0.mlp.experts.gate_up_proj"], None),
    ],
)
def test_counterpart(name, names, expected):
    assert counterpart(name, dict.fromkeys(names)) == expected


STORED = [  # architecture, stored module, all its names
    pytest.param(
        "LlavaForConditionalGeneration",
        "language_model.model.layers.0.self_attn.q_proj",
        ("model.language_model.layers.0.self_attn.q_proj",),
        id="the language model moves",
    ),
    pytest.param("LlavaForConditionalGeneration", "language_model.lm_head", ("lm_head",), id="the head moves"),
    pytest.param(
        "LlavaForConditionalGeneration",
        "vision_tower.vision_model.encoder.layers.11.mlp.fc1",
        ("model.vision_tower.encoder.layers.11.mlp.fc1", "vision_tower.encoder.layers.11.mlp.fc1"),
        id="as published, as loaded, as saved again",
    ),
    pytest.param(
        "LlavaForConditionalGeneration",
        "model.vision_tower.encoder.layers.1.mlp.fc1",
        ("vision_tower.encoder.layers.1.mlp.fc1",),
        id="stored as loaded",
    ),
    pytest.param(
        "Qwen2_5_VLForConditionalGeneration",
        "model.layers.3.mlp.up_proj",
        ("model.language_model.layers.3.mlp.up_proj",),
        id="a part of the prefix is added",
    ),
    pytest.param(
        "Qwen2_5_VLForConditionalGeneration",
        "model.visual.blocks.3.attn.qkv",
        ("visual.blocks.3.attn.qkv",),
        id="the older name, as in many a skip list",
    ),
    pytest.param(
        "MixtralForCausalLM",
        "model.layers.31.block_sparse_moe.experts.7.w1",
        ("model.layers.31.mlp.experts.7.w1", "model.layers.31.mlp.experts.gate_up_proj"),
        id="an expert that is joined",
    ),
    pytest.param("GPT2LMHeadModel", "h.0.attn.c_attn", ("transformer.h.0.attn.c_attn",), id="no base prefix"),
    pytest.param("GPT2LMHeadModel", "transformer.h.0.attn.c_attn", (), id="nothing differs"),
    pytest.param("LlamaForCausalLM", "model.layers.0.mlp.up_proj", (), id="no renames"),
    pytest.param("LlavaForConditionalGeneration", "vision_tower.a%sb.1", ("model.vision_tower.a%sb.1",), id="hostile"),
    pytest.param("HomeMade", "vision_tower.x", (), id="unknown"),
]


@pytest.mark.parametrize(("architecture", "stored", "others"), STORED)
def test_a_module_is_known_by_all_its_names(architecture, stored, others):
    known = architecture_of({"architectures": [architecture]})
    assert known.aliases(stored) == (stored, *others)
    assert known.aliases(stored) == (stored, *others)  # from the cache


@pytest.mark.parametrize(
    ("architecture", "stored", "role"),
    [
        ("LlavaForConditionalGeneration", "language_model.lm_head", "head"),
        ("LlavaForConditionalGeneration", "language_model.model.embed_tokens", "embedding"),
        ("LlavaForConditionalGeneration", "vision_tower.embeddings.position_embedding", "embedding"),
        ("LlavaForConditionalGeneration", "vision_tower.encoder.layers.0.mlp.fc1", "linear"),
        ("Qwen2_5_VLForConditionalGeneration", "model.embed_tokens", "embedding"),
        ("MixtralForCausalLM", "model.layers.0.block_sparse_moe.gate", "router"),
        ("MixtralForCausalLM", "model.layers.0.block_sparse_moe.experts.3.w2", "expert"),
        ("DeepseekV3ForCausalLM", "model.layers.3.mlp.gate", "router"),
        ("DeepseekV3ForCausalLM", "model.layers.3.mlp.experts.255.down_proj", "expert"),
        ("DeepseekV3ForCausalLM", "model.layers.3.mlp.shared_experts.down_proj", "linear"),
        ("GPT2LMHeadModel", "wte", "embedding"),
    ],
)
def test_a_stored_name_has_the_role_of_its_module(architecture, stored, role):
    assert architecture_of({"architectures": [architecture]}).role(stored, f"{stored}.weight", (4, 4)) == role


def test_the_biases_of_fused_experts_are_no_matrices_to_quantize():
    known = architecture_of({"architectures": ["GptOssForCausalLM"]})
    name = "model.layers.0.mlp.experts.gate_up_proj"
    assert known.role(name, name, (4, 64, 192)) == "expert"
    assert known.role(f"{name}_bias", f"{name}_bias", (4, 192)) == "not a linear layer"


def test_ties_and_transposed_weights_have_their_stored_names_too():
    llava = architecture_of({"architectures": ["LlavaForConditionalGeneration"], "tie_word_embeddings": True})
    assert llava.tied["language_model.lm_head.weight"] == "language_model.model.embed_tokens.weight"
    assert llava.tied["lm_head.weight"] == "model.language_model.embed_tokens.weight"
    qwen = architecture_of({"architectures": ["Qwen2_5_VLForConditionalGeneration"], "tie_word_embeddings": True})
    assert counterpart(qwen.tied["lm_head.weight"], {"model.embed_tokens.weight": 0}) == "model.embed_tokens.weight"
    assert "h.*.attn.c_attn.weight" in architecture_of({"architectures": ["GPT2LMHeadModel"]}).transposed


def test_a_counterpart_under_a_name_of_another_version():
    llava = architecture_of({"architectures": ["LlavaForConditionalGeneration"]})
    published = "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight"
    for saved in ("vision_tower.encoder.layers.0.mlp.fc1.weight", "model.vision_tower.encoder.layers.0.mlp.fc1.weight"):
        assert llava.counterpart(published, {saved: None}) == saved
    assert llava.counterpart(published, {"vision_tower.encoder.layers.1.mlp.fc1.weight": None}) is None
    assert llava.counterpart("lm_head.weight", {"lm_head.weight": None}) == "lm_head.weight"


@pytest.mark.parametrize(
    "name",
    ["LlavaForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration", "MixtralForCausalLM", "OPTForCausalLM"],
)
def test_aliases_hold_the_name_that_the_library_gives_every_tensor_it_saves(name):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    loading = pytest.importorskip("transformers.core_model_loading")
    from transformers.conversion_mapping import get_model_conversion_mapping

    from checker.data.build_architectures import architectures

    config = transformers.CONFIG_MAPPING[architectures()[name]]()
    with torch.device("meta"):
        model = getattr(transformers, name)(config)
    rules = get_model_conversion_mapping(model)
    renames = [rule for rule in rules if isinstance(rule, loading.WeightRenaming)]
    joins = [rule for rule in rules if isinstance(rule, loading.WeightConverter)]
    known = architecture_of({"architectures": [name]})
    state = model.state_dict()
    for stored in loading.revert_weight_conversion(model, dict(state)):
        loaded, _ = loading.rename_source_key(stored, renames, joins, model.base_model_prefix, state)
        assert loaded.removesuffix(".weight") in known.aliases(stored.removesuffix(".weight"))


@pytest.mark.parametrize("name", ["DeepseekV3ForCausalLM", "MixtralForCausalLM", "LlavaForConditionalGeneration"])
def test_ninety_thousand_names_cost_little(name):
    known = architecture_of({"architectures": [name]})
    modules = [f"model.layers.{layer}.mlp.experts.{index}.up_proj" for layer in range(90) for index in range(1000)]
    begin = time.process_time()
    for module in modules:
        known.aliases(module)
    assert time.process_time() - begin < 1.5  # three times what it may cost on a quiet machine


def test_a_hostile_name_is_left_as_it_is():
    known = architecture_of({"architectures": ["MixtralForCausalLM"]})
    begin = time.monotonic()
    for name in ("." * 100_000, "mlp.experts." * 20_000, "mlp.experts." * 20, "1." * 120, ""):
        assert known.aliases(name)[0] == name
    assert time.monotonic() - begin < 1
