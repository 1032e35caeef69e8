"""The tensors of real tiny checkpoints against the module tree of their config."""

from __future__ import annotations

from pathlib import Path

import pytest
from models import MODELS, Zoo, damage, judge_files

from checker.domain import Outcome, Severity

CHECK = "layers.architecture"


@pytest.mark.parametrize("model", MODELS)
def test_a_healthy_file_holds_just_the_tensors_of_its_model(zoo: Zoo, model: str) -> None:
    judged = judge_files(zoo.quantized(model, "nf4"), checks=(CHECK,))
    assert judged.results[CHECK].outcome is Outcome.PASS, judged.text()


def test_more_layers_in_the_config_than_in_the_file(zoo: Zoo, tmp_path: Path) -> None:
    with damage(zoo.quantized("llama", "nf4"), tmp_path / "broken") as damaged:
        damaged.config["num_hidden_layers"] = 3
    findings = judge_files(tmp_path / "broken", checks=(CHECK,)).results[CHECK].findings
    assert all(finding.severity is Severity.FAIL and "model.layers.2." in finding.where for finding in findings)
    assert "model.layers.2.mlp.down_proj.weight" in {finding.where for finding in findings}


def test_fewer_layers_in_the_config_than_in_the_file(zoo: Zoo, tmp_path: Path) -> None:
    with damage(zoo.quantized("llama", "nf4"), tmp_path / "broken") as damaged:
        damaged.config["num_hidden_layers"] = 1
    findings = judge_files(tmp_path / "broken", checks=(CHECK,)).results[CHECK].findings
    assert all(finding.severity is Severity.WARN and "model.layers.1." in finding.where for finding in findings)
    assert "model.layers.1.mlp.down_proj.weight" in {finding.where for finding in findings}


def test_a_weight_of_another_shape(zoo: Zoo, tmp_path: Path) -> None:
    with damage(zoo.quantized("llama", "int8"), tmp_path / "broken") as damaged:
        damaged.config["vocab_size"] = 320
    findings = judge_files(tmp_path / "broken", checks=(CHECK,)).results[CHECK].findings
    wrong = {finding.where: finding.limit for finding in findings}
    assert wrong == {"model.embed_tokens.weight": [320, 64], "lm_head.weight": [320, 64]}


def test_a_missing_head_of_an_untied_model(zoo: Zoo, tmp_path: Path) -> None:
    with damage(zoo.quantized("llama", "nf4"), tmp_path / "broken") as damaged:
        del damaged.tensors["lm_head.weight"]
    findings = judge_files(tmp_path / "broken", checks=(CHECK,)).results[CHECK].findings
    assert [finding.where for finding in findings] == ["lm_head.weight"]
