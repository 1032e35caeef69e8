"""What every workflow keeps to: pinned by commit, least permissions, no text of others in a shell."""

from __future__ import annotations

import re

import pytest
import yaml
from workflow_files import ROOT, USES, WORKFLOWS, jobs, load, steps

PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")
VERSION = re.compile(r" # v\d+\.\d+\.\d+\b")
IMAGE = re.compile(r"ghcr\.io/org/quant-verify(?P<rest>\S*?)(?=['\"\s}]|$)")
ACTION = ROOT / "action.yml"
FILES = [*WORKFLOWS, ACTION]


def uses() -> list:
    found = [(path, match) for path in FILES if path.exists() for match in USES.finditer(path.read_text("utf-8"))]
    return [
        pytest.param(match["ref"], match["comment"] or "", id=f"{path.name} {match['ref']}") for path, match in found
    ]


def test_the_workflows_are_found():
    assert {path.stem for path in WORKFLOWS} == {"ci", "fan-out", "release", "selftest"}
    assert len(uses()) > 30


@pytest.mark.parametrize(("ref", "comment"), uses())
def test_what_others_wrote_is_pinned_by_commit_and_named_by_version(ref: str, comment: str):
    if not ref.startswith("./"):
        assert PINNED.fullmatch(ref)
        assert VERSION.match(comment)


def test_one_version_of_each_action():
    pinned = {(ref.partition("@")[0], ref, comment) for ref, comment in (item.values for item in uses())}
    names = [name for name, _, _ in pinned if name != "./"]
    assert len(names) == len({*names})


def test_the_image_of_the_action_is_named_by_its_digest():
    """A tag could be moved to another image after somebody pinned the Action."""
    text = ACTION.read_text(encoding="utf-8")
    named = [match["rest"] for match in IMAGE.finditer(text)]
    assert named
    for rest in named:
        assert re.fullmatch(r"@sha256:[0-9a-f]{64}", rest)


def test_fan_out_uses_one_commit_of_the_action():
    refs = USES.findall((ROOT / ".github/workflows/fan-out.yml").read_text("utf-8"))
    own = [ref for ref, _ in refs if ref.startswith("org/quant-verify@")]
    assert len(own) == 3
    assert len({*own}) == 1


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_no_permission_but_what_its_jobs_ask_for(path):
    document = load(path)
    assert document["permissions"] == {}
    for job in document["jobs"].values():
        assert "permissions" in job
        assert job["permissions"] != "write-all"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_trigger_gives_a_stranger_the_token(path):
    assert not {"pull_request_target", "workflow_run", "issue_comment"} & {*load(path)[True]}


@pytest.mark.parametrize("job", jobs())
def test_a_job_has_an_end(job):
    assert "timeout-minutes" in job or "uses" in job


@pytest.mark.parametrize("step", steps())
def test_a_step_is_safe(step):
    assert "${{" not in step.get("run", ""), "by env, never by interpolation"
    if step.get("uses", "").startswith("actions/checkout@"):
        assert step["with"]["persist-credentials"] is False


def test_write_permissions_are_few():
    """A new one is a decision; so it is written here too."""
    writes = {
        (path.stem, name, scope)
        for path in WORKFLOWS
        for name, job in load(path)["jobs"].items()
        for scope, level in job["permissions"].items()
        if level == "write"
    }
    assert writes == {
        ("release", "image", "packages"),
        ("release", "image", "id-token"),
        ("release", "image", "attestations"),
        ("release", "publish", "contents"),
        ("release", "pypi", "id-token"),
    }


def test_the_version_that_is_released_is_asked_for_by_hand():
    """A pushed tag would stand on a commit that cannot hold the digest of the image that is built from it."""
    assert {*load(ROOT / ".github/workflows/release.yml")[True]} == {"workflow_dispatch"}


def test_dependabot_watches_all_that_is_pinned():
    document = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text(encoding="utf-8"))
    watched = {entry["package-ecosystem"] for entry in document["updates"]}
    assert watched == {"github-actions", "pip", "docker", "npm"}
    assert all(entry["cooldown"]["default-days"] >= 7 for entry in document["updates"])


def test_the_archive_that_runners_fetch_is_without_the_tests():
    lines = (ROOT / ".gitattributes").read_text(encoding="utf-8").splitlines()
    assert "/tests export-ignore" in lines


def test_the_readme_names_every_input_of_the_fan_out():
    inputs = load(ROOT / ".github/workflows/fan-out.yml")[True]["workflow_call"]["inputs"]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("](.github/workflows/fan-out.yml)")[2].partition("\n## ")[0]
    assert [name for name in inputs if f"`{name}`" not in section] == []
