"""What a reference belongs to: told from the baseline's files without torch, or from a pinned revision alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from checker.checkpoint.files import Folder, list_folder
from checker.checkpoint.json_file import read_json
from checker.checkpoint.problem import Refused
from checker.checkpoint.weights import read_weights
from checker.domain import Prompt
from checker.errors import Unavailable

PIECE = 1024  # bytes at the beginning, middle and end of every tensor that count for a folder's digest
SHORT = 16  # hexadecimal digits of a digest that are shown and kept
LARGEST_TOKENIZER = 1 << 28  # bytes that are read of a file
TOKENIZER = "tokenizer.json"
OTHER_TOKENIZERS = (
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
)


def passages() -> list[str]:
    """The probe text, one passage for each row; shipped with the program, so that every run scores the same text."""
    file = Path(__file__).parent.parent / "data" / "probe_text.txt"
    return [text.strip() for text in file.read_text(encoding="utf-8").split("=====")]


def prompts_digest(prompts: Iterable[Prompt]) -> str:
    """Digest of the probe text and of what is to be continued; accepted beginnings do not count."""
    asked = [[prompt.text, prompt.chat, prompt.max_new_tokens] for prompt in prompts]
    return _digest(json.dumps([passages(), asked]).encode())


def folder_revision(folder: Path) -> str:
    """What stands for a folder's commit: a digest of config, tensor headers, and pieces of every tensor's data.

    Reading 16 GB to name a baseline would cost more than what the name saves; a file that was changed by any tool that
    writes tensors differs in these.

    Raises:
        Unavailable: the folder cannot be read.
    """
    try:
        place = list_folder(folder)
        config = read_json(place, "config.json").value
        tensors = read_weights(place, config).tensors
        hashed = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
        by_file: dict[str, list[tuple[int, int]]] = {}
        for name, header in sorted(tensors.items()):
            hashed.update(f"{name} {header.dtype} {header.shape}\n".encode("utf-8", "surrogatepass"))
            by_file.setdefault(header.file, []).append((header.begin, header.end))
        for file in sorted(by_file):
            with place.open(file) as (stream, _):
                for begin, end in by_file[file]:
                    for start in sorted({begin, (begin + end) // 2, max(begin, end - PIECE)}):
                        stream.seek(start)
                        hashed.update(stream.read(min(PIECE, end - start)))
    except (Refused, OSError) as error:
        raise Unavailable(f"the baseline {folder} cannot be read: {error}") from None
    return f"folder-{hashed.hexdigest()[:SHORT]}"


def tokenizer_digest(folder: Path) -> str:
    """Digest of what turns text into token ids: vocabulary and merges; "" without a tokenizer.

    What tools add when they save a tokenizer again (padding, truncation, templates, defaults) does not count.
    """
    try:
        place = list_folder(folder)
    except Refused:
        return ""
    if TOKENIZER in place.names:
        document = _vocabulary(place)
        if document is not None:
            return _digest(document)
    found = [name for name in OTHER_TOKENIZERS if name in place.names]
    if not found:
        return ""
    hashed = hashlib.sha256()
    for name in found:
        hashed.update(_content(place, name))
    return hashed.hexdigest()[:SHORT]


def _vocabulary(place: Folder) -> bytes | None:
    try:
        model = json.loads(_content(place, TOKENIZER))["model"]
        merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model.get("merges") or ()]
        return json.dumps([model["vocab"], merges], sort_keys=True).encode("utf-8", "surrogatepass")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _content(place: Folder, name: str) -> bytes:
    try:
        with place.open(name) as (stream, size):
            return stream.read(min(size, LARGEST_TOKENIZER))
    except (Refused, OSError):
        return b""


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:SHORT]
