"""Folder or Hub repository: a folder only when it says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from checker.domain import ModelRef
from checker.errors import UsageError
from checker.matrix.references import expand_checkpoints, parse_reference

ACCEPTED = {
    "gpt2": ModelRef(kind="hub", name="gpt2"),
    "org/model": ModelRef(kind="hub", name="org/model"),
    "hf:org/model": ModelRef(kind="hub", name="org/model"),
    "org/model@main": ModelRef(kind="hub", name="org/model", revision="main"),
    "hf:gpt2@refs/pr/1": ModelRef(kind="hub", name="gpt2", revision="refs/pr/1"),
    "Org-1/Model_2.5-x@v1.0": ModelRef(kind="hub", name="Org-1/Model_2.5-x", revision="v1.0"),
    "./a": ModelRef(kind="folder", name="sub/a"),
    "./a/b/": ModelRef(kind="folder", name="sub/a/b"),
    "../a": ModelRef(kind="folder", name="sub/../a"),
    "dir:a": ModelRef(kind="folder", name="sub/a"),
    "dir:/a": ModelRef(kind="folder", name="/a"),
    "/a/b@c": ModelRef(kind="folder", name="/a/b@c"),
}


@pytest.mark.parametrize(("text", "reference"), ACCEPTED.items(), ids=ACCEPTED.keys())
def test_accepted(text, reference, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = reference.name if reference.kind == "hub" or reference.name[0] == "/" else f"./{reference.name}"
    found = parse_reference(text, Path("sub"))
    assert (found.kind, found.name, found.revision) == (reference.kind, expected, reference.revision)


def test_a_shown_folder_reads_as_a_folder_again():
    assert parse_reference("../a", Path()).name == "../a"
    assert parse_reference("./a", Path()).name == "./a"


REFUSED = {
    "climbs": ("a/../x", "not a Hub id"),
    "only dots": ("..x", "not a Hub id"),
    "two dots": ("a..b", "may not hold '..'"),
    "two dashes": ("a--b", "'--'"),
    "git suffix": ("org/m.git", "'.git'"),
    "three parts": ("a/b/c", "owner/name"),
    "space": ("my model", "owner/name"),
    "leading dash": ("-m", "owner/name"),
    "line end": ("a\n::error::x", r"'a\n::error::x' holds a control character"),
    "workflow command": ("::error::x", "not a Hub id"),
    "terminal escape": ("a\x1b[31m", r"\x1b"),
    "too long": ("a" * 97, "longer than 96"),
    "address": ("https://huggingface.co/org/m", "without the address of the site"),
    "home": ("~/m", "a folder starts with ./"),
    "letters of other scripts": ("\u043erg/m", r"\u043e"),
    "empty revision": ("org/m@", "no valid revision"),
    "revision climbs": ("org/m@../x", "no valid revision"),
    "revision is an option": ("org/m@-x", "no valid revision"),
    "two revisions": ("org/m@a@b", "no valid revision"),
    "nothing after dir:": ("dir:", "names no folder"),
    "nothing after hf:": ("hf:", "not a Hub id"),
    "windows path": ("a\\b", "not a Hub id"),
}


@pytest.mark.parametrize(("text", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_with_an_escaped_name(text, sentence):
    with pytest.raises(UsageError, match=re.escape(sentence)) as caught:
        parse_reference(text, Path())
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["org/model", "org/model@main"])
def test_a_folder_cannot_shadow_a_published_model(text, checkpoint_folder, tmp_path):
    checkpoint_folder("org/model")
    with pytest.raises(UsageError, match=f"write 'dir:org/model' or 'hf:{text}'"):
        parse_reference(text, tmp_path)
    assert parse_reference(f"hf:{text}", tmp_path).kind == "hub"
    assert parse_reference("dir:org/model", tmp_path).kind == "folder"


def test_globs_take_the_folders_that_hold_a_config(checkpoint_folder, tmp_path):
    for name in ("models/b", "models/a", "models/c/nested"):
        checkpoint_folder(name)
    (tmp_path / "models" / "file").touch()
    found = expand_checkpoints("./models/*", tmp_path)
    assert [Path(item.name).relative_to(tmp_path).as_posix() for item in found] == ["models/a", "models/b"]
    assert found == expand_checkpoints(f"{tmp_path}/models/*", Path("elsewhere"))


def test_a_folder_whose_name_looks_like_a_glob(checkpoint_folder, tmp_path):
    checkpoint_folder("m[1]")
    assert [Path(item.name).name for item in expand_checkpoints("./m[1]", tmp_path)] == ["m[1]"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("./none/*", "matches no folder with a config.json"), ("org/*", "a glob works for folders only")],
    ids=["nothing there", "on the Hub"],
)
def test_globs_refused(text, sentence, tmp_path):
    with pytest.raises(UsageError, match=sentence):
        expand_checkpoints(text, tmp_path)


def test_a_name_too_long_for_the_file_system_is_no_crash(tmp_path):
    assert len(expand_checkpoints(f"./{'a' * 5000}", tmp_path)) == 1
    with pytest.raises(UsageError):
        expand_checkpoints(f"./{'a' * 5000}*", tmp_path)
