"""A comparison for the terminal: the verdict first, then each cell that changed, the worst first."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from itertools import groupby

from checker.comparison import CellChange, Comparison, Direction, FigureChange, Status
from checker.domain import ExitCode
from checker.reporters import comparison_words as said
from checker.reporters import figures
from checker.reporters.escape import ELLIPSIS, terminal
from checker.reporters.terminal import Piece, emit, words

if typing.TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

STYLES = {
    Status.WORSE: "bold red",
    Status.GONE: "magenta",
    Status.APPEARED: "cyan",
    Status.CHANGED: "yellow",
    Status.BETTER: "green",
    Status.UNCHANGED: "dim",
}
_MARGIN = 11
_FINDINGS = 3  # of one check
_LAYERS = 3  # of one figure
_NAMES = 4  # checks or cells named in one line
_ALONE = (Status.GONE, Status.APPEARED)  # one line each


def render(comparison: Comparison, console: Console) -> None:
    """Print what changed; cells in which nothing did are one line in all."""
    from rich.console import Group

    parts: list[RenderableType] = [_opening(comparison, console.width), ""]
    for alone, cells in groupby(comparison.cells, key=lambda cell: cell.status in _ALONE):
        for cell in cells:
            if cell.status is not Status.UNCHANGED:
                parts += [_heading(cell), *_cell(cell), *([] if alone else [""])]
        parts += [""] if alone else []
    parts += _closing(comparison)
    emit(console, Group(*parts))


def _opening(comparison: Comparison, width: int) -> Text:
    style = "bold green" if comparison.exit_code is ExitCode.PASSED else "bold red"
    verdict = said.headline(comparison)
    changed = ", ".join(_replaced(*said.replaced(fact)) for fact in comparison.surroundings)
    if not changed:
        return words((verdict, style))
    return words((verdict, style), "; " if len(f"{verdict}; {changed}") <= width else "\n", changed)


def _replaced(what: str, old: str, new: str) -> str:
    return f"{terminal(what)} {terminal(old)} {said.ARROW} {terminal(new)}"


def _heading(cell: CellChange) -> Text:
    word = cell.status.value.upper() if cell.status is Status.WORSE else cell.status.value
    note = f"; {terminal(cell.note)}" if cell.note else ""
    return words((terminal(cell.id), "bold"), "  ", (word, STYLES[cell.status]), f"  {said.outcome(cell)}", note)


def _cell(cell: CellChange) -> Iterator[RenderableType]:
    told = said.told_by_findings(cell, _FINDINGS)
    for direction in Direction:
        for group in said.check_groups(item for item in cell.checks if item.direction is direction):
            yield _entry(direction, *_check(group, told))
        rest = (item for item in cell.figures if item.direction is direction and item not in told.values())
        for figure_group in said.figure_groups(rest):
            yield _entry(direction, *_figures(figure_group))
    for text in cell.texts:
        old, new = said.excerpts(text)
        prompt = (f"text after {terminal(repr(text.prompt))}", "bold")
        place = f"  differs from character {text.position + 1} on"
        yield _entry(Direction.CHANGED, prompt, place, f"\nbefore {terminal(repr(old))}\nnow    {terminal(repr(new))}")
    for fact in cell.facts:
        yield _entry(Direction.CHANGED, _replaced(*said.replaced(fact)))


def _check(group: said.SameChange, told: said.Told) -> Iterator[Piece]:
    change, ids = group.change, group.ids
    names = ", ".join(terminal(check_id) for check_id in ids[:_NAMES])
    if len(ids) > _NAMES:
        names = f"{len(ids)} checks: {names}, {ELLIPSIS}"
    yield (names, "bold")
    yield f"  {said.outcomes(change.old, change.new)}"
    if change.reason:
        yield f"\n{terminal(change.reason)}"
    for finding in change.findings[:_FINDINGS]:
        yield f"\n{said.finding_word(finding)}: {terminal(said.finding_sentence(finding))}"
        if comparison := said.finding_figures(change, finding, told):
            yield f"\n  {terminal(comparison)}"
    if len(change.findings) > _FINDINGS:
        yield (f"\n{ELLIPSIS} and {len(change.findings) - _FINDINGS} more", "dim")


def _figures(group: list[FigureChange]) -> Iterator[Piece]:
    """Figures of one kind: on the line of its name when there is one, else the worst layers below it."""
    first = group[0]
    yield (first.label, "bold")
    if len(group) == 1:
        yield (f" of {terminal(first.where)}" if first.where else "") + f"  {_moved(first)}"
        return
    yield f" of {len(group)} layers"
    for change in group[:_LAYERS]:
        yield f"\n{terminal(change.where)}  {_moved(change)}"
    if len(group) > _LAYERS:
        yield (f"\n{ELLIPSIS} and {len(group) - _LAYERS} more", "dim")


def _moved(change: FigureChange) -> str:
    unit, growth = said.unit(change), said.growth(change)
    text = f"{said.amount(change, new=False)} {said.ARROW} {said.amount(change, new=True)}"
    return text + (f" {unit}" if unit else "") + (f" ({growth})" if growth else "")


def _entry(direction: Direction, *pieces: Piece) -> RenderableType:
    """The direction in the margin and text beside it, which wraps within its own column."""
    from rich.table import Table

    grid = Table.grid()
    grid.add_column(width=_MARGIN, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(words((f"  {direction.value}", STYLES[Status(direction.value)])), words(*pieces))
    return grid


def _closing(comparison: Comparison) -> Iterator[RenderableType]:
    same = comparison.of(Status.UNCHANGED)
    if same:
        yield words((f"unchanged: {figures.some([terminal(cell.id) for cell in same], _NAMES)}", "dim"))
    if times := said.times(comparison):
        shown = figures.some([f"{terminal(cell_id)} {text}" for cell_id, text in times], _NAMES)
        yield words((f"time: {shown}", "dim"))
    code = comparison.exit_code
    style = "green" if code is ExitCode.PASSED else "bold red"
    yield words((f"Exit code {int(code)}", style), f": {said.MEANINGS[code]}.")
