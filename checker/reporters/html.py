"""report.html: one file that needs no network, no script and no other file.

The template holds what strictness needs: a policy that forbids everything but inline style, and autoescape for all.
The file is rewritten after every check, so the markup of a cell is kept until the cell changes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import checker
from checker.domain import CellResult, ExitCode, Json, Outcome, RunResult
from checker.reporters import figures, views
from checker.reporters.escape import one_line
from checker.reporters.json_v1 import totals

_BUDGET = 6_000_000  # bytes
_OPEN = 10  # cells shown open, the first of those in trouble
_NAME = 200
_ORDER = list(Outcome)
_LOOKS = {  # what a verdict looks like: an outcome, and colour and sign of the tab's icon
    ExitCode.PASSED: (Outcome.PASS, "1b7443", "m4.5,8.5,2.5,2.4,4.5-5.4"),
    ExitCode.FAILED: (Outcome.FAIL, "bd2430", "m5,5,6,6m0-6-6,6"),
}
_OTHERWISE = (Outcome.ERROR, "7438ad", "M8,4v4.5m0,3v.1")


@dataclass(frozen=True, slots=True)
class _Kept:
    """The markup of a cell as last rendered; ``notes`` is the one measurement that grows in place."""

    cell: CellResult
    notes: list[str]
    row: views.Row
    whole: str
    brief: str


_kept: dict[int, _Kept] = {}  # by the number of the cell in the last run rendered


def render(run: RunResult, budget: int = _BUDGET) -> str:
    """The page, the worst cells first; of those beyond ``budget`` bytes (6 MB unless told otherwise) the verdict."""
    template = _template()
    for number in range(len(run.cells), len(_kept)):
        _kept.pop(number, None)
    cells = [_cell(cell, number, template) for number, cell in enumerate(run.cells)]
    order = sorted(range(len(cells)), key=lambda number: _ORDER.index(run.cells[number].outcome))
    page = _page(run, [(number + 1, cells[number].row) for number in order])
    parts = [template.head(page)]
    for rank, number in enumerate(order):
        text = cells[number].whole
        budget -= len(text)
        if budget < 0:
            text = cells[number].brief
        elif len(cells) == 1 or (rank < _OPEN and run.cells[number].outcome in (Outcome.FAIL, Outcome.ERROR)):
            text = text.replace("<details", "<details open", 1)
        parts.append(text)
    return "".join([*parts, template.foot(page)])


def _cell(cell: CellResult, number: int, template: Any) -> _Kept:
    notes, kept = figures.notes(cell), _kept.get(number)
    if kept is None or kept.notes != notes or not _same(kept.cell, cell):
        view = views.cell_view(cell)
        whole, brief = template.cell(view, number + 1), template.brief(view.row, number + 1)
        kept = _kept[number] = _Kept(cell, notes, view.row, str(whole), str(brief))
    return kept


def _same(old: CellResult, new: CellResult) -> bool:
    """Whether two results hold the very same objects; what is equal but rebuilt is rendered again."""

    def parts(cell: CellResult) -> list[object]:
        return [cell.cell, *cell.checks, *cell.measurements.values()]

    def facts(cell: CellResult) -> tuple[object, ...]:
        revisions = cell.baseline_revision, cell.checkpoint_revision
        return (*cell.measurements, cell.method, cell.device, *revisions, cell.attempts, cell.seconds)

    ours, theirs = parts(old), parts(new)
    return (
        facts(old) == facts(new)
        and len(ours) == len(theirs)
        and all(one is other for one, other in zip(ours, theirs, strict=True))
    )


def _page(run: RunResult, rows: list[tuple[int, views.Row]]) -> Mapping[str, Json]:
    """What stands above and below the cells."""
    counts = totals(run)
    outcome, colour, sign = _LOOKS.get(run.exit_code, _OTHERWISE)
    environment = run.environment
    shard = None if run.shard is None else f"shard {run.shard}"
    facts = (run.matrix_path, shard, environment.device, environment.driver and f"driver {environment.driver}")
    versions = {"python": environment.python, "device": environment.device, "driver": environment.driver or ""}
    return {
        "version": checker.__version__,
        "outcome": outcome.value,
        "colour": colour,
        "sign": sign,
        "verdict": figures.VERDICTS[run.exit_code].capitalize(),
        "totals": figures.totals_sentence(run),
        "code": int(run.exit_code),
        "meaning": figures.exit_meaning(run),
        "segments": [{"outcome": item.value, "count": counts[item.value]} for item in _ORDER if counts[item.value]],
        "facts": [one_line(fact, _NAME) for fact in facts if fact],
        "rows": rows,
        "has": {name: any(getattr(row, name) for _, row in rows) for name in ("memory", "ratio", "excess", "top1")},
        "environment": [
            (one_line(name, _NAME), one_line(text, _NAME))
            for name, text in (*versions.items(), *environment.packages.items())
            if text
        ],
        "matrix": "" if run.matrix_sha256 is None else f"matrix sha256 {one_line(run.matrix_sha256, _NAME)}",
    }


@functools.cache
def _template() -> Any:
    """The template's macros, each a function that takes views and gives markup."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("checker", "data"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("report.html.j2").module
