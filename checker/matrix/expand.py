"""A document to cells: which there are, what they are called, where in the file they come from.

The quantizations of ``defaults`` hold for every model with a baseline, also for one that has checkpoints besides;
``quantizations: []`` in a model turns them off. In an override, ``quantizations`` says exactly which quantizations
there are among the ids that its glob matches. The axis ``libraries`` comes last: it multiplies the cells that there
are (``checker.matrix.libraries``). Overrides and waivers may name an excluded cell: excluding is often
for a while. An entry of ``exclude`` that matches nothing is a mistake when a cell's id comes near it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from checker.config_values import did_you_mean
from checker.domain import Cell, Json, Location, ModelRef
from checker.errors import UsageError
from checker.matrix.document import Document, ModelEntry
from checker.matrix.layers import merge_settings
from checker.matrix.libraries import axis_hint, axis_of, holds_for, sets_axis, with_libraries
from checker.matrix.names import wrong_name
from checker.matrix.problems import Problems
from checker.matrix.references import expand_checkpoints, last_part, parse_reference
from checker.matrix.yaml_tree import Step

MAX_CELLS = 10_000
_NEAR_AMONG = 500  # ids; looking for the nearest name is slow


@dataclass(frozen=True, kw_only=True, slots=True)
class _Draft:
    """A cell before its settings are known."""

    id: str
    model: ModelEntry
    baseline: ModelRef | None
    origin: Location
    checkpoint: ModelRef | None = None
    quantization: Mapping[str, Json] | None = None
    libraries: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Named:
    """A model whose reference and name are good; ``quantizations`` by name, each with where it was asked for."""

    entry: ModelEntry
    path: tuple[Step, ...]
    name: str
    baseline: ModelRef | None
    quantizations: dict[str, tuple[Step, ...]] = field(default_factory=dict)


def expand(document: Document, problems: Problems, folder: Path, forced: Mapping[str, object]) -> list[Cell]:
    """All cells in the order of the file, excluded ones left out; mistakes go to ``problems``."""
    models = [model for index, entry in enumerate(document.models) for model in _named(entry, index, problems, folder)]
    for model in models:
        _assign_quantizations(model, document, problems)
    touched = _apply_overridden_quantizations(models, document)
    if (count := sum(len(model.quantizations) + len(model.entry.checkpoints) for model in models)) > MAX_CELLS:
        return _too_many(count, problems)
    plain = [draft for model in models for draft in _drafts(model, document, problems, folder)]
    _refuse_equal_ids(plain, problems)
    drafts = _multiplied(plain, document, problems)
    ids = [draft.id for draft in drafts]
    for index, override in enumerate(document.overrides):
        if index not in touched:
            names = [draft.id for draft in plain] if sets_axis(override) else ids
            _require_match(override.cells, names, ("overrides", index, "cells"), problems)
    for index, pattern in enumerate(document.exclude):
        _require_match(pattern, ids, ("exclude", index), problems, only_when_near=True)
    for index, waiver in enumerate(document.waivers):
        _require_match(waiver.cells, ids, ("waivers", index, "cells"), problems)
    kept = [draft for draft in drafts if not any(fnmatchcase(draft.id, pattern) for pattern in document.exclude)]
    return [_cell(draft, document, forced) for draft in kept]


def _too_many(count: int, problems: Problems) -> list[Cell]:
    problems.add(("models",), f"{count:,} cells are more than {MAX_CELLS:,}; split the matrix into several files")
    problems.complete = False
    return []


def _multiplied(plain: Sequence[_Draft], document: Document, problems: Problems) -> list[_Draft]:
    """Each cell once for each entry of its axis; as they are when a mistake leaves the axes unknown."""
    if not problems.complete:
        return [*plain]
    axes = [axis_of(draft.id, draft.model, document) for draft in plain]
    if (count := sum(map(len, axes))) > MAX_CELLS:
        _too_many(count, problems)
        return [*plain]
    return [
        replace(draft, id=with_libraries(draft.id, libraries), libraries=libraries)
        for draft, axis in zip(plain, axes, strict=True)
        for libraries in axis
    ]


def _require_match(
    pattern: str, ids: Sequence[str], path: tuple[Step, ...], problems: Problems, *, only_when_near: bool = False
) -> None:
    """A glob that matches no cell is a mistake, unless cells are absent because of a mistake already told."""
    if not problems.complete or any(fnmatchcase(name, pattern) for name in ids):
        return
    near = axis_hint(pattern, ids) or did_you_mean(pattern, ids[:_NEAR_AMONG])
    if near or not only_when_near:
        problems.add(path, f"{pattern!a} matches no cell{near}")


def _named(entry: ModelEntry, index: int, problems: Problems, folder: Path) -> Iterator[_Named]:
    path: tuple[Step, ...] = ("models", index)
    wrong = None
    baseline = None
    try:
        baseline = parse_reference(entry.baseline, folder) if entry.baseline is not None else None
    except UsageError as error:
        wrong = ((*path, "baseline"), str(error))
    if wrong is None:
        wrong = _wrong_model(entry, path, baseline)
    if wrong is not None:
        problems.add(*wrong)
        problems.complete = False
    else:
        yield _Named(
            entry=entry, path=path, name=entry.name or (last_part(baseline) if baseline else ""), baseline=baseline
        )


def _wrong_model(
    entry: ModelEntry, path: tuple[Step, ...], baseline: ModelRef | None
) -> tuple[tuple[Step, ...], str] | None:
    if entry.name is not None:
        return ((*path, "name"), wrong) if (wrong := wrong_name(entry.name)) else None
    if baseline is None and entry.checkpoints:
        return path, "a model without a baseline needs a name, the first part of its cells' ids: write 'name: …'"
    if baseline is None:
        return path, "a model needs a baseline, or a name and checkpoints"
    if wrong := wrong_name(last_part(baseline)):
        return path, f"{wrong}; give the model one with 'name: …'"
    return None


def _assign_quantizations(model: _Named, document: Document, problems: Problems) -> None:
    own = "quantizations" in model.entry.model_fields_set
    path: tuple[Step, ...] = (*model.path, "quantizations")
    if model.baseline is None:
        if own and model.entry.quantizations:
            problems.add(path, "a quantization is made of a baseline, and this model has none; add 'baseline: …'")
        return
    names = model.entry.quantizations if own else document.defaults.quantizations
    for index, name in enumerate(names):
        where = (*path, index) if own else model.path
        if name in model.quantizations:
            problems.add(where, f"the quantization {name!a} is listed twice; remove one")
        elif name in document.quantizations:
            model.quantizations[name] = where


def _apply_overridden_quantizations(models: Sequence[_Named], document: Document) -> set[int]:
    """Let overrides add and remove quantizations; returns the indices of those whose glob matched one."""
    touched = set()
    for index, override in enumerate(document.overrides):
        if "quantizations" not in override.model_fields_set:
            continue
        for model in models:
            if model.baseline is None:
                continue
            wanted = {name: None for name in override.quantizations if name in document.quantizations}
            for name in {**model.quantizations, **wanted}:
                if not fnmatchcase(f"{model.name}/{name}", override.cells):
                    continue
                touched.add(index)
                if name in wanted:
                    model.quantizations.setdefault(name, model.path)
                else:
                    del model.quantizations[name]
    return touched


def _drafts(model: _Named, document: Document, problems: Problems, folder: Path) -> Iterator[_Draft]:
    count = 0
    for name, path in model.quantizations.items():
        count += 1
        yield _Draft(
            id=f"{model.name}/{name}",
            model=model.entry,
            baseline=model.baseline,
            quantization=document.quantizations[name],
            origin=problems.location(path),
        )
    for name, checkpoint, path in _checkpoints(model, problems, folder):
        count += 1
        yield _Draft(
            id=f"{model.name}/{name}",
            model=model.entry,
            baseline=model.baseline,
            checkpoint=checkpoint,
            origin=problems.location(path),
        )
    if not count and problems.complete:
        problems.add(model.path, "nothing to check here: give the model quantizations or checkpoints")


def _checkpoints(model: _Named, problems: Problems, folder: Path) -> Iterator[tuple[str, ModelRef, tuple[Step, ...]]]:
    given = model.entry.checkpoints
    entries = (
        [(key, key, text) for key, text in given.items()]
        if isinstance(given, dict)
        else [(index, None, text) for index, text in enumerate(given)]
    )
    for step, key, text in entries:
        path: tuple[Step, ...] = (*model.path, "checkpoints", step)
        try:
            found = expand_checkpoints(text, folder)
        except UsageError as error:
            problems.add(path, str(error))
            problems.complete = False
            continue
        if key is not None and len(found) > 1:
            problems.add(
                path, f"one name cannot stand for the {len(found)} checkpoints that the glob matches; use a list"
            )
        for checkpoint in found:
            name = key or last_part(checkpoint)
            if wrong := wrong_name(name):
                problems.add(path, f"{wrong}; name the checkpoint with 'checkpoints: {{name: …}}'")
            yield name, checkpoint, path


def _refuse_equal_ids(drafts: Sequence[_Draft], problems: Problems) -> None:
    first: dict[str, _Draft] = {}
    for draft in drafts:
        other = first.setdefault(draft.id, draft)
        if other is not draft:
            problems.add_at(
                draft.origin,
                f"the cell id {draft.id!a} stands twice, on lines {other.origin.line} and {draft.origin.line}; "
                "give one of the models a 'name', or its checkpoints names",
            )


def _cell(draft: _Draft, document: Document, forced: Mapping[str, object]) -> Cell:
    overrides = [override for override in document.overrides if holds_for(override, draft.id)]
    return Cell(
        id=draft.id,
        baseline=draft.baseline,
        checkpoint=draft.checkpoint,
        quantization=draft.quantization,
        libraries=draft.libraries,
        settings=merge_settings([document.defaults, draft.model, *overrides], forced),
        origin=draft.origin,
    )
