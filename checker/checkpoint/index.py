"""model.safetensors.index.json against the shards: transformers follows its paths, and compares nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from checker.checkpoint.files import Folder, is_pickle
from checker.checkpoint.header import Header
from checker.checkpoint.json_file import INDEX_LIMIT, read_json
from checker.checkpoint.problem import Problem, Refused, Sayer, about, capped, quoted, shown
from checker.domain import Json, Severity

INDEX = "model.safetensors.index.json"
TOTAL_SIZE_TOLERANCE = 0.1  # tied weights are counted once or twice, depending on the tool that wrote the index

_REBUILD = "write the checkpoint again with save_pretrained, which writes the index"


@dataclass(frozen=True, kw_only=True, slots=True)
class Index:
    """A readable index; ``weight_map`` is empty when nothing of it can be used."""

    name: str
    weight_map: dict[str, str] = field(default_factory=dict)  # tensor to shard, as written: not to be trusted
    total_size: float | None = None
    problems: tuple[Problem, ...] = ()


def read_index(folder: Folder, name: str = INDEX) -> Index:
    """Read an index and check its form. Never raises for the file."""
    read = read_json(folder, name, limit=INDEX_LIMIT)
    if read.value is None:
        return Index(name=name, problems=read.problems)
    say = about(name)
    problems = list(read.problems)
    metadata, weight_map = read.value.get("metadata"), read.value.get("weight_map")
    if not isinstance(metadata, dict):
        problems.append(say("the index has no metadata object, and loading fails", where="metadata", hint=_REBUILD))
        metadata = {}
    if not isinstance(weight_map, dict) or not weight_map:
        message = "the index maps no tensor" if weight_map == {} else "weight_map is not an object"
        problems.append(say(message, where="weight_map", hint=_REBUILD))
        weight_map = {}
    shards = {tensor: shard for tensor, shard in weight_map.items() if isinstance(shard, str)}
    odd = (
        say(f"the shard of tensor {quoted(tensor)} is not a file name", where=tensor, hint=_REBUILD)
        for tensor in weight_map
        if tensor not in shards
    )
    problems += capped(odd)
    total = _number(metadata.get("total_size"))
    return Index(name=name, weight_map=shards, total_size=total, problems=tuple(problems))


def refused_shards(folder: Folder, index: Index) -> dict[str, Problem]:
    """The shards that may not be opened, each with its reason: their paths leave the folder, or they are pickles."""
    say = about(index.name)
    first = {shard: tensor for tensor, shard in reversed(index.weight_map.items())}
    refused = {}
    for shard, tensor in first.items():
        problem = _refusal(folder, shard, tensor, say)
        if problem is not None:
            refused[shard] = problem
    return refused


def compare(index: Index, headers: Mapping[str, Header]) -> Iterator[Problem]:
    """Where the index and the tensors in the shards disagree; silent about shards that could not be read wholly."""
    say = about(index.name)
    stored: dict[str, str] = {}
    for file, header in headers.items():
        stored |= {name: file for name in header.tensors if index.weight_map.get(name) == file or name not in stored}
    whole = {file for file, header in headers.items() if is_sound(header)}
    weight_map = index.weight_map
    ghosts = (
        say(f"tensor {quoted(name)} is not stored in {shown(shard)} nor in any other shard", where=name, hint=_REBUILD)
        for name, shard in weight_map.items()
        if name not in stored and shard in whole
    )
    misplaced = (
        say(
            f"tensor {quoted(name)} is stored in {shown(stored[name])}, the index says {shown(shard)}",
            where=name,
            hint=_REBUILD,
        )
        for name, shard in weight_map.items()
        if stored.get(name, shard) != shard
    )
    unlisted = (
        say(f"tensor {quoted(name)} is stored in {shown(file)}, the index omits it", where=name, hint=_REBUILD)
        for name, file in stored.items()
        if name not in weight_map
    )
    yield from capped(ghosts, "more tensors that no shard stores")
    yield from capped(misplaced, "more tensors in another shard than the index says")
    yield from capped(unlisted, "more tensors that the index omits")
    if len(whole) == len({*weight_map.values()}):
        yield from _total_size(index, headers, say)


def is_sound(header: Header) -> bool:
    """Whether a file was read wholly: what its header does not name is then not in it."""
    return not any(problem.severity is Severity.FAIL for problem in header.problems)


def _total_size(index: Index, headers: Mapping[str, Header], say: Sayer) -> Iterator[Problem]:
    actual = sum(tensor.nbytes for header in headers.values() for tensor in header.tensors.values())
    if index.total_size is None or abs(index.total_size - actual) <= TOTAL_SIZE_TOLERANCE * actual:
        return
    message = f"the index says {index.total_size:,.0f} bytes in total, the shards hold {actual:,}"
    hint = "often the index of the model before it was quantized; write it again"
    yield say(message, where="metadata.total_size", severity=Severity.WARN, hint=hint)


def _refusal(folder: Folder, shard: str, tensor: str, say: Sayer) -> Problem | None:
    path = PurePosixPath(shard)
    name = f"the shard {quoted(shard)} of tensor {quoted(tensor)}"
    if not shard.isprintable() or str(path) != shard or path.is_absolute() or ".." in path.parts or "\\" in shard:
        hint = "a shard is named relative to the index, inside the checkpoint; do not load this checkpoint"
        return say(f"{name} is no plain path inside the checkpoint", where=shard, hint=hint)
    if is_pickle(shard):
        hint = "convert the weights to safetensors; a pickle can run code and is never opened"
        return say(f"{name} is a pickle", where=shard, hint=hint)
    if not shard.endswith(".safetensors"):
        return say(f"{name} is not a safetensors file", where=shard, hint=_REBUILD)
    try:
        folder.locate(shard)
    except Refused as refused:
        return refused.problem
    return None


def _number(value: Json) -> float | None:
    return float(min(value, 1 << 63)) if isinstance(value, int | float) and not isinstance(value, bool) else None
