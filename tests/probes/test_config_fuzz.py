"""Fuzz of config.json: no method stumbles over any JSON, and every checkpoint gets a verdict."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from decoding import CHECKPOINTS, baseline_of
from fuzzing import ANY, bounded, mutate
from hypothesis import given
from hypothesis import strategies as st
from models import NF4, VARIANTS, Zoo, judge_files
from properties import ask, assert_judged

from checker.probes.artifact import find_quantization_config
from checker.registry import all_methods, method_declared

METHODS = {method.id: method for method in all_methods()}


def published(method_id: str) -> list[dict[str, object]]:
    """Configs that tools wrote for a method."""
    configs = [json.loads(path.read_text("utf-8")) for path in sorted((CHECKPOINTS / method_id).glob("*/config.json"))]
    found = [dict(value) for config in configs if (value := find_quantization_config(config)[1])]
    return found or [dict(value) for value in VARIANTS.values()]


@pytest.mark.parametrize("method_id", METHODS)
@bounded(60)
@given(data=st.data())
def test_no_method_stumbles_over_a_changed_config(method_id: str, data: st.DataObject):
    config = data.draw(st.sampled_from(published(method_id)))
    ask(METHODS[method_id], mutate(data.draw, config, data.draw(st.integers(0, 3))))


@pytest.mark.parametrize("method_id", METHODS)
@bounded(40)
@given(data=st.data())
def test_no_method_stumbles_over_any_config(method_id: str, data: st.DataObject):
    method = METHODS[method_id]
    config = data.draw(st.dictionaries(st.sampled_from([*method.keys, "x"]), ANY, max_size=5))
    ask(method, config | data.draw(st.sampled_from([{}, {"quant_method": method.quant_method}])))


@bounded(200)
@given(data=st.data())
def test_at_most_one_answer(data: st.DataObject):
    """Whoever is asked first: a config declares one method, or none."""
    configs = [config for method_id in METHODS for config in published(method_id)]
    config = mutate(data.draw, data.draw(st.sampled_from(configs)), data.draw(st.integers(0, 2)))
    claims = [method for method in METHODS.values() if method.declares(config)]
    assert method_declared(config) is (claims[0] if claims else None)
    assert len(claims) <= 1, [method.id for method in claims]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config")


def healthy(method_id: str, zoo: Zoo) -> list[tuple[Path, Path]]:
    """Checkpoints of a method, each with its baseline."""
    fixtures = sorted(path.parent for path in (CHECKPOINTS / method_id).glob("*/fixture.json"))
    if fixtures:
        return [(folder, baseline_of(folder)) for folder in fixtures if (folder / "config.json").is_file()]
    variant = "int8" if method_id == "bitsandbytes-8bit" else "nf4"
    return [(zoo.quantized("llama", variant), zoo.baseline("llama"))]


@pytest.mark.parametrize("method_id", METHODS)
@bounded(12)
@given(data=st.data())
def test_a_changed_config_gets_a_verdict(method_id: str, data: st.DataObject, zoo: Zoo, scratch: Path):
    known = healthy(method_id, zoo)
    if not known:
        pytest.skip("its checkpoints have no config.json")
    folder, baseline = data.draw(st.sampled_from(known))
    copy = scratch / method_id / folder.name
    if not copy.exists():
        shutil.copytree(folder, copy)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    within = data.draw(st.sampled_from(["quantization_config", "quantization_config", ""]))
    part = config.get(within) if within else None
    if part:
        config[within] = mutate(data.draw, part, data.draw(st.integers(1, 3)))
    else:
        config = mutate(data.draw, config, data.draw(st.integers(1, 3)))
    (copy / "config.json").write_text(json.dumps(config), "utf-8", "surrogatepass")
    assert_judged(judge_files(copy, data.draw(st.sampled_from([None, baseline]))), copy)


def test_a_published_config_declares_its_method():
    """What the other tests would not notice: that no config declares anything."""
    assert method_declared(NF4) is METHODS["bitsandbytes-4bit"]
