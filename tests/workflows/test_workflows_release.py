"""What a release writes: the scripts of ``release.yml`` and ``selftest.yml``, on copies."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from workflow_files import ROOT, load

SCRIPTS = ROOT / ".github" / "scripts"
DIGEST = "sha256:" + "5f" * 32
COMMIT = "c0ffee" * 6 + "c0ff"
ACTION = "        QUANT_VERIFY_IMAGE: ${{ inputs.image || 'ghcr.io/org/quant-verify@sha256:" + "0" * 64 + "' }}\n"
FAN_OUT = Path(".github/workflows/fan-out.yml")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pin, expect = script("pin"), script("expect")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What the scripts read and write, in a folder of its own."""
    root = tmp_path / "tree"
    (root / "checker").mkdir(parents=True)
    (root / "checker" / "__init__.py").write_text('"""A package."""\n\n__version__ = "1.2.3"\n')
    (root / "CHANGELOG.md").write_text("# Changelog\n\n## [1.2.3] - 2030-01-02\n\n## [1.2.2] - unreleased\n")
    (root / "action.yml").write_text(ACTION)
    (root / FAN_OUT).parent.mkdir(parents=True)
    shutil.copy(ROOT / FAN_OUT, root / FAN_OUT)
    return root


def test_the_digest_takes_the_place_of_the_old_one(tree: Path):
    for digest in (DIGEST, "sha256:" + "a1" * 32):
        pin.main(["image", digest], tree)
        assert (tree / "action.yml").read_text() == ACTION.replace("sha256:" + "0" * 64, digest)


def test_the_commit_takes_the_place_of_the_old_one_in_every_job(tree: Path):
    before = (tree / FAN_OUT).read_text()
    pin.main(["action", COMMIT, "1.2.3"], tree)
    after = (tree / FAN_OUT).read_text()
    assert after.count(f"uses: org/quant-verify@{COMMIT} # v1.2.3\n") == 3
    changed = [(old, new) for old, new in zip(before.splitlines(), after.splitlines(), strict=True) if old != new]
    assert len(changed) == 3
    assert load(tree / FAN_OUT)["jobs"].keys() == load(ROOT / FAN_OUT)["jobs"].keys()
    pin.main(["action", "f" * 40, "1.2.4"], tree)
    assert (tree / FAN_OUT).read_text().count(f"{'f' * 40} # v1.2.4") == 3


def test_the_real_action_has_a_place_for_the_digest(tree: Path):
    shutil.copy(ROOT / "action.yml", tree / "action.yml")
    pin.main(["image", DIGEST], tree)
    assert f"ghcr.io/org/quant-verify@{DIGEST}'" in (tree / "action.yml").read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ["image", "v1"],
        ["image", "latest"],
        ["image", "sha256:" + "0" * 64],
        ["image", DIGEST[:-1]],
        ["image", DIGEST + "\n"],
        ["image", DIGEST.upper()],
        ["action", "main", "1.2.3"],
        ["action", "v1", "1.2.3"],
        ["action", "0" * 40, "1.2.3"],
        ["action", COMMIT[:7], "1.2.3"],
        ["action", COMMIT, "1.2"],
        ["action", COMMIT, "v1.2.3"],
        ["action", COMMIT, "1.2.3 # x"],
        ["action", COMMIT],
        ["version", "1.2.2"],
        ["version", "1.2.3-rc1"],
        ["version", "01.2.3"],
        ["version", "1.2.3;id"],
        ["version"],
        [],
        ["tag", "1.2.3"],
    ],
    ids=repr,
)
def test_what_could_be_moved_or_is_malformed_is_refused(arguments: list[str], tree: Path):
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as caught:
        pin.main(arguments, tree)
    assert caught.value.code not in (None, 0)
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()} == before


def test_a_version_is_ready_when_it_is_dated(tree: Path):
    pin.main(["version", "1.2.3"], tree)
    (tree / "CHANGELOG.md").write_text("## [1.2.3] - unreleased\n")
    with pytest.raises(SystemExit, match=r"CHANGELOG\.md has no line"):
        pin.main(["version", "1.2.3"], tree)


def test_a_file_without_its_place_is_an_error(tree: Path):
    (tree / "action.yml").write_text("image: ghcr.io/org/quant-verify:v1\n")
    with pytest.raises(SystemExit, match=r"action\.yml has no place for"):
        pin.main(["image", DIGEST], tree)


def git(*words: str, cwd: Path) -> str:
    settings = ["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "init.defaultBranch=main"]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    done = subprocess.run(
        ["git", *settings, *words], cwd=cwd, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def cloned(tree: Path, tmp_path: Path) -> Path:
    """A clone of a repository with an older release, in which the scripts can run."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    (tree / ".github" / "scripts").mkdir()
    for path in SCRIPTS.iterdir():
        if path.is_file():
            shutil.copy(path, tree / ".github" / "scripts" / path.name)
    git("init", "--quiet", cwd=tree)
    git("add", ".", cwd=tree)
    git("commit", "--quiet", "--message", "All", cwd=tree)
    for tag in ("v1.2.2", "v1"):
        git("tag", tag, cwd=tree)
    git("clone", "--quiet", "--bare", ".", str(tmp_path / "origin.git"), cwd=tree)
    git("clone", "--quiet", str(tmp_path / "origin.git"), str(tmp_path / "clone"), cwd=tmp_path)
    return tmp_path / "clone"


def release(clone: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    return subprocess.run(
        [".github/scripts/tag.sh", *words], cwd=clone, env=environment, capture_output=True, text=True, check=False
    )


def test_a_release_is_two_commits_and_two_tags_in_one_push(cloned: Path, tmp_path: Path):
    old = git("rev-parse", "HEAD", cwd=cloned)
    done = release(cloned, "1.2.3", DIGEST, "origin", "main")
    assert done.returncode == 0, done.stderr
    origin = tmp_path / "origin.git"
    head = git("rev-parse", "main", cwd=origin)
    assert {git("rev-parse", tag, cwd=origin) for tag in ("v1", "v1.2.3")} == {head}
    assert git("rev-parse", "v1.2.2", cwd=origin) == old
    assert git("rev-parse", "main~2", cwd=origin) == old
    pinned = git("rev-parse", "main~1", cwd=origin)
    assert git("show", "main:.github/workflows/fan-out.yml", cwd=origin).count(f"@{pinned} # v1.2.3") == 3
    assert DIGEST in git("show", f"{pinned}:action.yml", cwd=origin)
    assert git("diff", "--name-only", pinned, "main", cwd=origin) == str(FAN_OUT)


def test_a_release_of_a_branch_that_has_moved_pushes_nothing(cloned: Path, tmp_path: Path):
    other = tmp_path / "other"
    git("clone", "--quiet", str(tmp_path / "origin.git"), str(other), cwd=tmp_path)
    (other / "new").write_text("")
    git("add", ".", cwd=other)
    git("commit", "--quiet", "--message", "New", cwd=other)
    git("push", "--quiet", "origin", "main", cwd=other)
    before = git("for-each-ref", cwd=tmp_path / "origin.git")
    assert release(cloned, "1.2.3", DIGEST, "origin", "main").returncode != 0
    assert git("for-each-ref", cwd=tmp_path / "origin.git") == before


def test_a_fix_of_an_older_version_does_not_take_the_major_tag_back(cloned: Path, tmp_path: Path):
    git("tag", "v1.10.0", cwd=cloned)
    old = git("rev-parse", "v1", cwd=tmp_path / "origin.git")
    done = release(cloned, "1.2.3", DIGEST, "origin", "main")
    assert done.returncode == 0, done.stderr
    assert git("rev-parse", "v1", cwd=tmp_path / "origin.git") == old
    assert git("rev-parse", "v1.2.3", cwd=tmp_path / "origin.git") != old


def test_a_version_is_released_once(cloned: Path, tmp_path: Path):
    git("tag", "v1.2.3", cwd=cloned)
    before = git("for-each-ref", cwd=tmp_path / "origin.git")
    assert release(cloned, "1.2.3", DIGEST, "origin", "main").returncode != 0
    assert git("for-each-ref", cwd=tmp_path / "origin.git") == before


@pytest.mark.parametrize("words", [(), ("1.2.3",), ("1.2.3", "latest", "origin", "main"), ("9.9.9", DIGEST, "o", "m")])
def test_a_release_of_something_else_changes_nothing(words: tuple[str, ...], cloned: Path):
    old = git("rev-parse", "HEAD", cwd=cloned)
    assert release(cloned, *words).returncode != 0
    assert git("rev-parse", "HEAD", cwd=cloned) == old
    assert git("status", "--porcelain", cwd=cloned) == ""


OUTPUTS = {"verdict": "failed", "exit-code": "1", "cells": "4"}


@pytest.mark.parametrize(
    ("expected", "outputs", "said"),
    [
        ("verdict=failed exit-code=1 outcome=failure", OUTPUTS, ""),
        ("verdict=passed", OUTPUTS, "verdict is 'failed', not 'passed'"),
        ("cells=3 skipped=0", OUTPUTS, "cells is '4', not '3'\nskipped is None, not '0'"),
        ("outcome=success", OUTPUTS, "outcome is 'failure', not 'success'"),
        ("verdict=failed", {**OUTPUTS, "junit": "absent.xml"}, "junit names 'absent.xml', which is no file"),
        ("reports", OUTPUTS, "no output junit\nno output json\nno output summary\nno output html"),
    ],
)
def test_the_self_test_compares(expected: str, outputs: dict[str, str], said: str, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "expect.py"), *expected.split()],
        cwd=tmp_path,
        env={**os.environ, "OUTCOME": "failure", "OUTPUTS": json.dumps(outputs)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0, done.stderr.strip()) == (bool(said), said)
