"""Which reference a cell is compared with: a recorded one, one of the cache, or one that is made now, once for all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from checker.checkpoint.problem import shown
from checker.checkpoint.resolve import Resolved
from checker.domain import Cell, CheckError, Depth, ModelRef, Prompt
from checker.environment import cache_base
from checker.errors import Unavailable
from checker.facts import DivergenceFacts, TextFacts
from checker.protocol import ReferenceJob
from checker.reference import NOISE, ROW_LENGTHS, SCHEMA, Identity
from checker.registry import all_checks

MOST_KEPT = 20 << 30  # bytes of references in the cache; beyond it those used longest ago go
ABANDONED = 86_400  # seconds after which nobody writes to a file any more
ENDING = ".safetensors"
KNOWN_GOOD = "known-good.json"
WANTED_BY = (DivergenceFacts, TextFacts)

Make = Callable[[ReferenceJob, Cell], None]


class Recorded(NamedTuple):
    """A recorded reference, and the revision of the baseline that it is of."""

    path: Path
    revision: str


@dataclass(kw_only=True)
class References:
    """Finds and makes the references of one run. ``make`` runs a worker; ``folder`` holds recorded ones."""

    make: Make
    folder: Path | None = None
    _locks: dict[Identity, threading.Lock] = field(default_factory=dict)
    _errors: dict[Identity, CheckError] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def recorded(self, cell: Cell) -> Recorded | None:
        """The recorded reference of a cell's baseline, which then need not even be fetched; None when there is none.

        Raises:
            Unavailable: one of that name belongs to another revision or other prompts.
        """
        if self.folder is None or cell.baseline is None:
            return None
        path = next((path for path in names_of(self.folder, cell) if path.exists()), None)
        if path is None:
            if self.folder.exists() and not self.folder.is_dir():
                raise Unavailable(f"references: {shown(str(self.folder))} is no folder; name another one in the matrix")
            return None
        from checker.reference import read_reference

        summary = read_reference(path).summary
        if summary.full:
            message = f"the reference {shown(str(path))} is one of the cache, not a recorded one"
            raise Unavailable(f"{message}; write it anew with quant-verify record")
        theirs = summary.identity
        commit = revision_of(cell.baseline)
        what, remedy = f"the reference {shown(str(path))}", "write it anew with quant-verify record"
        pairs = (
            ("baseline", theirs.baseline, name_of(cell.baseline)),
            ("revision", theirs.revision, theirs.revision if commit is None else commit),
        )
        for name, have, want in pairs:
            if have != want:
                raise Unavailable(f"{what} belongs to another {name}: to {shown(have)}, not to {shown(want)}; {remedy}")
        if theirs.prompts != _prompts(cell):
            raise Unavailable(f"{what} was recorded with other prompts than the matrix has now; {remedy}")
        return Recorded(path, theirs.revision)

    def made(self, cell: Cell, baseline: Resolved) -> Path:
        """The cached reference of a baseline whose files are there; made when it is not in the cache.

        Raises:
            Unavailable: it could not be made; the same reason for every cell of the baseline.
        """
        assert cell.baseline is not None
        identity = identity_of(cell, baseline)
        with self._lock:
            own = self._locks.setdefault(identity, threading.Lock())
        with own:
            if identity in self._errors:
                raise Unavailable(self._errors[identity].message, self._errors[identity].kind)
            path = _cache() / f"{_key(identity)}{ENDING}"
            if _is_sound(path):
                return path
            try:
                self.make(reference_job(cell, baseline, identity, path), cell)
            except Unavailable as error:
                message = f"the reference of {cell.baseline} could not be made: {error}"
                self._errors[identity] = CheckError(kind=error.kind, message=message)
                raise Unavailable(message, error.kind) from error
            _prune(path.parent, keep=path)
            return path

    def known_good(self) -> Path | None:
        """The file of recorded texts, if there is one."""
        path = None if self.folder is None else self.folder / KNOWN_GOOD
        return path if path is not None and path.is_file() else None


def wants_reference(cell: Cell, checks: tuple[str, ...]) -> bool:
    """Whether any of a cell's checks compares outputs with those of its baseline."""
    if cell.baseline is None or cell.settings.depth is not Depth.FULL:
        return False
    return any(need.kind in WANTED_BY for item in all_checks() if item.id in checks for need in item.needs)


def identity_of(cell: Cell, baseline: Resolved) -> Identity:
    """What a reference of these files, for this cell's prompts, is of."""
    from checker.reference.identity import folder_revision, tokenizer_digest

    assert cell.baseline is not None
    return Identity(
        baseline=name_of(cell.baseline),
        revision=baseline.revision or folder_revision(baseline.folder),
        tokenizer=tokenizer_digest(baseline.folder),
        prompts=_prompts(cell),
    )


def reference_job(cell: Cell, baseline: Resolved, identity: Identity, target: Path) -> ReferenceJob:
    """The job of making a reference for the cache."""
    return ReferenceJob(
        baseline=str(baseline.folder),
        identity=identity,
        prompts=prompts_of(cell),
        target=str(target),
        full=True,
        device=cell.settings.device,
        gpus=cell.settings.gpus,
    )


def prompts_of(cell: Cell) -> tuple[Prompt, ...]:
    """What a cell's models continue: the matrix's prompts, else a few of our own."""
    from checker.probes.generation import DEFAULT_PROMPTS

    return cell.settings.prompts or DEFAULT_PROMPTS


def names_of(folder: Path, cell: Cell) -> tuple[Path, Path]:
    """Where the reference of a cell may be recorded: under the model's name alone, or with that of its prompts."""
    assert cell.baseline is not None
    name = name_of(cell.baseline).replace("/", "--")
    return folder / f"{name}-{_prompts(cell)[:8]}{ENDING}", folder / f"{name}{ENDING}"


def name_of(ref: ModelRef) -> str:
    """A baseline's name without what differs between machines."""
    return ref.name if ref.kind == "hub" else Path(ref.name).absolute().name


def revision_of(ref: ModelRef) -> str | None:
    """What is known of a baseline's revision without fetching it; None for a branch or a tag."""
    from checker.reference.identity import folder_revision

    if ref.kind == "folder":
        return folder_revision(Path(ref.name))
    return ref.revision if ref.pinned else None


def _prompts(cell: Cell) -> str:
    from checker.reference.identity import prompts_digest

    return prompts_digest(prompts_of(cell))


def _key(identity: Identity) -> str:
    """Also of what a reference is made of, so that another version of ours makes its own."""
    made = [SCHEMA, NOISE, ROW_LENGTHS]
    return hashlib.sha256(json.dumps([made, asdict(identity)], sort_keys=True).encode()).hexdigest()[:32]


def _is_sound(path: Path) -> bool:
    """Whether a cached reference is there and can be used; one that is damaged is removed, to be made anew."""
    from checker.reference import read_reference

    if not path.is_file():
        return False
    try:
        read_reference(path)
    except Unavailable:
        with contextlib.suppress(OSError):  # somebody else's; writing the new one will tell
            path.unlink(missing_ok=True)
        return False
    with contextlib.suppress(OSError):  # somebody else's
        os.utime(path)  # used just now
    return True


def _cache() -> Path:
    """The folder of cached references; where the cache cannot be written, one of this user's for temporary files."""
    folder = cache_base() / "references"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    folder = Path(tempfile.gettempdir()) / f"quant-verify-references-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:  # somebody else's could hold references that lie
        return Path(tempfile.mkdtemp(prefix="quant-verify-references-"))
    return folder


def _prune(folder: Path, keep: Path) -> None:
    """Remove the references that were used longest ago until the rest fits, half-written ones included."""
    found = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another run prunes at the same time
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    total = 0
    for used, size, path in sorted(found, reverse=True):
        abandoned = path.name.startswith(".") and used < time.time() - ABANDONED
        total += size
        if path != keep and (total > MOST_KEPT or abandoned):
            with contextlib.suppress(OSError):
                path.unlink()
