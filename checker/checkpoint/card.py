"""The model card (README.md): its YAML head names the model that a checkpoint was made from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checker.checkpoint.hub import asked
from checker.checkpoint.network import open_network
from checker.checkpoint.problem import quoted, shown
from checker.domain import Json, ModelRef
from checker.errors import UsageError

CARD = "README.md"
LONGEST_HEAD = 1 << 18  # bytes; the longest published ones list some hundred languages and results
OTHER_RELATIONS = {"finetune": "a finetune", "adapter": "an adapter", "merge": "a merge"}  # of other weights

_REMEDY = "name the baseline with --baseline ORG/NAME"
_HEAD = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_SITE = re.compile(r"https://(huggingface\.co|hf\.co)/")


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseModel:
    """What a card names: the first base model, how many there are, and how the checkpoint was made of it, if said."""

    name: str
    count: int
    relation: str | None

    @property
    def remark(self) -> str:
        """What a reader should know of the choice, or ""."""
        if self.count > 1:
            return f", the first of {self.count}"
        return "" if self.relation == "quantized" else " (it does not say base_model_relation: quantized)"


def base_model(ref: ModelRef, *, offline: bool) -> BaseModel:
    """The ``base_model`` of a checkpoint's card, of a folder or of a Hub repository (from the cache when offline).

    Raises:
        UsageError: there is no card, it names none, or one with other weights.
        Unavailable: the Hub does not deliver the card.
    """
    raw = _folder_card(Path(ref.name) / CARD) if ref.kind == "folder" else _hub_card(ref, offline=offline)
    head = _head(raw, ref)
    named = head.get("base_model")
    names = [str(name).strip() for name in (named if isinstance(named, list) else [named]) if isinstance(name, str)]
    if not names or not all(names):
        raise UsageError(f"--baseline auto: the model card of {ref} names no base_model; {_REMEDY}")
    relation = head.get("base_model_relation")
    if isinstance(relation, str) and relation in OTHER_RELATIONS:
        kind = f"{OTHER_RELATIONS[relation]} of {quoted(names[0])}, whose weights are others"
        message = f"the model card of {ref} calls it {kind}"
        raise UsageError(f"--baseline auto: {message}; {_REMEDY}")
    name = _SITE.sub("", names[0], count=1).rstrip("/")
    return BaseModel(name=name, count=len(names), relation=relation if isinstance(relation, str) else None)


def _folder_card(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LONGEST_HEAD)
    except FileNotFoundError:
        raise UsageError(f"--baseline auto: {shown(str(path))} does not exist; {_REMEDY}") from None
    except OSError as error:
        message = f"{shown(str(path))} cannot be read ({(error.strerror or '').lower()})"
        raise UsageError(f"--baseline auto: {message}; {_REMEDY}") from None


def _hub_card(ref: ModelRef, *, offline: bool) -> bytes:
    import huggingface_hub
    from huggingface_hub.errors import RemoteEntryNotFoundError

    def download() -> str | None:
        try:
            return huggingface_hub.hf_hub_download(ref.name, CARD, revision=ref.revision, local_files_only=offline)
        except RemoteEntryNotFoundError:
            return None

    path = asked(ref, download, offline=offline, network=open_network())
    if path is None:
        raise UsageError(f"--baseline auto: {ref} has no model card ({CARD}); {_REMEDY}")
    return _folder_card(Path(path))


def _head(raw: bytes, ref: ModelRef) -> dict[str, Json]:
    """The YAML between the first two lines of three hyphens; {} when there is none.

    Raises:
        UsageError: it is no YAML object.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Without aliases, by which a few lines can stand for gigabytes."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("aliases are not read here")
            return super().compose_node(parent, index)

    match = _HEAD.match(raw.decode("utf-8", errors="replace"))
    try:
        head = yaml.load(match[1], Loader) if match else {}  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        reason = shown(str(error).partition("\n")[0])
        message = f"the head of the model card of {ref} is no YAML ({reason})"
        raise UsageError(f"--baseline auto: {message}; {_REMEDY}") from None
    return head if isinstance(head, dict) else {}
