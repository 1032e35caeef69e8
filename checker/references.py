"""Which reference a cell is compared with: a recorded one, one of the cache, or one that is made now, once for all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from checker.checkpoint.problem import shown
from checker.checkpoint.resolve import Resolved
from checker.domain import Cell, CheckError, Depth, ModelRef, Prompt
from checker.environment import cache_base
from checker.errors import Unavailable
from checker.facts import DivergenceFacts, TextFacts
from checker.protocol import ReferenceJob
from checker.reference import Identity
from checker.registry import all_checks

MOST_KEPT = 20 << 30  # bytes of references in the cache; beyond it those used longest ago go
ENDING = ".safetensors"
KNOWN_GOOD = "known-good.json"
WANTED_BY = (DivergenceFacts, TextFacts)

Make = Callable[[ReferenceJob, Cell], None]


@dataclass(kw_only=True)
class References:
    """Finds and makes the references of one run. ``make`` runs a worker; ``folder`` holds recorded ones."""

    make: Make
    folder: Path | None = None
    _locks: dict[Identity, threading.Lock] = field(default_factory=dict)
    _errors: dict[Identity, CheckError] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def recorded(self, cell: Cell) -> Path | None:
        """The recorded reference of a cell's baseline, which then need not even be fetched; None when there is none.

        Raises:
            Unavailable: one of that name belongs to another revision or other prompts.
        """
        if self.folder is None or cell.baseline is None:
            return None
        path = next((path for path in names_of(self.folder, cell) if path.is_file()), None)
        if path is None:
            return None
        from checker.reference import read_reference

        theirs = read_reference(path).summary.identity
        commit = revision_of(cell.baseline)
        pairs = (
            ("baseline", theirs.baseline, name_of(cell.baseline)),
            ("revision", theirs.revision, theirs.revision if commit is None else commit),
            ("probe text and prompts", theirs.prompts, _prompts(cell)),
        )
        for what, have, want in pairs:
            if have != want:
                message = (
                    f"the reference {shown(str(path))} belongs to another {what} ({shown(have)}, not {shown(want)})"
                )
                raise Unavailable(f"{message}; write it anew with quant-verify record")
        return path

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
            if path.is_file():
                os.utime(path)  # used just now
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
    return hashlib.sha256(json.dumps(asdict(identity), sort_keys=True).encode()).hexdigest()[:32]


def _cache() -> Path:
    """The folder of cached references; where the cache cannot be written, one for temporary files."""
    folder = cache_base() / "references"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.gettempdir()) / "quant-verify-references"
    if not os.access(folder if folder.exists() else folder.parent, os.W_OK):
        folder = Path(tempfile.gettempdir()) / "quant-verify-references"
    return folder


def _prune(folder: Path, keep: Path) -> None:
    """Remove the references that were used longest ago until the rest fits."""
    files = sorted(folder.glob(f"*{ENDING}"), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for path in files:
        total += path.stat().st_size
        if total > MOST_KEPT and path != keep:
            path.unlink(missing_ok=True)
