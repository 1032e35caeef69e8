"""The two workflows that the README has for pull requests from forks: valid, safe, and made for each other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMMIT = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40}")
OURS = "org/quant-verify@"


def recipe() -> dict[str, str]:
    """The workflows by file name."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(# \.github/workflows/([\w-]+\.yml)\n.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return {name: block for block, name in blocks}


@pytest.fixture
def judging() -> dict[Any, Any]:
    """The workflow that runs what the pull request contains."""
    return dict(yaml.safe_load(recipe()["quant-verify.yml"]))


@pytest.fixture
def commenting() -> dict[Any, Any]:
    """The workflow that may write."""
    return dict(yaml.safe_load(recipe()["quant-verify-comment.yml"]))


def steps(workflow: Mapping[Any, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def step(workflow: Mapping[Any, Any], action: str) -> dict[str, Any]:
    [found] = [item for item in steps(workflow) if item["uses"].startswith(f"{action}@")]
    return found


def tool(name: str) -> str:
    path = shutil.which(name, path=f"{Path(sys.executable).parent}:{Path(sys.prefix) / 'bin'}") or shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def findings(folder: Path, replaced: Mapping[str, str] | None = None) -> list[str]:
    """What zizmor says of both, once our own release tag is a commit too."""
    for name, text in recipe().items():
        written = text.replace(f"{OURS}v1", f"{OURS}{'0' * 40}")
        for old, new in (replaced or {}).items():
            written = written.replace(old, new)
        (folder / name).write_text(written)
    command = [tool("zizmor"), "--offline", "--no-progress", "--persona", "auditor", "--format", "json"]
    files = [str(folder / name) for name in recipe()]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    return [item["ident"] for item in json.loads(done.stdout)]


def test_the_readme_has_both():
    assert [*recipe()] == ["quant-verify.yml", "quant-verify-comment.yml"]


@pytest.mark.parametrize("name", ["quant-verify.yml", "quant-verify-comment.yml"])
def test_a_workflow_fits_its_schema(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_text(recipe()[name])
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_zizmor_finds_nothing_that_is_not_answered(tmp_path: Path):
    assert findings(tmp_path) == []


def test_without_the_answer_zizmor_asks(tmp_path: Path):
    assert findings(tmp_path, {"# zizmor: ignore[dangerous-triggers]": "#"}) == ["dangerous-triggers"]
    assert "`dangerous-triggers`" in (ROOT / "README.md").read_text(encoding="utf-8"), "the text says why it may"


def test_what_runs_the_pull_request_may_only_read(judging: Mapping[Any, Any]):
    assert judging[True] == {"pull_request": None}  # "on" is a boolean to YAML 1.1
    assert judging["permissions"] == {}
    assert [job["permissions"] for job in judging["jobs"].values()] == [{"contents": "read"}]
    assert step(judging, "actions/checkout")["with"] == {"persist-credentials": False}
    assert "secrets" not in recipe()["quant-verify.yml"]


def test_what_may_write_runs_nothing_of_the_pull_request(commenting: Mapping[Any, Any]):
    assert commenting["permissions"] == {}
    assert [job["permissions"] for job in commenting["jobs"].values()] == [
        {"actions": "read", "pull-requests": "write"}
    ]
    used = [item["uses"].partition("@")[0] for item in steps(commenting)]
    assert used == ["actions/download-artifact", "org/quant-verify"], "no checkout, no script"
    assert all("run" not in item for item in steps(commenting))
    assert "secrets" not in recipe()["quant-verify-comment.yml"]


def test_the_two_fit_together(judging: Mapping[Any, Any], commenting: Mapping[Any, Any]):
    assert commenting[True]["workflow_run"] == {"workflows": [judging["name"]], "types": ["completed"]}
    upload, download = step(judging, "actions/upload-artifact"), step(commenting, "actions/download-artifact")
    assert upload["with"]["name"] == download["with"]["name"]
    assert download["with"]["run-id"] == "${{ github.event.workflow_run.id }}"
    ours = step(commenting, "org/quant-verify")["with"]
    assert (ours["command"], ours["comment"], ours["annotations"]) == ("merge", "always", "never")
    assert ours["args"] == f"{download['with']['path']}/{Path(upload['with']['path']).name}"
    assert download["with"]["path"] not in (".", ""), "what comes from elsewhere lies in a folder of its own"


def test_every_input_exists(judging: Mapping[Any, Any], commenting: Mapping[Any, Any]):
    path = ROOT / "action.yml"
    inputs = yaml.safe_load(path.read_text(encoding="utf-8"))["inputs"]
    for workflow in (judging, commenting):
        assert {*step(workflow, "org/quant-verify")["with"]} <= {*inputs}


def test_others_are_pinned_by_commit():
    used = [line for text in recipe().values() for line in re.findall(r"uses: (\S+)", text)]
    assert len(used) == 5
    assert [name for name in used if not name.startswith(OURS) and not COMMIT.fullmatch(name)] == []
