"""Strict reading of config.json and its like: what the loader would misread silently is a problem with a name."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from checker.checkpoint.files import Folder
from checker.checkpoint.problem import Problem, Refused, Sayer, about, capped, quoted, shown
from checker.checkpoint.strict_json import Malformed, Repeated, dotted, parse, walk
from checker.domain import Json

CONFIG_LIMIT = 10_000_000  # bytes
INDEX_LIMIT = 200_000_000
DEEPEST = 64
INFINITE_BY_DESIGN = {"time_step_limit"}  # Mamba 2 and its hybrids publish [0.0, Infinity]

_REWRITE = "write the file again as plain JSON (UTF-8, an object at its root)"


@dataclass(frozen=True, kw_only=True, slots=True)
class JsonFile:
    """A JSON object and what is wrong with it; ``value`` is None when it could not be read at all."""

    value: dict[str, Json] | None
    problems: tuple[Problem, ...]


def read_json(folder: Folder, name: str, *, limit: int = CONFIG_LIMIT) -> JsonFile:
    """Read one JSON object of a checkpoint. Never raises for the file; duplicate keys keep their last value."""
    say = about(name)
    try:
        value = _read(folder, name, limit, say)
        problems = tuple(capped(_suspicious(value, say)))
    except Refused as refused:
        return JsonFile(value=None, problems=(refused.problem,))
    return JsonFile(value=value, problems=problems)


def _read(folder: Folder, name: str, limit: int, say: Sayer) -> dict[str, Json]:
    with folder.open(name) as (stream, size):
        name = shown(name)
        if size > limit:
            message = f"{name} has {size:,} bytes; more than {limit:,} are not read"
            raise Refused(say(message, hint="a file of this kind is small; upload the right one"))
        raw = stream.read(limit)
    if not raw.strip():
        raise Refused(say(f"{name} is empty", hint="upload or download the file again"))
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Refused(say(f"{name} is UTF-16, not UTF-8", hint="save the file as UTF-8"))
    if raw.startswith(b"\xef\xbb\xbf"):
        raise Refused(say(f"{name} begins with a byte-order mark", hint="save the file as UTF-8 without BOM"))
    if raw.startswith(b"version https://git-lfs"):
        raise Refused(say(f"{name} is a Git LFS pointer, not the file it points to", hint="run 'git lfs pull'"))
    try:
        value = parse(raw, finite=False)
    except Malformed as error:
        raise Refused(say(f"{name} {error}", hint=_REWRITE)) from None
    if not isinstance(value, dict):
        kind = {list: "a list", str: "a string", type(None): "null"}.get(type(value), "a number or a truth value")
        raise Refused(say(f"{name} holds {kind} at its root, not an object", hint=_REWRITE))
    return value


def _suspicious(value: dict[str, Json], say: Sayer) -> Iterator[Problem]:
    for path, depth, item in walk(value, texts=False):
        if depth > DEEPEST:
            raise Refused(say(f"the value is nested more than {DEEPEST} deep", where=dotted(path), hint=_REWRITE))
        if isinstance(item, Repeated):
            key = dotted((path, item.key))
            message = f"the key {quoted(key)} stands more than once; the last one wins silently"
            yield say(message, where=key, hint="keep one of them")
        elif isinstance(item, float) and not math.isfinite(item):
            key = dotted(path)
            if math.isnan(item) or not INFINITE_BY_DESIGN & set(key.split(".")):
                message = f"the value of {quoted(key)} is {item}, which no JSON number is"
                yield say(message, where=key, hint="give a finite number")
