"""The axis ``libraries``: each cell once for each entry, run with the packages that the entry lays over the others.

An override that sets ``libraries`` is matched with ids as they are without the axis, for it says what the axis is; what
else it sets holds for all cells that it makes. Every other glob sees the whole id: ``*/int8`` is the cell with the
installed libraries alone, ``*/int8*`` all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from checker.matrix.document import Common, Document, OverrideEntry
from checker.matrix.packages import (
    canonical,
    canonical_name,
    label,
    wrong_label,
    wrong_package,
    wrong_version,
)
from checker.matrix.problems import Problems
from checker.matrix.yaml_tree import Step

AT = "@"  # no name of a model, a quantization or a checkpoint may hold it


def check_libraries(path: tuple[Step, ...], layer: Common, problems: Problems) -> None:
    """Every mistake in the names and versions of one layer's axis. ``path`` is that of the layer."""
    seen: dict[frozenset[tuple[str, str]], int] = {}
    before = len(problems.mistakes)
    for index, entry in enumerate(layer.libraries):
        here: tuple[Step, ...] = (*path, "libraries", index)
        if _check_entry(entry, here, problems):
            packages = frozenset(canonical(entry).items())
            if seen.setdefault(packages, index) != index:
                what = label(canonical(entry)) or "{}"
                problems.add(here, f"{what} stands twice, as entries {seen[packages] + 1} and {index + 1}; remove one")
    if len(problems.mistakes) > before:
        problems.complete = False  # which cells there are depends on the axis


def _check_entry(entry: Mapping[str, str], path: tuple[Step, ...], problems: Problems) -> bool:
    good = True
    spelt: dict[str, str] = {}
    for name, version in entry.items():
        for flaw in filter(None, (wrong_package(name), wrong_version(version))):
            problems.add((*path, name), flaw)
            good = False
        if (other := spelt.setdefault(canonical_name(name), name)) != name:
            problems.add((*path, name), f"{name} and {other} are one package; remove one")
            good = False
    if good and (wrong := wrong_label(canonical(entry))):
        problems.add(path, wrong)
        return False
    return good


def axis_of(plain_id: str, model: Common, document: Document) -> Sequence[Mapping[str, str]]:
    """The entries by which a cell is multiplied, canonical; one empty entry when there is no axis."""
    layers = [document.defaults, model, *(item for item in document.overrides if fnmatchcase(plain_id, item.cells))]
    setting = [layer for layer in layers if sets_axis(layer)]
    return [canonical(entry) for entry in setting[-1].libraries] or [{}] if setting else [{}]


def sets_axis(layer: Common) -> bool:
    """Whether a layer says what the axis is."""
    return "libraries" in layer.model_fields_set


def with_libraries(plain_id: str, libraries: Mapping[str, str]) -> str:
    """The id of the cell that runs with these packages."""
    return f"{plain_id}{AT}{label(libraries)}" if libraries else plain_id


def holds_for(override: OverrideEntry, cell_id: str) -> bool:
    """Whether an override's settings are those of a cell."""
    plain_id = cell_id.partition(AT)[0]
    return fnmatchcase(cell_id, override.cells) or (sets_axis(override) and fnmatchcase(plain_id, override.cells))


def axis_hint(pattern: str, ids: Sequence[str]) -> str:
    """What to write when a glob matches no cell only because all cells of that name have libraries."""
    longer = f"{pattern}{AT}*"
    if AT in pattern or not any(fnmatchcase(name, longer) for name in ids):
        return ""
    return f"; all cells of that name have libraries, so write {longer!a}"
