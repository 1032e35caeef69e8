"""Every checkpoint that a real tool wrote holds just the tensors of its model, in whatever form and naming."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from models import damage, judge_files

from checker.domain import Outcome, Severity

pytest.importorskip("torch")
pytest.importorskip("transformers")

CHECK = "layers.architecture"
FIXTURES = Path(__file__).parents[1] / "fixtures"
FOLDERS = sorted(
    path.parent
    for path in FIXTURES.glob("checkpoints/*/*/config.json")
    if "model_type" in json.loads(path.read_text(encoding="utf-8"))  # some tools write a config of their own
)
BASELINES = sorted(path.parent for path in FIXTURES.glob("baselines/*/config.json"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_a_quantized_file_gives_no_finding(folder: Path) -> None:
    judged = judge_files(folder, checks=(CHECK,))
    assert judged.results[CHECK].findings == (), judged.text()
    assert judged.results[CHECK].outcome in (Outcome.PASS, Outcome.SKIP), judged.text()


@pytest.mark.parametrize("folder", BASELINES, ids=lambda folder: folder.name)
def test_a_dense_file_gives_no_finding(folder: Path) -> None:
    judged = judge_files(folder, checks=(CHECK,))
    assert judged.results[CHECK].outcome is Outcome.PASS, judged.text()


@pytest.mark.parametrize(
    ("fixture", "prefix", "named"),
    [
        ("gptq/odd", "model.layers.0.self_attn.q_proj.bias", "model.layers.0.self_attn.q_proj.bias"),
        (
            "gptq/moe",
            "model.layers.0.mlp.experts.1.up_proj.",
            "model.layers.0.mlp.experts.1.up_proj.weight",
        ),
        (
            "compressed-tensors/w4a16-llava",
            "language_model.model.layers.1.mlp.down_proj.",
            "language_model.model.layers.1.mlp.down_proj.weight",
        ),
    ],
)
def test_a_packed_layer_that_is_lost_with_all_its_parts(tmp_path: Path, fixture: str, prefix: str, named: str) -> None:
    with damage(FIXTURES / "checkpoints" / fixture, tmp_path / "broken") as damaged:
        for name in [name for name in damaged.tensors if name.startswith(prefix)]:
            del damaged.tensors[name]
    findings = judge_files(tmp_path / "broken", checks=(CHECK,)).results[CHECK].findings
    assert [(finding.where, finding.severity) for finding in findings] == [(named, Severity.FAIL)]


def test_a_config_that_lies_about_the_size_of_a_packed_layer(tmp_path: Path) -> None:
    with damage(FIXTURES / "checkpoints/gptq/odd", tmp_path / "broken") as damaged:
        damaged.config["intermediate_size"] = 208
    findings = judge_files(tmp_path / "broken", checks=(CHECK,)).results[CHECK].findings
    wrong = {finding.where: (finding.observed, finding.limit) for finding in findings}
    assert wrong["model.layers.0.mlp.up_proj.qweight"] == ([200, 96], [208, 96])
    assert wrong["model.layers.1.mlp.down_proj.qweight"] == ([96, 200], [96, 208])
