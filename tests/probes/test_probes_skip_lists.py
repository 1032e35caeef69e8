"""What a skip list keeps dense: the user's replaces the default, entries may match nothing, and some are hostile."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from models import VARIANTS, Zoo, damage, judge_files, save_quantized

from checker.checkpoint import open_checkpoint
from checker.domain import Outcome, Severity
from checker.probes.artifact import find_quantization_config, gather_artifact

LAYER = "model.layers.0.self_attn.q_proj"


def quantized(zoo: Zoo, folder: Path, name: str, entries: list[str], variant: str = "nf4") -> Path:
    return save_quantized(zoo.baseline(name), folder / "out", {**VARIANTS[variant], "llm_int8_skip_modules": entries})


def matches(folder: Path) -> dict[str, int]:
    with open_checkpoint(folder) as checkpoint:
        return {item.entry: item.matches for item in gather_artifact(checkpoint, None).skip_entries}


@pytest.mark.parametrize("variant", ["nf4", "int8"])
@pytest.mark.parametrize("name", ["llama", "llama-tied", "gpt2"])
def test_a_head_on_the_user_s_list_is_healthy(zoo: Zoo, tmp_path: Path, name: str, variant: str):
    folder = quantized(zoo, tmp_path, name, ["lm_head"], variant)
    judged = judge_files(folder, zoo.baseline(name))
    assert not judged.ids(Outcome.FAIL) | judged.ids(Outcome.WARN), judged.text()
    assert matches(folder) == {"lm_head": 1}


def test_a_list_without_the_head_quantizes_it_which_warns(zoo: Zoo, tmp_path: Path):
    folder = quantized(zoo, tmp_path, "llama", [LAYER])
    judged = judge_files(folder, zoo.baseline("llama"))
    assert judged.ids(Outcome.FAIL) == set(), judged.text()
    found = {(finding.where, finding.severity) for finding in judged.results["layers.excluded"].findings}
    assert found == {("lm_head", Severity.WARN)}
    assert json.loads((folder / "config.json").read_text())["quantization_config"]["llm_int8_skip_modules"] == [LAYER]


def test_expressions_and_prefixes_count_as_transformers_counts_them(zoo: Zoo, tmp_path: Path):
    entries = ["lm_head", r"model\.layers\.\d+\.mlp", "model.layers.1", "o_proj"]
    folder = quantized(zoo, tmp_path, "llama", entries)
    judged = judge_files(folder, zoo.baseline("llama"))
    assert judged.ids(Outcome.FAIL) == set(), judged.text()
    assert not any(finding.where in entries for finding in judged.results["layers.excluded"].findings)
    assert all(count > 0 for count in matches(folder).values())
    with open_checkpoint(folder) as checkpoint:
        left = {module.name for module in gather_artifact(checkpoint, None).modules if module.quantized}
    assert left == {f"model.layers.0.self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj")}


def test_an_entry_that_matches_nothing_warns(zoo: Zoo, tmp_path: Path):
    folder = quantized(zoo, tmp_path, "llama", ["lm_head", "vision_tower", "self_attn"])
    judged = judge_files(folder, zoo.baseline("llama"))
    assert judged.ids(Outcome.FAIL) == set(), judged.text()
    found = {(finding.where, finding.severity) for finding in judged.results["layers.excluded"].findings}
    assert found == {("vision_tower", Severity.WARN), ("self_attn", Severity.WARN)}
    assert matches(folder) == {"lm_head": 1, "vision_tower": 0, "self_attn": 0}


@pytest.mark.parametrize(
    "entry",
    [
        "(a+)+$",
        "(.*)*x",
        "(?:m{1000}){1000}",
        "[",
        "a\nb",
        "*" * 50,
        "(.*.*.*.*.*)+z",
        "x" * 100_000,
        r"\1",
        "m?" * 60 + "m" * 70,
        "m+" * 60 + "z",
    ],
)
def test_a_hostile_entry_neither_hangs_nor_raises(zoo: Zoo, tmp_path: Path, entry: str):
    with damage(zoo.quantized("llama", "nf4"), tmp_path / "copy") as damaged:
        damaged.quantization["llm_int8_skip_modules"] = ["lm_head", entry]
        damaged.put("m" * 100 + ".weight", "BF16", [2, 2], bytes(8))
    begin = time.monotonic()
    judged = judge_files(tmp_path / "copy")
    assert time.monotonic() - begin < 5
    assert not judged.ids(Outcome.ERROR), judged.text()
    assert any(finding.where == entry for finding in judged.results["layers.excluded"].findings)


@pytest.mark.parametrize("value", [5, "lm_head", [1, "lm_head"], [[]], [None], {"a": 1}, [""]], ids=json.dumps)
def test_a_list_of_the_wrong_type_is_a_finding(zoo: Zoo, tmp_path: Path, value: object):
    with damage(zoo.quantized("llama", "nf4"), tmp_path / "copy") as damaged:
        damaged.quantization["llm_int8_skip_modules"] = value
    judged = judge_files(tmp_path / "copy", zoo.baseline("llama"))
    assert not judged.ids(Outcome.ERROR), judged.text()
    [finding] = judged.results["config.keys"].findings
    assert finding.where == "quantization_config.llm_int8_skip_modules"


CONFIG = {"quant_method": "bitsandbytes"}


@pytest.mark.parametrize(
    ("config", "key", "found"),
    [
        pytest.param({"quantization_config": CONFIG}, "quantization_config", CONFIG, id="top level"),
        pytest.param(
            {"text_config": {"quantization_config": CONFIG}},
            "text_config.quantization_config",
            CONFIG,
            id="text_config",
        ),
        pytest.param(
            {"quantization_config": CONFIG, "text_config": {"quantization_config": {}}},
            "quantization_config",
            CONFIG,
            id="both: the top level wins",
        ),
        pytest.param({"quantization_config": None}, "", None, id="null"),
        pytest.param({"quantization_config": [1]}, "quantization_config", {}, id="a list"),
        pytest.param({"text_config": "x"}, "", None, id="text_config is no object"),
        pytest.param({}, "", None, id="none"),
    ],
)
def test_where_the_quantization_config_stands(config, key, found):
    assert find_quantization_config(config) == (key, found)


def test_a_config_in_text_config_is_judged_as_well(zoo: Zoo, tmp_path: Path):
    with damage(zoo.quantized("llama", "nf4"), tmp_path / "copy") as damaged:
        damaged.config["text_config"] = {"quantization_config": damaged.config.pop("quantization_config")}
    judged = judge_files(tmp_path / "copy", zoo.baseline("llama"))
    assert not judged.ids(Outcome.FAIL) | judged.ids(Outcome.WARN), judged.text()


@pytest.mark.parametrize(
    "change",
    [
        {"architectures": [{}], "tie_word_embeddings": "yes", "text_config": 3, "dtype": [1]},
        {"architectures": None, "dtype": "float7"},
        {"architectures": ["Foo\nBar"], "torch_dtype": 3},
        {"architectures": "LlamaForCausalLM"},
        {"architectures": []},
    ],
    ids=lambda change: json.dumps(change["architectures"]),
)
def test_an_odd_config_never_raises(zoo: Zoo, tmp_path: Path, change: dict[str, object]):
    with damage(zoo.quantized("llama", "nf4"), tmp_path / "copy") as damaged:
        damaged.config.update(change)
    for baseline in (zoo.baseline("llama"), None):
        assert not judge_files(tmp_path / "copy", baseline).ids(Outcome.ERROR)


def test_an_unknown_architecture_is_judged_mildly(zoo: Zoo, tmp_path: Path):
    """A kind of layer that is dense everywhere may be meant; one that is dense in some layers is not."""
    with damage(zoo.quantized("t5", "nf4"), tmp_path / "t5") as damaged:
        damaged.config["architectures"] = ["HomeMadeModel"]
    judged = judge_files(tmp_path / "t5", zoo.baseline("t5"))
    assert "layers.coverage" in judged.ids(Outcome.WARN), judged.text()
    assert all("wo" in finding.where for finding in judged.results["layers.coverage"].findings)
