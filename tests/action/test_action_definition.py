"""action.yml: one step without logic; every input reaches it as a variable, every output comes out of it."""

from __future__ import annotations

import re
import subprocess

import pytest
import readme
import yaml
from launcher import ACTION, ROOT, STEP, tool, variable

from checker import __version__
from checker.commands.init import FILES, WORKFLOW

SCRIPTS = sorted((ROOT / ".github/action").glob("*.sh"))
UNRELEASED = "ghcr.io/org/quant-verify@sha256:" + "0" * 64
INPUTS = (
    "command", "matrix", "checkpoint", "baseline", "depth", "select", "ignore", "only", "shard", "device", "gpus",
    "runtime", "image", "docker-options", "cache-dir", "report-dir", "fail-on", "annotations", "comment", "offline",
    "working-directory", "args",
)  # fmt: skip
OUTPUTS = (
    "verdict", "exit-code", "cells", "passed", "failed", "warned", "errored", "skipped", "junit", "json", "summary",
    "html", "plan",
)  # fmt: skip


def test_inputs_and_outputs_are_the_documented_ones():
    assert tuple(ACTION["inputs"]) == INPUTS
    assert tuple(ACTION["outputs"]) == OUTPUTS
    assert {entry["default"] for entry in ACTION["inputs"].values()} == {""}, "so that the matrix decides"
    for name, entry in {**ACTION["inputs"], **ACTION["outputs"]}.items():
        assert entry["description"].endswith("."), name


def test_every_output_is_that_of_the_step():
    assert len(ACTION["runs"]["steps"]) == 1
    values = {name: entry["value"] for name, entry in ACTION["outputs"].items()}
    assert values == {name: f"${{{{ steps.run.outputs.{name} }}}}" for name in OUTPUTS}


@pytest.mark.parametrize("name", INPUTS)
def test_an_input_is_a_variable_and_leaves_that_of_the_job_in_force(name: str):
    default = rf" \|\| '{UNRELEASED[:32]}[0-9a-f]{{64}}'" if name == "image" else ""
    assert re.fullmatch(
        rf"\$\{{\{{ inputs\.{name} \|\| env\.{variable(name)}{default} \}}\}}", STEP["env"][variable(name)]
    )


def test_the_workflow_that_init_writes_uses_it():
    steps = yaml.safe_load(WORKFLOW)["jobs"]["verify"]["steps"]
    (step,) = [step for step in steps if step["uses"].startswith("org/quant-verify@")]
    assert step["uses"] == f"org/quant-verify@v{max(1, int(__version__.partition('.')[0]))}"
    assert {*step["with"]} <= {*INPUTS}
    assert step["with"]["matrix"] in FILES


def test_nothing_is_written_into_the_script():
    assert "${{" not in STEP["run"]
    assert {*STEP["env"]} == {"GITHUB_TOKEN", *map(variable, INPUTS)}
    for path in SCRIPTS:
        text = path.read_text(encoding="utf-8")
        assert "${{" not in text
        assert not re.search(r"\beval\b", text), path.name


def test_shellcheck_has_nothing_to_say():
    command = [tool("shellcheck"), "--external-sources", "--source-path", str(SCRIPTS[0].parent), "run.sh"]
    done = subprocess.run(command, cwd=SCRIPTS[0].parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    sourced = {
        f"{name}.sh" for name in re.findall(r"shellcheck source=(\w+)\.sh", (SCRIPTS[0].parent / "run.sh").read_text())
    }
    assert sourced | {"run.sh"} == {path.name for path in SCRIPTS}, "each is looked at, through the one that sources it"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_short(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 300
    starts = [number for number, line in enumerate(lines) if re.match(r"\w+\(\) \{", line)]
    ends = [number for number, line in enumerate(lines) if line == "}"]
    assert len(starts) == len(ends)
    assert all(end - start < 50 for start, end in zip(starts, ends, strict=True))


@pytest.mark.parametrize(("part", "names"), [("inputs", INPUTS), ("outputs", OUTPUTS)])
def test_the_table_of_the_readme_has_a_row_for_each(part: str, names: tuple[str, ...]):
    rows = readme.GENERATED[part]().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == [*names]
