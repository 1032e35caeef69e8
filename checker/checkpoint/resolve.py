"""From a reference to a folder: a folder stays where it is, a Hub repository becomes a snapshot in the local cache.

Failures here are not the model's: a wrong path is a usage error, and whatever the network, the Hub or the disk does
is ``Unavailable``, in one sentence with its remedy.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from checker.checkpoint.problem import quoted, shown
from checker.domain import ErrorKind, ModelRef
from checker.errors import Unavailable, UsageError

PATTERNS = ("*.json", "*.safetensors", "tokenizer*", "*.model", "*.txt", "*.jinja")
CODE = "*.py"
IGNORED = ("consolidated*.safetensors", "original/*")  # the same weights once more, for loaders other than transformers
NEVER = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.joblib", "*.dill")

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """Where a model lies on this machine. ``files`` lists its Hub repository, when the Hub could be asked."""

    folder: Path
    revision: str | None  # the commit; None for a folder
    files: tuple[str, ...] = ()


def resolve(ref: ModelRef, *, offline: bool, allow_code: bool = False) -> Resolved:
    """The folder of a model, downloaded when need be; pickles never are, Python files only with ``allow_code``.

    Raises:
        UsageError: the folder does not exist, or the name is no repository id.
        Unavailable: the Hub, the network or the disk does not deliver.
    """
    if ref.kind == "folder":
        return _folder(ref)
    folder = _asked(ref, offline, lambda: _snapshot(ref, offline=offline, allow_code=allow_code))
    in_cache = folder.parent.name == "snapshots"
    revision = folder.name if in_cache else ref.revision
    return Resolved(folder=folder, revision=revision, files=() if offline else _listing(ref.name, revision))


def _folder(ref: ModelRef) -> Resolved:
    folder = Path(ref.name)
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        remedy = "name the folder that holds config.json" if folder.exists() else "check the path"
        raise UsageError(f"the checkpoint folder {shown(ref.name)} {what}; {remedy}, or write hf:ORG/NAME for the Hub")
    return Resolved(folder=folder, revision=None)


def _snapshot(ref: ModelRef, *, offline: bool, allow_code: bool) -> Path:
    import huggingface_hub

    return Path(
        huggingface_hub.snapshot_download(
            ref.name,
            revision=ref.revision,
            allow_patterns=[*PATTERNS, CODE] if allow_code else [*PATTERNS],
            ignore_patterns=[*IGNORED, *NEVER],  # "tokenizer*" alone would fetch a tokenizer.pkl
            local_files_only=offline,
        )
    )


def _listing(name: str, revision: str | None) -> tuple[str, ...]:
    """All files of the repository; nothing when the Hub does not say, because the snapshot is already there."""
    import huggingface_hub

    try:
        return tuple(huggingface_hub.HfApi().list_repo_files(name, revision=revision))
    except _failures():
        return ()


def _asked(ref: ModelRef, offline: bool, question: Callable[[], Result]) -> Result:
    """The Hub's answer, or its refusal as one of our errors."""
    from huggingface_hub.errors import HFValidationError

    try:
        return question()
    except HFValidationError:
        raise UsageError(f"{quoted(str(ref))} is not a Hub repository; write ORG/NAME, or ./ before a folder") from None
    except _failures() as error:
        raise _unavailable(ref, offline, error) from None


def _failures() -> tuple[type[Exception], ...]:
    """What the library raises when a download fails."""
    from huggingface_hub import errors

    http: type[Exception] = errors.HfHubHTTPError.__mro__[1]  # httpx's own; from which module depends on the version
    xet: type[Exception] = getattr(errors, "XetDownloadError", OSError)  # not in the first versions
    return (http, xet, OSError, RuntimeError)  # RuntimeError: a broken transfer in hf_xet


def _unavailable(ref: ModelRef, offline: bool, error: Exception) -> Unavailable:
    from huggingface_hub import errors

    name = shown(str(ref))
    causes = list(_chain(error))
    if any(isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT) for cause in causes):
        message = "the disk is full; free some space or set HF_HOME to a larger disk"
        return Unavailable(f"{name} could not be downloaded: {message}")
    if any(isinstance(cause, errors.GatedRepoError) for cause in causes):
        message = f"accept its licence at https://huggingface.co/{shown(ref.name)} and set HF_TOKEN to a token that may"
        return Unavailable(f"{name} is gated: {message} read it", ErrorKind.GATED)
    if any(isinstance(cause, errors.RevisionNotFoundError) for cause in causes):
        return Unavailable(f"{name} has no such revision; check what follows the @", ErrorKind.GATED)
    refusal = next((cause for cause in causes if isinstance(cause, errors.HfHubHTTPError)), None)
    if refusal is not None:
        return _refused(name, refusal.response.status_code, isinstance(refusal, errors.RepositoryNotFoundError))
    forbidden = any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in causes)
    local = isinstance(error, errors.LocalEntryNotFoundError)
    if offline or forbidden or (local and len(causes) == 1):
        switch = "without --offline" if offline else "without HF_HUB_OFFLINE"
        remedy = f"run once {switch}, or download it before"
        return Unavailable(f"{name} is not, or not wholly, in the local cache; {remedy}", ErrorKind.NETWORK)
    reason = shown(str(causes[-1]).partition("\n")[0]) or type(causes[-1]).__name__
    message = f"the Hub cannot be reached ({reason}); check network and proxy, or use --offline with a filled cache"
    return Unavailable(f"{name} could not be downloaded: {message}", ErrorKind.NETWORK)


def _refused(name: str, status: int, unknown: bool) -> Unavailable:
    if unknown or status == 404:  # noqa: PLR2004
        message = "does not exist, or is private; check its name, or set HF_TOKEN to a token that may read it"
        return Unavailable(f"{name} {message}", ErrorKind.GATED)
    if status in (401, 403):
        message = f"may not be read (HTTP {status}); set HF_TOKEN to a valid token that may read it"
        return Unavailable(f"{name} {message}", ErrorKind.GATED)
    kind = "limits the rate of requests; set HF_TOKEN" if status == 429 else "does not answer as it should"  # noqa: PLR2004
    message = f"the Hub {kind} (HTTP {status}), also after retries; try again later"
    return Unavailable(f"{name} could not be downloaded: {message}", ErrorKind.NETWORK)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what caused it: the library wraps the Hub's answer in errors of its own."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__
