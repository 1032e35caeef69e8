"""Files of a checkpoint folder, opened so that none can hang the reader or lead it out of the folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

from checker.checkpoint.problem import Problem, Refused, about, shown
from checker.checkpoint.source import LocalSource, Source

Result = TypeVar("Result")

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill")

_NOT_PICKLES = ("openvino_*.bin",)
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Stream(Protocol):
    """An open file, as far as readers of small files and headers need one."""

    def read(self, size: int = -1, /) -> bytes:
        """At most so many bytes from here; fewer only at the end."""

    def seek(self, offset: int, /) -> int:
        """Go to an absolute offset."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Folder:
    """A checkpoint folder: what lies in it, and where its files may really be."""

    path: Path
    names: frozenset[str]  # direct entries of every kind, dangling links too
    roots: tuple[str, ...]  # resolved; a file whose resolved path is under none of them is refused

    def locate(self, name: str) -> Path:
        """The path of a file by its relative name.

        Raises:
            Refused: it lies, or its link leads, outside the checkpoint.
        """
        path = self.path / name
        real = "" if "\0" in name else os.path.realpath(path)
        if any(real.startswith(root + os.sep) for root in self.roots):
            return path
        kind = "is a symbolic link that leaves" if "\0" not in name and path.is_symlink() else "lies outside"
        raise Refused(
            about(name)(
                f"{shown(name)} {kind} the checkpoint",
                hint="put the file itself into the checkpoint folder; a path that leaves it is never followed",
            )
        )

    def open(self, name: str) -> AbstractContextManager[tuple[Stream, int]]:
        """A file by its relative name, with its size.

        Raises:
            Refused: outside the checkpoint, missing, not a regular file, or not readable.
        """
        return open_regular(self.locate(name), name)

    def each(self, read: Callable[[str], Result], names: Iterable[str]) -> list[Result]:
        """What ``read`` says of each file, in order."""
        return [read(name) for name in names]

    def source(self, files: Collection[str]) -> Source:
        """Where the tensors of these files are read from."""
        del files
        return LocalSource(self.path)


def list_folder(path: Path) -> Folder:
    """Look into a folder once.

    Raises:
        Refused: it is no folder, or cannot be listed.
    """
    real = Path(os.path.realpath(path))
    try:
        names = frozenset(os.listdir(path))  # noqa: PTH208 -- names are wanted, and 3.11's iterdir makes paths of them
    except OSError as error:
        message = f"the checkpoint folder cannot be read: {_reason(error)}"
        raise Refused(about("")(message, hint="check the path and its permissions")) from None
    return Folder(path=path, names=names, roots=allowed_roots(real))


def allowed_roots(real: Path) -> tuple[str, ...]:
    """Where files of a resolved folder may be: in it, and for a snapshot of the Hub cache where its links lead.

    The paths are joined, not resolved, so that a ``blobs`` that itself leads elsewhere allows nothing.
    """
    roots = [real]
    model = real.parent.parent
    if real.parent.name == "snapshots":
        roots.append(model / "blobs")
        shared = model.parent / "blobs"  # huggingface_hub 2: one store for all models, marked as its own
        if model.name.startswith("models--") and (shared / ".huggingface-shared-blobs").is_file():
            roots.append(shared)
    return tuple(map(str, roots))


@contextmanager
def open_regular(path: Path, name: str) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file for reading, with its size; never waits on a pipe, and judges what was opened, not a path.

    Raises:
        Refused: missing, not a regular file, or not readable.
    """
    say = about(name)
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise Refused(missing(name)) from None
    except OSError as error:
        raise Refused(_unreadable(name, error)) from None
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise Refused(say(f"{shown(name)} is {kind}, not a file", hint="replace it by the file itself"))
    with os.fdopen(handle, "rb") as stream:
        try:
            yield stream, status.st_size
        except OSError as error:
            raise Refused(_unreadable(name, error)) from None


def missing(name: str) -> Problem:
    """A file that something refers to is not there."""
    return about(name)(f"{shown(name)} is missing", hint="upload or download the checkpoint again")


def is_pickle(name: str) -> bool:
    """Whether a file of this name may be a pickle; it is never opened to find out."""
    lowered = name.lower()
    return lowered.endswith(PICKLES) and not any(fnmatchcase(lowered, glob) for glob in _NOT_PICKLES)


def _unreadable(name: str, error: OSError) -> Problem:
    return about(name)(f"{shown(name)} cannot be read: {_reason(error)}", hint="check the file and its permissions")


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
