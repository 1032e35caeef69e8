"""Bytes of a matrix file to a tree of plain values in which every node knows its line.

Built on the parser's events, which are cheap and never expand anything: an alias or merge bomb is seen as the single
event that it is. Nothing here recurses, so that nesting cannot overflow a stack. Whatever YAML offers beyond
mappings, lists and scalars is refused with a remedy; parsing then goes on, so that all mistakes are told at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import yaml

from checker.domain import Json, Location
from checker.errors import Mistake
from checker.matrix.scalars import Scalar, control_character, resolve

MAX_BYTES = 1_000_000
MAX_DEPTH = 50
MAX_VALUES = 100_000
Step: TypeAlias = str | int
_RAW_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A value and its line: that of the key for an entry of a mapping, else where the value begins.

    A broken node stands for a value that was refused: the mistake is told, and nothing more is said about it.
    """

    value: Scalar | list[Node] | dict[str, Node]
    line: int
    broken: bool = False

    def plain(self) -> Json:
        """The value without lines, as ``yaml.safe_load`` would have given it."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def along(self, path: Iterable[Step]) -> Iterator[Node]:
        """The nodes from here towards ``path``, as far as they exist."""
        node = self
        yield node
        for step in path:
            if isinstance(node.value, dict) and step in node.value:
                node = node.value[str(step)]
            elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
            else:
                return
            yield node

    def line_of(self, path: Iterable[Step]) -> int:
        """The line of the node at ``path``, or of its nearest ancestor that exists."""
        return list(self.along(path))[-1].line


def parse_tree(data: bytes, file: str) -> tuple[Node | None, list[Mistake]]:
    """The tree of a file, and every mistake in its YAML. The tree is None when parsing could not go on to the end."""
    if len(data) > MAX_BYTES:
        return None, [
            Mistake(f"the file is larger than {MAX_BYTES:,} bytes; a matrix is small", Location(file=file, line=1))
        ]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return None, [Mistake("the file is not UTF-8 text; save it as UTF-8", Location(file=file, line=line))]
    if found := _RAW_CONTROL.search(text):
        line = text.count("\n", 0, found.start()) + 1
        message = f"the control character {ascii(found.group())[1:-1]} may not stand in a matrix; remove it"
        return None, [Mistake(message, Location(file=file, line=line))]
    builder = _Builder(file)
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            builder.take(event)
    except _CannotGoOnError:
        return None, builder.mistakes
    except yaml.YAMLError as error:
        builder.refuse(*_syntax_mistake(error, text))
        return None, builder.mistakes
    return builder.root, builder.mistakes


class _CannotGoOnError(Exception):
    """What follows cannot be read in a useful way; the mistake is already noted."""


@dataclass(kw_only=True, slots=True)
class _Frame:
    """A mapping or list that is still open."""

    children: dict[str, Node] | list[Node]
    line: int
    broken: bool
    awaits_value: bool = False
    key: str | None = None  # None while awaiting a value: the key was refused, its value is dropped
    key_line: int = 0


class _Builder:
    """Events in, nodes out."""

    def __init__(self, file: str) -> None:
        self.mistakes: list[Mistake] = []
        self.root: Node | None = None
        self._file = file
        self._frames: list[_Frame] = []
        self._documents = 0
        self._values = 0

    def refuse(self, line: int, message: str) -> None:
        self.mistakes.append(Mistake(message, Location(file=self._file, line=line)))

    def take(self, event: Any) -> None:
        line = event.start_mark.line + 1
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    self._stop(line, "a second document begins here; a matrix is one document, so remove the '---'")
            case yaml.AliasEvent():
                self._alias(event, line)
            case yaml.ScalarEvent():
                self._scalar(event, line)
            case yaml.CollectionStartEvent():
                self._open(event, line)
            case yaml.CollectionEndEvent():
                frame = self._frames.pop()
                self._add(Node(value=frame.children, line=frame.line, broken=frame.broken))

    def _stop(self, line: int, message: str) -> None:
        self.refuse(line, message)
        raise _CannotGoOnError

    def _awaits_key(self) -> bool:
        return bool(self._frames) and isinstance(self._frames[-1].children, dict) and not self._frames[-1].awaits_value

    def _alias(self, event: yaml.AliasEvent, line: int) -> None:
        self.refuse(
            line,
            f"*{event.anchor} is a YAML alias, which a matrix may not hold; a glob that starts with * needs quotes, "
            "and what several models share belongs in 'defaults' or in a named quantization",
        )
        if self._awaits_key():
            self._key(None, line)
        else:
            self._add(Node(value=None, line=line, broken=True))

    def _decorated(self, event: Any, line: int) -> bool:
        """Whether a tag makes the value unusable; an anchor alone is refused but harmless."""
        if event.anchor is not None:
            self.refuse(
                line,
                f"&{event.anchor} is a YAML anchor, which a matrix may not hold; put what several models share in "
                "'defaults' or in a named quantization, or quote the text",
            )
        if event.tag is not None:
            self.refuse(line, f"the YAML tag {ascii(event.tag)[1:-1]} is refused; remove it and write a plain value")
        return event.tag is not None

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        broken = self._decorated(event, line)
        if escaped := control_character(event.value):
            broken = True
            self.refuse(line, f"the character {escaped} may not stand in a text of a matrix; remove it")
        value, wrong = resolve(event.value) if event.implicit[0] and not broken else (event.value, None)
        if self._awaits_key():
            refused = broken or self._refuse_key(event, line, clear=value == event.value and wrong is None)
            self._key(None if refused else event.value, line)
            return
        if wrong is not None:
            self.refuse(line, wrong)
        self._add(Node(value=value, line=line, broken=broken or wrong is not None))

    def _refuse_key(self, event: yaml.ScalarEvent, line: int, *, clear: bool) -> bool:
        if event.value == "<<" and event.implicit[0]:
            self.refuse(line, "'<<' (a YAML merge) is refused; use 'defaults' or a named quantization instead")
        elif not clear:
            self.refuse(line, f'a key must be text: write "{event.value}" in quotes')
        return not clear or (event.value == "<<" and event.implicit[0])

    def _key(self, text: str | None, line: int) -> None:
        """Note the key of the next value; None when it was refused, so that the value is dropped."""
        frame = self._frames[-1]
        frame.awaits_value, frame.key, frame.key_line = True, text, line
        if text is None:
            frame.broken = True
        elif isinstance(frame.children, dict) and text in frame.children:
            frame.key = None
            first = frame.children[text].line
            self.refuse(line, f"the key {text!a} stands twice, first on line {first}; remove one")

    def _open(self, event: Any, line: int) -> None:
        if len(self._frames) >= MAX_DEPTH:
            self._stop(line, f"nested deeper than {MAX_DEPTH} levels; a matrix needs no more than ten")
        broken = self._decorated(event, line)
        children: dict[str, Node] | list[Node] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._frames.append(_Frame(children=children, line=line, broken=broken))

    def _add(self, node: Node) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            self._stop(node.line, f"more than {MAX_VALUES:,} values; a matrix is small")
        if not self._frames:
            self.root = node
            return
        frame = self._frames[-1]
        if isinstance(frame.children, list):
            frame.children.append(node)
        elif not frame.awaits_value:
            self.refuse(node.line, "a key must be text, not a list or a mapping; write a text in quotes")
            self._key(None, node.line)
        else:
            if frame.key is not None:
                frame.children[frame.key] = replace(node, line=frame.key_line)
            frame.awaits_value = False


def _syntax_mistake(error: yaml.YAMLError, text: str) -> tuple[int, str]:
    """The line and the sentence of an error of the YAML parser, with the remedies for the two usual causes."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    lines = text.splitlines() or [""]
    line = min(mark.line + 1 if mark else 1, len(lines))
    context = getattr(error, "context", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
    message = f"not valid YAML: {problem}" + (f" ({context})" if context else "")
    if re.match(r" *\t", lines[line - 1]):
        message += "; indent with spaces, not tabs"
    elif "alias" in str(context) or "cannot start any token" in problem:
        message += '; a text that starts with one of * @ ` % needs quotes, for example "*/int8"'
    return line, message.replace("\n", " ")
