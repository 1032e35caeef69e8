"""What cannot be done is one sentence with a remedy, and nothing is run; what is hostile stays text."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from launcher import IMAGE, ROOT, Machine, runner_parser

EVIL = {
    "path": (
        "a\n::error::pwned\r::stop-commands::pwned\n##[error]pwned",
        "::add-mask::e ##[set-env]pwned %0A::error::x",
    ),
    "docker": ("$(touch pwned) `touch pwned` '; touch pwned; ' \"; touch pwned; \" * \n::error::pwned",),
}
INPUTS = (
    "command", "matrix", "checkpoint", "baseline", "depth", "select", "ignore", "only", "shard", "device", "gpus",
    "runtime", "image", "docker-options", "cache-dir", "report-dir", "fail-on", "annotations", "comment", "offline",
    "working-directory", "args",
)  # fmt: skip
OURS = {"add-mask", "group", "endgroup"}


@pytest.mark.parametrize(
    ("inputs", "variables", "code", "says"),
    [
        ({"runtime": "docker"}, {}, 2, "names no image yet; build one (docker build -t quant-verify .)"),
        ({"runtime": "docker", "image": "a b"}, {}, 2, "the input image is 'a b', which is no name of an image"),
        ({"runtime": "docker", "image": "-v"}, {}, 2, "the input image is '-v', which is no name of an image"),
        ({"runtime": "docker", "image": IMAGE}, {}, 3, "there is no docker on this runner; use the image as"),
        ({"image": IMAGE}, {}, 3, "there is no docker on this runner"),
        ({"runtime": "path"}, {}, 3, "there is no quant-verify on PATH; install it in a step before this one"),
        ({"runtime": "python"}, {}, 3, "needs Python 3.11 or newer, and this runner has none; run"),
        ({"runtime": "python", "depth": "full"}, {}, 2, "runtime python installs no torch"),
        ({"runtime": "python", "command": "record"}, {}, 2, "runtime python installs no torch"),
        ({"runtime": "podman"}, {}, 2, "the input runtime is 'podman', which is none of auto, docker, python, path"),
        ({"working-directory": "absent"}, {}, 2, "but there is no such folder in the workspace"),
        ({"working-directory": ".."}, {}, 2, "which lies outside the workspace"),
        ({"working-directory": "/"}, {}, 2, "which lies outside the workspace"),
        ({"working-directory": "out"}, {}, 2, "which lies outside the workspace"),
        ({"comment": "sometimes"}, {}, 2, "which is none of never, changes, failures, always"),
        ({"offline": "perhaps"}, {}, 2, "the input offline is 'perhaps', which is neither true nor false"),
        ({"cache-dir": "model/config.json"}, {}, 2, "cannot be made; set the input cache-dir to a folder that"),
        ({}, {"RUNNER_OS": "Windows"}, 2, "runs on Linux and macOS, and this runner is a Windows one"),
        ({}, {"GITHUB_WORKSPACE": "/nonexistent"}, 3, "there is no workspace /nonexistent; run actions/checkout"),
        ({"runtime": "path", "gpus": "2"}, {}, 3, "but this runner has no NVIDIA device"),
    ],
)  # fmt: skip
def test_a_sentence_for_what_cannot_be_done(machine: Machine, inputs, variables, code, says):
    (machine.workspace / "out").symlink_to(machine.temp)
    if "gpus" in inputs:
        machine.has_quant_verify()
    done = machine.run(inputs, **variables)
    assert (done.code, done.outputs["exit-code"]) == (code, str(code)), done.log
    assert done.outputs["verdict"] == {2: "usage-error", 3: "unverified"}[code]
    assert says in done.error
    assert not (machine.workspace / "quant-verify-report").exists()


def test_a_python_that_is_too_old_is_named(machine: Machine):
    machine.has("python3", "bash", "-c", '[[ $1 == --version ]] && echo "Python 3.9.18"; exit 1', "python3")
    assert "and this runner has Python 3.9.18; run actions/setup-python" in machine.run({"command": "plan"}).error


def test_a_newer_python_by_another_name_is_found(machine: Machine):
    machine.has("python3", "bash", "-c", "exit 1")
    machine.has("python3.12", "bash", "-c", '[[ $2 != -m ]] && exec "$0" "$@"; exit 1', sys.executable)
    done = machine.run({"command": "plan"})
    assert "the requirements could not be installed" in done.error
    assert not [*machine.tools.glob("*/*")]


def test_a_job_in_a_container_cannot_start_another(with_docker: Machine):
    """The name of the workspace tells: it is there in every container of a job, and docker knows no such folder."""
    script = f"""
        set -euo pipefail
        for part in workflow child inputs gpus docker; do . "{ROOT}/.github/action/$part.sh"; done
        finish() {{ exit "$1"; }}
        workspace=/__w/models/models
        QUANT_VERIFY_IMAGE={IMAGE}
        prepare_docker
        """
    done = subprocess.run(
        ["bash", "-c", script], env={"PATH": str(with_docker.programs)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("quant-verify: runtime docker: this job runs in a container, whose folders docker")
    assert with_docker.calls() == []


@pytest.mark.parametrize(
    ("inputs", "variables", "runtime"),
    [
        ({}, {}, "docker"),
        ({"depth": "static"}, {}, "python"),
        ({"depth": "load"}, {}, "docker"),
        ({}, {"QUANT_VERIFY_DEPTH": "static"}, "python"),
        ({"depth": "full"}, {"QUANT_VERIFY_DEPTH": "static"}, "docker"),
        ({"checkpoint": "./model"}, {}, "python"),
        ({"checkpoint": "./model", "depth": "full"}, {}, "docker"),
        ({"checkpoint": "./model", "args": "--depth full"}, {}, "docker"),
        ({"checkpoint": "./model"}, {"QUANT_VERIFY_ARCHITECTURE": "true"}, "docker"),
        ({"checkpoint": "./model"}, {"QUANT_VERIFY_ARCHITECTURE": "false"}, "python"),
        ({"command": "check"}, {}, "python"),
        ({"command": "plan"}, {}, "python"),
        ({"command": "merge"}, {}, "python"),
        ({"command": "compare"}, {}, "python"),
        ({"command": "record"}, {}, "docker"),
        ({"command": "record", "depth": "static"}, {}, "docker"),
        ({}, {"QUANT_VERIFY_IN_IMAGE": "1"}, "path"),
        ({"depth": "static"}, {"QUANT_VERIFY_IN_IMAGE": "1"}, "path"),
        ({}, {"QUANT_VERIFY_RUNTIME": "path"}, "path"),
        ({"runtime": "docker"}, {"QUANT_VERIFY_RUNTIME": "path"}, "docker"),
    ],
)
def test_which_runtime_is_chosen(machine: Machine, inputs, variables, runtime):
    """On a machine that has nothing, each says what it misses."""
    said = machine.run({"image": IMAGE, **inputs}, **variables).error
    missing = {"docker": "no docker on this", "python": "needs Python 3.11", "path": "no quant-verify on PATH"}
    assert missing[runtime] in said


@pytest.mark.parametrize("name", INPUTS)
def test_a_hostile_input_stays_text(with_docker: Machine, name):
    """Whatever becomes of the run: nothing is executed, and the log holds no command that is not ours."""
    with_docker.has_quant_verify()
    parse = runner_parser().commands
    before = {path.name for path in with_docker.workspace.iterdir()}
    for runtime, evils in EVIL.items():
        for evil in evils:
            inputs = {"checkpoint": "./model", "runtime": runtime, "image": IMAGE, name: evil}
            if name in ("matrix", "command"):
                del inputs["checkpoint"]
            done = with_docker.run(inputs)
            assert done.code in range(5), done.log
            for command, properties, _ in parse(done.log):
                named = properties.get("title", "").startswith(("quant-verify", "model"))
                assert command in OURS or (command in ("error", "warning") and named), done.log
            assert "Traceback" not in done.log
    made = {path.name for path in with_docker.workspace.iterdir()} - before
    assert "pwned" not in made
    assert not [path for path in (with_docker.folder, with_docker.temp, with_docker.home) if (path / "pwned").exists()]


def test_a_hostile_matrix_stays_text(with_path: Machine):
    (with_path.workspace / "quant-verify.yml").write_text(
        textwrap.dedent("""\
            version: 1
            models:
              - {name: "::error::pwned", checkpoints: {"##[error]pwned": "./$(touch pwned)"}}
              - {name: "a\\n::error::pwned", checkpoints: ["./`touch pwned`", "./\\u2028::warning::x"]}
            "::stop-commands::x": 1
            """)
    )
    done = with_path.run({"runtime": "path"})
    assert done.code == 2, done.log
    assert runner_parser().commands(done.log) == []
    assert "pwned" in done.err
    assert not (with_path.workspace / "pwned").exists()


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"checkpoint": "--trust-remote-code"}, "'--trust-remote-code'"),
        ({"checkpoint": "--help"}, "'--help'"),
        ({"command": "run", "matrix": "--help"}, "there is no matrix file --help"),
        ({"command": "merge", "matrix": "--help", "args": "jobs/*"}, "there is no matrix file --help"),
        ({"checkpoint": "./model", "args": "--help"}, "args asks for help and not for a verdict"),
        ({"command": "--help"}, "the input command is '--help', which is none of run, check"),
    ],
)
def test_an_input_is_no_option(with_path: Machine, inputs, says):
    done = with_path.run({"runtime": "path", **inputs})
    assert (done.code, done.outputs["verdict"]) == (2, "usage-error"), done.log
    assert says in done.err
