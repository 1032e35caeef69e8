"""Every checkpoint that a real tool wrote holds just the tensors of its model, in whatever form and naming."""

from __future__ import annotations

from pathlib import Path

import pytest
from models import judge_files

from checker.domain import Outcome

pytest.importorskip("torch")
pytest.importorskip("transformers")

CHECK = "layers.architecture"
FIXTURES = Path(__file__).parents[1] / "fixtures"
FOLDERS = sorted(path.parent for path in FIXTURES.glob("checkpoints/*/*/config.json"))
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
