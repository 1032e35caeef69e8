"""From a reference to files: a folder stays where it is; a Hub repository is downloaded, or only looked into.

Failures here are not the model's: a wrong path is a usage error, and whatever the network, the Hub or the disk does
is ``Unavailable``, in one sentence with its remedy (``checker.checkpoint.hub``).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checker.checkpoint.completed import QUANTO_MAP
from checker.checkpoint.config import CONFIG, GENERATION
from checker.checkpoint.files import list_folder
from checker.checkpoint.gguf_files import is_gguf
from checker.checkpoint.hub import asked, failures, may_ask, not_cached
from checker.checkpoint.index import INDEX, read_index, refused_shards
from checker.checkpoint.json_file import CONFIG_LIMIT, INDEX_LIMIT
from checker.checkpoint.network import Network, Repository
from checker.checkpoint.problem import Refused, shown
from checker.domain import ErrorKind, ModelRef
from checker.errors import Unavailable, UsageError

PATTERNS = ("*.json", "*.safetensors", "tokenizer*", "*.model", "*.txt", "*.jinja", "README.md")
CODE = "*.py"
IGNORED = ("consolidated*.safetensors", "original/*")  # the same weights once more, for loaders other than transformers
NEVER = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.joblib", "*.dill")

_NEEDED = (CONFIG, GENERATION, QUANTO_MAP)
_DISK = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)  # the cache cannot be written
_WEIGHTS = (".safetensors", ".gguf")


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """Where a model lies on this machine. ``files`` lists its Hub repository, when the Hub could be asked.

    With ``repository`` the folder holds small files only, and the others are read from the Hub by ranges. ``file`` is
    the one GGUF file of the folder that is meant.
    """

    folder: Path
    revision: str | None  # the commit; None for a folder
    files: tuple[str, ...] = ()
    repository: Repository | None = None
    file: str | None = None


def resolve(ref: ModelRef, *, offline: bool, allow_code: bool = False) -> Resolved:
    """The folder of a model, downloaded when need be; pickles never are, Python files only with ``allow_code``.

    Raises:
        UsageError: the folder does not exist, or the name is no repository id.
        Unavailable: the Hub, the network or the disk does not deliver.
    """
    if ref.kind == "folder":
        return _folder(ref)
    folder = asked(ref, lambda: _snapshot(ref, offline=offline, allow_code=allow_code), offline=offline)
    in_cache = folder.parent.name == "snapshots"
    revision = folder.name if in_cache else ref.revision
    files = () if offline else _listing(ref.name, revision)
    _refuse_gguf(ref, files)
    if not files:  # the library takes what is in the cache, be it only what a static run has left there
        _require_whole(folder, ref, offline=offline)
    return Resolved(folder=folder, revision=revision, files=files)


def resolve_remote(ref: ModelRef, network: Network) -> Resolved:
    """A Hub repository to be read by ranges: its listing at one commit, and its small files in the cache.

    Of weights nothing is downloaded. When the Hub cannot be reached, a snapshot that lies wholly in the cache will do.

    Raises:
        UsageError: the name is no repository id.
        Unavailable: the Hub, the network or the disk does not deliver, or not in time.
    """
    from huggingface_hub import constants

    try:
        commit, sizes = asked(ref, lambda: _ask_for_sizes(ref), network=network)
    except Unavailable as failure:
        if failure.kind is not ErrorKind.NETWORK:
            raise
        try:
            return resolve(ref, offline=True)
        except Unavailable:
            raise failure from None
    repository = Repository(ref=ref, commit=commit, sizes=sizes)
    _fetch_small_files(repository, network)
    folder = Path(constants.HF_HUB_CACHE, f"models--{ref.name.replace('/', '--')}", "snapshots", commit)
    return Resolved(folder=folder, revision=commit, files=tuple(sizes), repository=repository)


def _ask_for_sizes(ref: ModelRef) -> tuple[str, dict[str, int]]:
    """The commit of a repository, and its files with their sizes: one request where the Hub tells both at once."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.hf_api import RepoFile

    api = HfApi()
    timeout = float(constants.HF_HUB_DOWNLOAD_TIMEOUT)
    info = api.model_info(ref.name, revision=ref.revision, files_metadata=True, timeout=timeout)
    found: dict[str, Any] = {item.rfilename: item.size for item in info.siblings or ()}
    if None in found.values():  # a mirror that leaves the sizes out
        tree = api.list_repo_tree(ref.name, revision=info.sha, recursive=True)
        found = {item.path: item.size for item in tree if isinstance(item, RepoFile)}
    sizes = {name: size for name, size in found.items() if isinstance(size, int) and size >= 0}
    if not info.sha or len(sizes) < len(found):
        raise ValueError("no commit, or no sizes")
    return info.sha, sizes


def _fetch_small_files(repository: Repository, network: Network) -> None:
    """Config and index into the cache, several at a time; one that is too large to be read at all stays away."""
    import huggingface_hub

    ref, commit = repository.ref, repository.commit

    def download(name: str) -> None:
        try:
            huggingface_hub.hf_hub_download(ref.name, name, revision=commit)
        except OSError as error:
            if error.errno not in _DISK:  # then it is read like the large files
                raise

    def fetch(name: str) -> None:
        asked(ref, lambda: download(name), network=network)

    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(fetch, _small_files(repository.sizes)))


def _small_files(sizes: Mapping[str, int]) -> Iterable[str]:
    for name, size in sizes.items():
        if size <= (CONFIG_LIMIT if name in _NEEDED else INDEX_LIMIT if name == INDEX else -1):
            yield name


def _require_whole(folder: Path, ref: ModelRef, *, offline: bool) -> None:
    """Refuse to take a snapshot for the checkpoint when weights of it are not in the cache.

    Raises:
        Unavailable: some are not.
    """
    try:
        place = list_folder(folder)
    except Refused:
        return  # it will be told as what it is
    whole = any(name.endswith(_WEIGHTS) for name in place.names)
    if INDEX in place.names and "model.safetensors" not in place.names:
        index = read_index(place)
        shards = {*index.weight_map.values()} - refused_shards(place, index).keys()
        whole = all((folder / shard).exists() for shard in shards)
    if not whole:
        raise not_cached(ref, "--offline" if offline else None if may_ask() else "HF_HUB_OFFLINE")


def _refuse_gguf(ref: ModelRef, files: Iterable[str]) -> None:
    """GGUF repositories hold one model in many sizes, and none of them is downloaded whole for a verdict.

    Raises:
        Unavailable: the repository holds no other weights.
    """
    endings = {Path(name).suffix for name in files}
    if ".gguf" in endings and ".safetensors" not in endings:
        remedy = "check it at depth static without --weights full, or download one file and name that"
        raise Unavailable(f"{shown(str(ref))} holds only GGUF files, which are not downloaded; {remedy}")


def _folder(ref: ModelRef) -> Resolved:
    folder = Path(ref.name)
    if is_gguf(ref.name) and folder.is_file():
        return Resolved(folder=folder.parent, revision=None, file=folder.name)
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        remedy = "name the folder that holds config.json, or a GGUF file" if folder.exists() else "check the path"
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
    except failures():
        return ()
