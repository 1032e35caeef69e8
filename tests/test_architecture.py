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
    from checker.data.build_architectures import architectures, describe

    table = json.loads(resources.files("checker.data").joinpath("architectures.json").read_text())
    if importlib.metadata.version("transformers") != table["transformers"]:
        pytest.skip(f"the table is of transformers {table['transformers']}, {transformers.__version__} is installed")
    row = describe(name, architectures()[name])
    assert json.loads(json.dumps(row)) == table["architectures"][name]


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
    ],
)
def test_counterpart(name, names, expected):
    assert counterpart(name, dict.fromkeys(names)) == expected
