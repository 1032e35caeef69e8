"""Which modules the names in a config mean: whole names, ``re:`` expressions, class names (compressed-tensors, GPTQ).

Source: ``match_name`` and ``match_targets`` in compressed_tensors/utils/match.py. Expressions come from a file that may
be hostile, and Python's matcher can backtrack for ever; so an expression is cut at its ``.*``, and the parts, which
must be simple, are looked for one after the other. That takes time linear in the name for what real configs hold.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping

REGEX = "re:"
LONGEST_EXPRESSION = 1000
LONGEST_NAME = 500
MOST_PARTS = 20  # of a dotted name
MOST_QUANTIFIERS = 2  # within one part
_GAP = re.compile(r"\.\*\??")
_QUANTIFIER = re.compile(r"(?<![\\(])[*+?{]")
_REPEATED_GROUP = re.compile(r"(?<!\\)\)[*+{]")
_BACKWARD = re.compile(r"\\\d|\(\?[P<#]")
_CLASSES = {
    "Linear": frozenset(["linear", "expert", "vision", "head"]),
    "LinearBase": frozenset(["linear", "expert", "vision", "head"]),
    "ParallelLMHead": frozenset(["head"]),
    "Embedding": frozenset(["embedding"]),
}
_CLASS_NAME = re.compile(r"[A-Z]\w*")


def is_class(entry: str) -> bool:
    """Whether an entry looks like the name of a class, not of a module: one word with a capital."""
    return _CLASS_NAME.fullmatch(entry) is not None


def class_matches(entry: str, role: str) -> bool | None:
    """Whether modules of a role are of the class; None where the role does not tell."""
    known = _CLASSES.get(entry)
    return None if known is None else role in known


def entry_matches(entry: str, name: str) -> bool:
    """Whether an entry means a module by its name: an expression that matches from the start, or the whole name."""
    if not entry.startswith(REGEX):
        return entry == name
    alternatives = _compiled(entry.removeprefix(REGEX))
    return len(name) <= LONGEST_NAME and any(_in_turn(parts, name) for parts in alternatives)


def _in_turn(parts: tuple[re.Pattern[str], ...], name: str) -> bool:
    found = parts[0].match(name)
    for part in parts[1:]:
        if found is None:
            return False
        found = part.search(name, found.end())
    return found is not None


@functools.lru_cache(maxsize=4096)
def _compiled(expression: str) -> tuple[tuple[re.Pattern[str], ...], ...]:
    """Each top-level alternative as the parts between its ``.*``; nothing for what is too long or not simple."""
    if len(expression) > LONGEST_EXPRESSION or _REPEATED_GROUP.search(expression) or _BACKWARD.search(expression):
        return ()
    found = []
    for alternative in _split(expression, re.compile(r"\|")):
        parts = _split(alternative, _GAP)
        if any(len(_QUANTIFIER.findall(part)) > MOST_QUANTIFIERS for part in parts):
            return ()
        try:
            found.append(tuple(re.compile(part) for part in parts))
        except (re.error, OverflowError, RecursionError):
            return ()
    return tuple(found)


def _split(expression: str, separator: re.Pattern[str]) -> list[str]:
    """The parts between separators that stand outside of groups and character classes."""
    parts, start, position, depth, in_class = [], 0, 0, 0, False
    while position < len(expression):
        letter = expression[position]
        cut = separator.match(expression, position) if depth == 0 and not in_class else None
        if letter == "\\":
            position += 2
            continue
        if cut is not None:
            parts.append(expression[start:position])
            start = position = cut.end()
            continue
        if in_class:
            in_class = letter != "]"
        elif letter == "[":
            in_class = True
        else:
            depth += {"(": 1, ")": -1}.get(letter, 0)
        position += 1
    return [*parts, expression[start:]]


class Names:
    """A list of entries, sorted by kind so that thousands of whole names cost no more than one."""

    def __init__(self, entries: Iterable[str]) -> None:
        """Sort the entries."""
        entries = list(entries)
        self.classes = [entry for entry in entries if is_class(entry)]
        self._expressions = [entry for entry in entries if entry.startswith(REGEX)]
        self._whole = frozenset(entries) - frozenset(self._expressions) - frozenset(self.classes)
        self._ends: dict[str, str] = {}  # the ends of whole names
        for entry in self._whole:
            parts = entry.split(".")[:MOST_PARTS]
            self._ends |= {".".join(parts[start:]): entry for start in range(1, len(parts))}

    def matching(self, names: tuple[str, ...], role: str) -> str | None:
        """The first entry that means a module of these names and this role."""
        for name in names:
            if name in self._whole:
                return name
        for entry in self._expressions:
            if any(entry_matches(entry, name) for name in names):
                return entry
        return next((entry for entry in self.classes if class_matches(entry, role)), None)

    def ending(self, name: str) -> str | None:
        """A whole name of which this one is the end, or the other way round: trees that differ in a prefix."""
        if name in self._ends:
            return self._ends[name]
        rest = name
        while "." in rest:
            rest = rest.partition(".")[2]
            if rest in self._whole:
                return rest
        return None


def same_module(entry: str, name: str) -> bool:
    """Whether an entry of ``ignore`` means a module, a prefix that one tree has and the other lacks left aside."""
    return entry_matches(entry, name) or name.endswith(f".{entry}") or entry.endswith(f".{name}")


class Targets:
    """Targets and what they stand for; the most precise decides: a whole name, an expression, a class."""

    def __init__(self, meanings: Mapping[str, str]) -> None:
        """Sort the targets as ``match_targets`` does."""
        self._meanings = meanings
        self._expressions = sorted(target for target in meanings if target.startswith(REGEX))
        self.classes = sorted(target for target in meanings if is_class(target))

    def meaning(self, names: tuple[str, ...], role: str) -> str | None:
        """What the deciding target of a module stands for."""
        for name in names:
            if name in self._meanings:
                return self._meanings[name]
        for target in (*self._expressions, *self.classes):
            if any(entry_matches(target, name) for name in names) or class_matches(target, role):
                return self._meanings[target]
        return None

    def unclear(self, role: str) -> bool:
        """Whether a class is among the targets of which the role does not tell who belongs to it."""
        return any(class_matches(target, role) is None for target in self.classes)
