"""One step with the Action as a runner starts it, on a machine of which we say what it has."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEP: dict[str, Any] = ACTION["runs"]["steps"][0]
CHECKPOINT = ROOT / "tests/fixtures/checkpoints/awq/autoawq-skip"
IMAGE = "ghcr.io/org/quant-verify@sha256:" + "a" * 64
SECONDS = 60
# What the scripts may call. A runner has more, but a test must not find its docker or its quant-verify.
PROGRAMS = (
    "bash", "cat", "chmod", "cut", "dirname", "env", "grep", "id", "mkdir", "mktemp", "rm", "seq", "sleep", "tr", "wc",
    "xargs", "printf",
)  # fmt: skip


def tool(name: str) -> str:
    """The path of a program of the dev extra; the test skips where it is not installed."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def runner_parser() -> ModuleType:
    """The port of the runner's parser of workflow commands, which the tests of the reporters use."""
    spec = importlib.util.spec_from_file_location("parser", ROOT / "tests/reporters/reporters_runner.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def variable(name: str) -> str:
    """Of an input."""
    return "QUANT_VERIFY_" + name.replace("-", "_").upper()


@dataclass(frozen=True)
class Done:
    """How the step ended, and what it gave to the workflow."""

    code: int
    out: str
    err: str
    outputs: dict[str, str]
    summary: str

    @property
    def log(self) -> str:
        return self.out + self.err

    @property
    def error(self) -> str:
        """The one sentence that says why nothing was run."""
        found = [line for line in self.out.splitlines() if line.startswith("::error title=quant-verify::")]
        assert len(found) == 1, self.log
        return found[0].rpartition("::")[2].replace("%25", "%")


class Machine:
    """A runner with a workspace that holds one checkpoint, and the few programs that we give it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace, self.temp, self.tools = folder / "workspace", folder / "temp", folder / "tools"
        self.home, self.programs, self.notes = folder / "home", folder / "bin", folder / "notes"
        commands = self.temp / "_runner_file_commands"
        for path in (self.workspace, commands, self.tools, self.home, self.programs, self.notes):
            path.mkdir(parents=True)
        self.output, self.summary = commands / "output", commands / "summary"
        self.output.touch()
        self.summary.touch()
        for name in PROGRAMS:
            if found := shutil.which(name):
                (self.programs / name).symlink_to(found)
        shutil.copytree(CHECKPOINT, self.workspace / "model")

    def has(self, name: str, *command: object) -> None:
        """Put a program on PATH that runs this command with the words given to it."""
        path = self.programs / name
        path.write_text(f'#!{shutil.which("bash")}\nexec {shlex.join(map(str, command))} "$@"\n')
        path.chmod(0o755)

    def has_quant_verify(self, entry: Path = ROOT / "entrypoint.py") -> None:
        self.has("quant-verify", sys.executable, entry)

    def has_docker(self) -> None:
        self.has("docker", sys.executable, Path(__file__).with_name("docker_stand_in.py"), self.notes)

    def has_gpus(self) -> None:
        self.has("nvidia-smi", "printf", "GPU 0: NVIDIA H200 (UUID: GPU-1)\\n")

    def calls(self, word: str = "run") -> list[list[str]]:
        """The calls of docker that begin with a word."""
        calls = [os.fsdecode(path.read_bytes()).split("\0")[:-1] for path in sorted(self.notes.glob("call-*"))]
        return [call for call in calls if call[0] == word]

    def forget_calls(self) -> None:
        for path in self.notes.glob("call-*"):
            path.unlink()

    def contained(self, word: str = "action") -> dict[str, str]:
        """The environment that the container was given."""
        given: dict[str, str] = json.loads((self.notes / f"environment-{word}.json").read_text())
        return given

    def environment(self, inputs: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
        """What the runner makes of ``with`` and of ``env``; the inputs win, and those not given are empty."""
        names = [name for name in STEP["env"] if name.startswith("QUANT_VERIFY_")]
        unknown = {variable(name) for name in inputs} - {*names}
        assert not unknown
        given = {name: variables.get(name, "") for name in names}
        given |= {variable(name): value for name, value in inputs.items() if value}
        return {
            "PATH": str(self.programs),
            "HOME": str(self.home),
            "TMPDIR": tempfile.gettempdir(),
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTION_PATH": str(ROOT),
            "GITHUB_WORKSPACE": str(self.workspace),
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_ENV": str(self.output.with_name("env")),
            "GITHUB_TOKEN": "ghs_workflow",
            "RUNNER_OS": "Linux",
            "RUNNER_TEMP": str(self.temp),
            "RUNNER_TOOL_CACHE": str(self.tools),
            **variables,
            **given,
        }

    def start(self, inputs: Mapping[str, str], **variables: str) -> subprocess.Popen[str]:
        script = self.temp / "step.sh"
        script.write_text(STEP["run"], encoding="utf-8")
        return subprocess.Popen(
            [str(self.programs / "bash"), "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)],
            cwd=self.workspace,
            env=self.environment(inputs, variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def finish(self, process: subprocess.Popen[str]) -> Done:
        out, err = process.communicate(timeout=SECONDS)
        assert not [*self.temp.glob("quant-verify.*")], "a temporary folder was left behind"
        lines = self.output.read_text(encoding="utf-8").splitlines()
        pairs = [line.partition("=") for line in lines]
        assert all(equals for _, equals, _ in pairs), lines
        outputs = {name: value for name, _, value in pairs}
        assert len(outputs) == len(lines), (lines, out, err)
        summary = self.summary.read_text(encoding="utf-8")
        return Done(code=process.returncode, out=out, err=err, outputs=outputs, summary=summary)

    def run(self, inputs: Mapping[str, str], **variables: str) -> Done:
        """The step, to its end."""
        self.output.write_text("")
        self.summary.write_text("")
        return self.finish(self.start(inputs, **variables))
