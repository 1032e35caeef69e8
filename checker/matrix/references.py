"""What a reference to a model means: a folder only when it says so, else a Hub repository.

The rule is strict because a matrix is often read in a pull request: a folder ``gpt2`` that somebody adds must not
take the place of the published model ``gpt2`` (design §6).
"""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

from checker.domain import ModelRef
from checker.errors import UsageError

_FOLDER_STARTS = ("./", "../", "/")
_HUB_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_HUB_ID = re.compile(rf"{_HUB_PART}(?:/{_HUB_PART})?")
_HUB_ID_LENGTH = 96
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_REVISION = re.compile(r"[^\x00-\x20\x7f~^:?*\[\\@]{1,255}")  # what git allows in the name of a branch, tag or commit


def parse_reference(text: str, folder: Path) -> ModelRef:
    """The model that ``text`` refers to; relative folders start at ``folder``. Opens nothing, asks no network.

    Raises:
        UsageError: neither a folder nor a valid Hub id, or both; the sentence says what to write instead.
    """
    if _CONTROL.search(text):
        raise UsageError(f"the reference {text!a} holds a control character; remove it")
    if text in {".", ".."} or text.startswith((*_FOLDER_STARTS, "dir:")):
        path = text.removeprefix("dir:")
        if not path:
            raise UsageError("the reference 'dir:' names no folder")
        return ModelRef(kind="folder", name=_spelt(folder / path))
    name, at, revision = text.removeprefix("hf:").partition("@")
    if wrong := _wrong_hub_id(name):
        raise UsageError(f"{text!a} is not a Hub id: {wrong}; a folder starts with ./ ../ / or dir:")
    if at and (not _REVISION.fullmatch(revision) or ".." in revision or revision.startswith(("-", "/"))):
        raise UsageError(f"{text!a} has no valid revision after the @; give a commit, a tag or a branch")
    if not text.startswith("hf:") and _is_folder(folder / name):
        spellings = ascii(f"dir:{name}") + " or " + ascii(f"hf:{text}")
        raise UsageError(f"{text!a} could be the folder or the Hub repository of that name; write {spellings}")
    return ModelRef(kind="hub", name=name, revision=revision or None)


def expand_checkpoints(text: str, folder: Path) -> list[ModelRef]:
    """The checkpoints of one entry: of a glob over folders, sorted, those that hold a config.json.

    Raises:
        UsageError: as ``parse_reference``; also when a glob matches no such folder, or is not one over folders.
    """
    path = text.removeprefix("dir:")
    says_folder = text.startswith((*_FOLDER_STARTS, "dir:"))
    if not glob.has_magic(path) or (says_folder and _is_folder(folder / path)):
        return [parse_reference(text, folder)]
    if not says_folder:
        raise UsageError(f"{text!a}: a glob works for folders only, and a folder starts with ./ ../ / or dir:")
    found = sorted(glob.glob(path, root_dir=folder))  # noqa: PTH207 - Path.glob refuses absolute globs
    checkpoints = [name for name in found if os.path.isfile(folder / name / "config.json")]  # noqa: PTH113
    if not checkpoints:
        raise UsageError(f"{text!a} matches no folder with a config.json; globs start at the matrix file's folder")
    return [parse_reference(f"dir:{name}", folder) for name in checkpoints]


def last_part(reference: ModelRef) -> str:
    """The name that a model goes by when nobody gave it one."""
    return Path(reference.name).name


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - False where Path.is_dir raises: a name too long


def _wrong_hub_id(name: str) -> str | None:
    if "://" in name:
        return "write owner/name, without the address of the site"
    if len(name) > _HUB_ID_LENGTH:
        return f"it is longer than {_HUB_ID_LENGTH} characters"
    if not _HUB_ID.fullmatch(name):
        return "it must be owner/name or name, of letters, digits, '-', '_' and '.'"
    if ".." in name or "--" in name or name.endswith(".git"):
        return "it may not hold '..' or '--', nor end in '.git'"
    return None


def _spelt(path: Path) -> str:
    """A path that still reads as a folder by the rule above, wherever it is shown."""
    text = path.as_posix()
    return text if path.is_absolute() or text == "." or text.startswith("../") else f"./{text}"
