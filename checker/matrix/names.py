"""Every name in a document against what exists: quantizations in the file, checks and limits in the vocabulary."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from checker.config_values import did_you_mean
from checker.matrix import Vocabulary
from checker.matrix.document import Common, Document
from checker.matrix.libraries import check_libraries
from checker.matrix.problems import Problems, shown
from checker.matrix.yaml_tree import Node, Step

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}")


def wrong_name(name: str) -> str | None:
    """Names become parts of cell ids, which stand in globs and comma lists; so no comma, slash, space or wildcard."""
    if _NAME.fullmatch(name):
        return None
    return f"{name!a} cannot be part of a cell id, which is made of letters, digits and . _ + -"


def check_names(document: Document, problems: Problems, vocabulary: Vocabulary) -> None:
    """Every mistake in names, with the nearest name that exists."""
    _check_quantizations(document, problems, vocabulary)
    for path, layer in _layers(document):
        _check_layer(path, layer, document, problems, vocabulary)
    for index, waiver in enumerate(document.waivers):
        _check_glob(waiver.check, ("waivers", index, "check"), problems, vocabulary)


def _layers(document: Document) -> Iterator[tuple[tuple[Step, ...], Common]]:
    yield ("defaults",), document.defaults
    for index, model in enumerate(document.models):
        yield ("models", index), model
    for index, override in enumerate(document.overrides):
        yield ("overrides", index), override


def _check_layer(
    path: tuple[Step, ...], layer: Common, document: Document, problems: Problems, vocabulary: Vocabulary
) -> None:
    for index, name in enumerate(layer.quantizations):
        if name not in document.quantizations:
            _unknown_quantization(name, (*path, "quantizations", index), problems)
    check_libraries(path, layer, problems)
    for key in ("select", "ignore", "require"):
        for index, pattern in enumerate(getattr(layer, key)):
            _check_glob(pattern, (*path, key, index), problems, vocabulary)
    for name in layer.limits:
        if name not in vocabulary.limit_names:
            known = did_you_mean(name, vocabulary.limit_names) or "; 'quant-verify explain' lists checks and limits"
            problems.add((*path, "limits", name), f"no such limit{known}")


def _unknown_quantization(name: str, path: tuple[Step, ...], problems: Problems) -> None:
    problems.complete = False
    *_, section = problems.original.along(("quantizations",))
    known = section.value if section is not problems.original and isinstance(section.value, dict) else {}
    if name not in known and not section.broken:
        near = did_you_mean(name, known) or "; the top-level 'quantizations' names them"
        problems.add(path, f"no quantization is called {name!a}{near}")


def _check_glob(pattern: str, path: tuple[Step, ...], problems: Problems, vocabulary: Vocabulary) -> None:
    if not any(fnmatchcase(name, pattern) for name in vocabulary.check_ids):
        known = did_you_mean(pattern, vocabulary.check_ids) or "; 'quant-verify explain' lists them"
        problems.add(path, f"no check is called {pattern!a}{known}")


def _check_quantizations(document: Document, problems: Problems, vocabulary: Vocabulary) -> None:
    for name, config in document.quantizations.items():
        path: tuple[Step, ...] = ("quantizations", name)
        if wrong := wrong_name(name):
            problems.add(path, wrong)
        before = len(problems.mistakes)
        _check_json(path, problems)
        if len(problems.mistakes) == before:
            for key, wrong in vocabulary.check_quantization(config):
                problems.add((*path, key) if key else path, wrong)


def _check_json(path: tuple[Step, ...], problems: Problems) -> None:
    """A quantization_config ends up in JSON, which knows neither dates nor infinities."""
    for below in _scalars(list(problems.root.along(path))[-1], path):
        value = list(problems.root.along(below))[-1].value
        if isinstance(value, float) and value - value != 0:
            problems.add(below, f"must be a finite number, not {shown(value)}")
        elif not isinstance(value, None | bool | int | float | str):
            problems.add(below, f"a date has no place in a quantization; put '{value}' in quotes if it is text")


def _scalars(node: Node, path: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            yield from _scalars(child, (*path, key))
    elif isinstance(node.value, list):
        for index, child in enumerate(node.value):
            yield from _scalars(child, (*path, index))
    else:
        yield path
