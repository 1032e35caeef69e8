"""The store of recorded texts: what each cell's model wrote when it was good, by device class and versions.

``known-good.json`` in the folder of references. ``record`` adds to it, people read and edit it, pull requests show its
changes: entries are sorted, one value stands on a line, and what is known already is not written again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from checker.atomic import replacing
from checker.checkpoint.files import open_regular
from checker.checkpoint.problem import Refused, shown
from checker.checkpoint.strict_json import Malformed, Repeated, dotted, parse, walk
from checker.domain import Json
from checker.errors import Unavailable
from checker.facts import KnownText

SCHEMA = "quant-verify/known-good/1"
LARGEST_FILE = 64 << 20  # bytes
MOST_CELLS, MOST_TEXTS = 10_000, 1_000
LONGEST_TEXT, LONGEST_NAME = 200_000, 1_000  # characters
MOST_TOKENS, LARGEST_TOKEN = 100_000, 1 << 31

Name = Annotated[str, Field(max_length=LONGEST_NAME)]
Token = Annotated[int, Field(ge=0, lt=LARGEST_TOKEN)]


class _Entry(BaseModel):
    """One text as it stands in the file."""

    model_config = ConfigDict(strict=True, extra="forbid")

    prompt: Annotated[str, Field(max_length=LONGEST_TEXT)]
    chat: bool
    device: Name
    versions: Annotated[dict[Name, Name], Field(max_length=MOST_TEXTS)]
    text: Annotated[str, Field(max_length=LONGEST_TEXT)]
    tokens: Annotated[list[Token], Field(max_length=MOST_TOKENS)]


class _Document(BaseModel):
    """The whole file."""

    model_config = ConfigDict(strict=True, extra="forbid")

    schema_: Annotated[Literal["quant-verify/known-good/1"], Field(alias="schema")]
    cells: Annotated[dict[Name, Annotated[list[_Entry], Field(max_length=MOST_TEXTS)]], Field(max_length=MOST_CELLS)]


def read(path: Path) -> Mapping[str, tuple[KnownText, ...]]:
    """The recorded texts by cell id; none where there is no file.

    Raises:
        Unavailable: the file cannot be read or is not what it should be; names the place and what to do.
    """
    if not path.exists():
        return {}
    try:
        with open_regular(path, str(path)) as (stream, size):
            if size > LARGEST_FILE:
                raise _unusable(path, f"it has {size:,} bytes; more than {LARGEST_FILE:,} are not read")
            value = parse(stream.read(size), finite=True)
    except Refused as refused:
        raise _unusable(path, refused.problem.message) from None
    except Malformed as error:
        raise _unusable(path, f"it {error}") from None
    for place, _, item in walk(value, texts=False):
        if isinstance(item, Repeated):
            raise _unusable(path, f"the key {shown(dotted((place, item.key)))} stands in it more than once")
    try:
        document = _Document.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "its root"
        raise _unusable(path, f"{shown(where)}: {first['msg']}") from None
    return {cell: tuple(map(_known, entries)) for cell, entries in document.cells.items()}


def _unusable(path: Path, reason: str) -> Unavailable:
    message = f"the recorded texts in {path} cannot be used: {reason}"
    return Unavailable(f"{message}; repair the file, or delete it and run quant-verify record")


def _known(entry: _Entry) -> KnownText:
    return KnownText(
        prompt=entry.prompt,
        chat=entry.chat,
        text=entry.text,
        tokens=tuple(entry.tokens),
        device=entry.device,
        versions=entry.versions,
    )


def add(path: Path, cell_id: str, texts: Iterable[KnownText]) -> int:
    """Add texts of a cell to the file, which is made when it is not there; how many were not in it yet.

    A text that is known for its prompt and device stays as it was recorded first, whatever the versions now.

    Raises:
        Unavailable: what is there cannot be read, or the file cannot be written.
    """
    cells = {cell: {_identity(item): item for item in known} for cell, known in read(path).items()}
    own = cells.setdefault(cell_id, {})
    before = len(own)
    for item in texts:
        own.setdefault(_identity(item), item)
    if len(own) > before:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                text = "".join(_lines({cell: known.values() for cell, known in cells.items()}))
                temporary.write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise Unavailable(f"cannot write {path}: {error.strerror or error}") from error
    return len(own) - before


def _identity(text: KnownText) -> tuple[Json, ...]:
    """What makes two texts the same one; also the order in which they stand."""
    return text.prompt, text.chat, text.device, text.text, text.tokens


def _lines(cells: Mapping[str, Iterable[KnownText]]) -> Iterator[str]:
    """The file: a value to a line, lists of tokens too, so that a new text is a few new lines and nothing else."""
    yield f'{{\n "schema": {json.dumps(SCHEMA)},\n "cells": {{'
    for number, cell in enumerate(sorted(cells)):
        yield f"{',' if number else ''}\n  {_json(cell)}: ["
        for place, item in enumerate(sorted(cells[cell], key=_identity)):
            values = {
                "prompt": item.prompt,
                "chat": item.chat,
                "device": item.device,
                "versions": dict(sorted(item.versions.items())),
                "text": item.text,
                "tokens": list(item.tokens),
            }
            rows = ",\n".join(f"    {_json(key)}: {_json(value)}" for key, value in values.items())
            yield f"{',' if place else ''}\n   {{\n{rows}\n   }}"
        yield "\n  ]"
    yield "\n }\n}\n"


def _json(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)  # nothing invisible in a file that is reviewed
