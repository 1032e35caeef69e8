"""``.pre-commit-hooks.yaml``: which files each hook looks at, and what its command says of them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from workflow_files import ROOT

HOOKS: dict[str, dict[str, Any]] = {
    hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
}
MATRIX, CHECKPOINT = "quant-verify-matrix", "quant-verify-checkpoint"
MODEL = ROOT / "tests/fixtures/checkpoints/gptq/moe"


def hook(name: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a hook's command in a folder, as in an environment in which quant-verify is installed."""
    first, *entry = shlex.split(HOOKS[name]["entry"])
    if first == "python":  # isolated, it would see an installed package only
        command = [sys.executable, *(word for word in entry if word != "-I")]
    else:
        assert first == "quant-verify"
        command = [sys.executable, str(ROOT / "entrypoint.py"), *entry]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("QUANT_VERIFY_", "GITHUB_"))}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([*command, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def looked_at(name: str, path: str) -> bool:
    return bool(re.search(HOOKS[name]["files"], path)) and not re.search(HOOKS[name].get("exclude", "^$"), path)


def test_the_hooks_are_these():
    assert {*HOOKS} == {MATRIX, CHECKPOINT}
    assert {item["language"] for item in HOOKS.values()} == {"python"}


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        (MATRIX, "quant-verify.yml", True),
        (MATRIX, "ci/quant-verify.yaml", True),
        (MATRIX, "quant-verify.nightly.yml", True),
        (MATRIX, "quant-verify-gpu.yml", True),
        (MATRIX, ".github/workflows/quant-verify.yml", False),
        (MATRIX, "my-quant-verify.yml", False),
        (MATRIX, "quant-verify.yml.md", False),
        (CHECKPOINT, "models/a/config.json", True),
        (CHECKPOINT, "models/a/model-00001-of-00002.safetensors", True),
        (CHECKPOINT, "models/a/model.safetensors.index.json", True),
        (CHECKPOINT, "models/a/quantize_config.json", True),
        (CHECKPOINT, "models/a/README.md", False),
        (CHECKPOINT, "tsconfig.json", False),
    ],
)
def test_a_hook_looks_at_its_files(name: str, path: str, expected: bool):
    assert looked_at(name, path) == expected


def test_matrix_files_are_read_and_every_mistake_of_all_is_told(tmp_path: Path):
    good = "version: 1\nmodels: [{name: a, checkpoints: {x: ./absent}}]\n"
    (tmp_path / "good.yml").write_text(good)
    (tmp_path / "bad.yml").write_text(good + "modles: []\n")
    (tmp_path / "worse.yml").write_text(good.replace("name", "nmae") + "depth: \x1b[31m\n")
    done = hook(MATRIX, tmp_path, "good.yml")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = hook(MATRIX, tmp_path, "good.yml", "bad.yml", "worse.yml", "absent.yml")
    assert done.returncode == 2
    assert "bad.yml:3: modles: unknown key (did you mean 'models'?)" in done.stderr
    assert "worse.yml:" in done.stderr
    assert "absent.yml" in done.stderr
    assert "\x1b" not in done.stderr
    assert "Traceback" not in done.stderr


def test_no_module_of_the_repository_can_take_the_place_of_ours():
    """``python -m`` alone would look for ``checker`` in the folder that is checked, first of all."""
    assert shlex.split(HOOKS[MATRIX]["entry"])[:3] == ["python", "-I", "-m"]


def test_checkpoints_are_judged(tmp_path: Path):
    shutil.copytree(MODEL, tmp_path / "models" / "moe")
    done = hook(CHECKPOINT, tmp_path, "./models/*")
    assert done.returncode == 0, done.stderr
    config = tmp_path / "models" / "moe" / "config.json"
    config.write_text(config.read_text().replace('"bits": 4', '"bits": 8'))
    done = hook(CHECKPOINT, tmp_path, "./models/*")
    assert done.returncode == 1
    assert "config.truthful" in done.stdout


def test_checkpoints_must_be_named():
    assert HOOKS[CHECKPOINT]["pass_filenames"] is False
    done = hook(CHECKPOINT, ROOT)
    assert done.returncode == 2
    assert "CHECKPOINT" in done.stderr
