"""Packages laid over the installed ones: a folder that holds them, for the front of a worker's path.

A cell with ``libraries`` names packages at exact versions. They are put into a folder of the cache, and with them, at
the newest version that fits, whatever they require and the installed packages do not satisfy; never torch, nor what
comes with it. Nothing that is installed changes, and only wheels are used, so that no build script runs here.

A folder is found again by what was asked for, Python, platform, and the versions of the installed packages on which it
was resolved. It is put in place only when complete, so several runs may make the same one at the same time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import sysconfig
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from checker.domain import ErrorKind, Json
from checker.environment import cache_base
from checker.errors import Unavailable
from checker.matrix.packages import canonical_name, described, label
from checker.overlay.pip import Pip
from checker.overlay.resolution import Resolution, installed_version, resolve

MARKER = "quant-verify-overlay.json"  # in a finished folder: what it holds and what it was resolved against
FORMAT = 1
_NAME_LENGTH = 60  # of the part of a folder's name that is for people
_LOCKS: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


def cache_folder() -> Path:
    """Where laid-over packages are kept: in QUANT_VERIFY_CACHE, XDG_CACHE_HOME or ~/.cache."""
    return (cache_base() / "libraries").absolute()


@dataclass(frozen=True, slots=True)
class Site:
    """Whether and how new folders may be made, and where they are kept."""

    offline: bool = False
    say: Callable[[str], None] = lambda _: None  # what takes so long
    cancelled: Callable[[], bool] = lambda: False  # the run has ended
    cache: Path = field(default_factory=cache_folder)


def lay_over(libraries: Mapping[str, str], site: Site) -> Path:
    """The folder that holds these packages (canonical names, exact versions), made now when there is none.

    Raises:
        Unavailable: pip is absent or fails, the requirements contradict each other, they need another torch, the run is
            offline or has ended; one sentence with what to do.
    """
    if os.pathsep in str(site.cache):
        raise Unavailable(f"the cache {site.cache} cannot stand in a path; set QUANT_VERIFY_CACHE to another folder")
    shelf = site.cache / _shelf(libraries)
    with _LOCKS[str(shelf)]:  # another cell of this run may be at it
        folder = find(libraries, site.cache)
        if folder is not None:
            return folder
        if site.offline:
            message = f"{described(libraries)} is not in the cache {site.cache}, and --offline forbids installing it"
            raise Unavailable(f"{message}; run this cell once without --offline", ErrorKind.NETWORK)
        site.say(f"installing {described(libraries)}")
        try:
            return _make(libraries, shelf, site)
        except OSError as error:
            message = f"{described(libraries)} cannot be put into the cache {site.cache}: {error.strerror or error}"
            raise Unavailable(f"{message}; free space there, or set QUANT_VERIFY_CACHE to another folder") from None


def find(libraries: Mapping[str, str], cache: Path) -> Path | None:
    """The finished folder with these packages that was resolved against what is installed now, if there is one."""
    shelf = cache / _shelf(libraries)
    folders = sorted(shelf.iterdir()) if shelf.is_dir() else []
    return next((folder for folder in folders if _fits(folder, libraries)), None)


def seen(folder: str, libraries: Mapping[str, str]) -> dict[str, str]:
    """Versions of everything in ``folder`` as this process would import it, those of ``libraries`` first.

    Raises:
        RuntimeError: something stands before the folder on the path.
    """
    laid = contents(Path(folder))
    versions = {name: metadata.version(name) for name in [*libraries, *sorted(laid.keys() - libraries.keys())]}
    if versions != laid:
        raise RuntimeError(f"other versions were asked for than are found: {laid} is laid over, {versions} is seen")
    return versions


def contents(folder: Path) -> dict[str, str]:
    """Version by canonical name of each package in a folder."""
    found = metadata.distributions(path=[str(folder)])
    return {canonical_name(item.metadata["Name"]): item.version for item in found if item.metadata["Name"]}


def _shelf(libraries: Mapping[str, str]) -> str:
    """The name of the folder of all folders with these packages for this Python and platform."""
    where = [platform.python_implementation(), platform.python_version(), sysconfig.get_platform(), platform.libc_ver()]
    asked = [FORMAT, *where, sorted(libraries.items())]
    return f"{label(libraries)[:_NAME_LENGTH]}-{_digest(asked)}"


def _digest(value: Json) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _fits(folder: Path, libraries: Mapping[str, str]) -> bool:
    """Whether a folder is whole, holds what is asked for, and what it was resolved against is still installed."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        against, contains = marker["against"].items(), marker["contains"]
        same = marker["requested"] == dict(libraries) and all(installed_version(name) == was for name, was in against)
        return same and contents(folder) == contains
    except (OSError, ValueError, LookupError, AttributeError, TypeError):  # no marker of ours
        return False


def _make(libraries: Mapping[str, str], shelf: Path, site: Site) -> Path:
    site.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=site.cache, prefix=".making-") as temporary:
        pip = Pip(folder=Path(temporary), cancelled=site.cancelled)
        resolution = resolve(libraries, pip.fetch, installed_version)
        made = Path(temporary) / "made"
        pip.unpack([wheel.path for wheel in resolution.wheels.values()], made)
        _check_whole(made, resolution)
        marker = {
            "format": FORMAT,
            "requested": dict(libraries),
            "contains": contents(made),
            "against": resolution.against,
            "wheels": sorted(wheel.path.name for wheel in resolution.wheels.values()),
        }
        (made / MARKER).write_text(json.dumps(marker, indent=1), encoding="utf-8")
        folder = shelf / _digest(sorted(resolution.against.items()))
        return _put_in_place(made, folder, libraries)


def _put_in_place(made: Path, folder: Path, libraries: Mapping[str, str]) -> Path:
    """Move a finished folder to its name. Another run may have been faster: then its folder is as good."""
    folder.parent.mkdir(exist_ok=True)
    for _ in range(2):
        with contextlib.suppress(OSError):
            made.rename(folder)
            return folder
        if _fits(folder, libraries):
            return folder
        shutil.rmtree(folder, ignore_errors=True)  # damaged: something deleted parts of it
    made.rename(folder)
    return folder


def _check_whole(made: Path, resolution: Resolution) -> None:
    absent = resolution.wheels.keys() - contents(made).keys()
    if absent:
        raise Unavailable(f"pip left out {', '.join(sorted(absent))}; QUANT_VERIFY_CACHE may name another folder")
