"""The linters of workflows find nothing: zizmor, the published schemas, action-validator, shellcheck."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from workflow_files import ROOT, WORKFLOWS, tool

FORMS = ROOT / ".github" / "ISSUE_TEMPLATE"
SCHEMAS = [
    *((path, "github-workflows") for path in WORKFLOWS),
    (ROOT / "action.yml", "github-actions"),
    (ROOT / ".github" / "dependabot.yml", "dependabot"),
    (FORMS / "config.yml", "github-issue-config"),
    *((path, "github-issue-forms") for path in sorted(FORMS.glob("*.yml")) if path.name != "config.yml"),
]


def run(*command: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)


def zizmor(*inputs: Path) -> list[str]:
    done = run(tool("zizmor"), "--offline", "--pedantic", "--no-progress", "--format", "json", *inputs)
    return [finding["ident"] for finding in json.loads(done.stdout)]


def test_zizmor_finds_nothing():
    assert zizmor(ROOT / ".github", ROOT / "action.yml", ROOT / ".pre-commit-hooks.yaml") == []


def test_zizmor_would_find_it(tmp_path: Path):
    text = "on: pull_request_target\njobs: {a: {runs-on: x, steps: [{run: 'echo ${{ github.head_ref }}'}]}}\n"
    (tmp_path / "bad.yml").write_text(text)
    assert {"dangerous-triggers", "template-injection"} <= {*zizmor(tmp_path / "bad.yml")}


@pytest.mark.parametrize(("path", "schema"), SCHEMAS, ids=lambda value: getattr(value, "name", value))
def test_a_file_fits_its_schema(path: Path, schema: str):
    done = run(tool("check-jsonschema"), "--builtin-schema", f"vendor.{schema}", path)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", [ROOT / "action.yml", *WORKFLOWS], ids=lambda path: path.name)
def test_action_validator_agrees(path: Path, tmp_path: Path):
    program = tool("action-validator")
    copy = tmp_path / path.name
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    # its schema is from before this permission
    copy.write_text("".join(line for line in lines if not line.lstrip().startswith("attestations: write")))
    done = run(program, copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "scripts").glob("*.sh")), ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path: Path):
    done = run(tool("shellcheck"), path)
    assert done.returncode == 0, done.stdout
