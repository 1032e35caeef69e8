"""Files made byte by byte, for what no library would write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors

from checker.checkpoint import Checkpoint, Problem
from checker.checkpoint.header import BITS
from checker.checkpoint.index import INDEX

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
MAP = {"a": ONE, "b": ONE, "c": TWO}


def container(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file of a header (an object, or raw bytes) and data; ``length`` lies about the header's size."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def entry(dtype: str, shape: list[Any], begin: Any, end: Any, **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end], **more}


def packed(shapes: dict[str, tuple[str, list[int]]]) -> dict[str, Any]:
    """Entries of tensors one after the other."""
    header = {}
    reached = 0
    for name, (dtype, shape) in shapes.items():
        count = 1
        for size in shape:
            count *= size
        end = reached + count * BITS[dtype] // 8
        header[name] = entry(dtype, shape, reached, end)
        reached = end
    return header


def healthy(*names: str) -> bytes:
    """A sound file of U8 tensors of four bytes."""
    return container(packed(dict.fromkeys(names, ("U8", [4]))), bytes(4 * len(names)))


def library_refusal(raw: bytes, path: Path) -> str | None:
    """Why the safetensors library refuses a file, read both ways it offers; None when it accepts it."""
    path.write_bytes(raw)
    try:
        with safetensors.safe_open(path, "np") as opened:
            opened.keys()
        safetensors.deserialize(raw)
    except safetensors.SafetensorError as error:
        return str(error)
    return None


def write_index(folder: Path, weight_map: object, **metadata: object) -> None:
    index = {"metadata": {"total_size": 12, **metadata}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index))


def sharded(folder: Path) -> Path:
    """A healthy checkpoint in two shards."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / ONE).write_bytes(healthy("a", "b"))
    (folder / TWO).write_bytes(healthy("c"))
    write_index(folder, MAP)
    return folder


def single(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(healthy("a", "b", "c"))
    return folder


def problem_saying(checkpoint: Checkpoint, says: str) -> Problem:
    [problem] = [problem for problem in checkpoint.problems if says in problem.message]
    assert problem.hint
    return problem
