"""The verdict for people: one table, then what is wrong, then one line that says what the exit code means.

Meant to be read without colour as well, hence words and capitals where others use red. Foreign text never meets
rich's markup, and what rich has wrapped goes through ``escape.log`` once more, because a long name can be cut so that
a line starts in the middle of it.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator

from checker.domain import CellResult, CheckResult, Finding, Outcome, RunResult
from checker.reporters import figures, measured
from checker.reporters.escape import ELLIPSIS, log, terminal

if typing.TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

WORDS = {
    Outcome.PASS: "pass",
    Outcome.WARN: "warn",
    Outcome.FAIL: "FAIL",
    Outcome.ERROR: "ERROR",
    Outcome.SKIP: "skip",
}
STYLES = {
    Outcome.PASS: "green",
    Outcome.WARN: "yellow",
    Outcome.FAIL: "bold red",
    Outcome.ERROR: "bold magenta",
    Outcome.SKIP: "dim",
}
_SHOWN = 5  # findings of one check
_NAMES = 4  # checks named where several share a reason
_MARGIN = 9
_LAYER_WIDTH = 14  # at least
_CHECKS_WIDTH = 14
_KL_WIDTH = 7  # the KL divergence as a multiple of the expected
_TIME_WIDTH = 6
_ID_WIDTH = 16  # of a cell's id, at least
_LONG_ID = 40
_OTHER_COLUMNS = 54  # what the table takes beside the cell's id and the layer

_TRAILING_SPACE = re.compile(r" +$", re.MULTILINE)

Piece: typing.TypeAlias = str | tuple[str, str]  # text, or text and its style


def render_table(run: RunResult, console: Console, *, verbose: bool = False) -> None:
    """Print the verdict table, the findings by cell and check, and the totals.

    ``verbose`` adds the details of errors, the checks that passed, and every finding.
    """
    from rich.console import Group

    parts: list[RenderableType] = []
    if run.cells:
        parts += [_table(run, console.width), ""]
    for cell in run.cells:
        if lines := list(_cell(cell, verbose=verbose)):
            parts += [_heading(cell), *lines, ""]
    for note, cells in figures.notes_of(run):
        parts += [_entry("note", "cyan", f"{terminal(figures.some(cells))}: {terminal(note)}"), ""]
    parts.append(_closing(run, console.width))
    emit(console, Group(*parts))


def emit(console: Console, renderable: RenderableType) -> None:
    """Print with every workflow command broken, in whatever characters the stream can take."""
    with console.capture() as captured:
        console.print(renderable, highlight=False, markup=False, emoji=False)
    text = _TRAILING_SPACE.sub("", captured.get())
    console.file.write(encodable(console, log(text)))
    console.file.flush()


def encodable(console: Console, text: str) -> str:
    """The text without what the console's encoding lacks, so that a foreign name cannot stop a report."""
    if console.encoding.startswith("utf"):
        return text
    plain = text.replace(ELLIPSIS, "...").replace("→", "->")
    return plain.encode(console.encoding, "backslashreplace").decode(console.encoding)


def words(*parts: Piece) -> Text:
    """Text out of plain and styled pieces; never markup."""
    from rich.text import Text

    return Text.assemble(*parts)


def counts(cell: CellResult) -> str:
    """``21 pass, 1 fail``."""
    groups = figures.by_outcome(cell.checks)
    return ", ".join(f"{len(checks)} {outcome.value}" for outcome, checks in groups.items() if checks)


def _table(run: RunResult, width: int) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    lengths = [len(terminal(cell.cell.id)) for cell in run.cells]
    longest = max((length for length in lengths if length <= _LONG_ID), default=_LONG_ID)  # longer ones are folded
    ids = min(longest, max(_ID_WIDTH, width - _OTHER_COLUMNS - _LAYER_WIDTH))
    room = width - ids - _OTHER_COLUMNS
    diverged = any(figures.excess(cell) is not None for cell in run.cells) and room >= _LAYER_WIDTH + _KL_WIDTH
    room -= _KL_WIDTH if diverged else 0
    table.add_column("cell", overflow="fold", min_width=ids)
    table.add_column("verdict", no_wrap=True)
    table.add_column("saved", justify="right", no_wrap=True)
    table.add_column("worst layer", no_wrap=True)
    table.add_column("R", justify="right", no_wrap=True)
    if diverged:
        table.add_column("KL", justify="right", no_wrap=True, min_width=_KL_WIDTH - 1)
    table.add_column("checks", overflow="fold", min_width=_CHECKS_WIDTH)
    table.add_column("time", justify="right", no_wrap=True, min_width=_TIME_WIDTH)
    for cell in run.cells:
        memory, worst, excess = figures.memory(cell), measured.worst_layer(cell), figures.excess(cell)
        table.add_row(
            words(_id(terminal(cell.cell.id), ids)),
            words((WORDS[cell.outcome], STYLES[cell.outcome])),
            "" if memory is None else f"{1 - memory.ratio:.0%}",
            "" if worst is None else words(_layer(terminal(worst[0]), room - 1)),
            "" if worst is None else f"{worst[1]:.4g}",
            *(["" if excess is None else f"{excess:.3g}x"] if diverged else []),
            words(counts(cell)),
            figures.duration(cell.seconds),
        )
    return table


def _id(name: str, width: int) -> str:
    """A long id on two lines where the libraries begin, rather than wherever the column ends."""
    before, _, libraries = name.partition("@")
    return f"{before}\n@{libraries}" if libraries and len(before) <= width < len(name) else name


def _layer(name: str, width: int) -> str:
    """The end of a layer's name, which tells more than its beginning; on a narrow terminal its last part alone."""
    if width < _LAYER_WIDTH:
        return name.rpartition(".")[2][-_LAYER_WIDTH:]
    return name if len(name) <= width else ELLIPSIS + name[1 - width :]


def _heading(cell: CellResult) -> Text:
    again = f"  attempt {cell.attempts}" if cell.attempts > 1 else ""
    return words((terminal(cell.cell.id), "bold"), "  ", (WORDS[cell.outcome], STYLES[cell.outcome]), again)


def _cell(cell: CellResult, *, verbose: bool) -> Iterator[RenderableType]:
    """Whatever of a cell deserves more than its row, the worst first."""
    checks = figures.by_outcome(cell.checks)
    for check in checks[Outcome.FAIL]:
        yield from _findings(check, verbose=verbose)
    for same in figures.unverified(checks[Outcome.ERROR]):
        yield _same(same, Outcome.ERROR, same.detail if verbose else "")
        for check in same.checks:
            yield from _findings(check, verbose=verbose)
    for check in (*checks[Outcome.WARN], *checks[Outcome.PASS]):
        yield from _findings(check, verbose=verbose)
    if verbose or cell.outcome is Outcome.SKIP:
        yield from (_same(same, Outcome.SKIP) for same in figures.skipped(checks[Outcome.SKIP]))
    if verbose:
        tag = (WORDS[Outcome.PASS], STYLES[Outcome.PASS])
        yield from (_entry(*tag, terminal(check.id)) for check in checks[Outcome.PASS])


def _findings(check: CheckResult, *, verbose: bool) -> Iterator[RenderableType]:
    findings = figures.ranked(check.findings)
    shown = findings if verbose else findings[:_SHOWN]
    hints: set[str] = set()
    for finding in shown:
        yield _finding(check, finding, hint="" if finding.hint in hints else finding.hint)
        hints.add(finding.hint)
    if len(findings) > len(shown):
        yield _entry("", "", (f"{ELLIPSIS} and {len(findings) - len(shown)} more of {terminal(check.id)}", "dim"))


def _finding(check: CheckResult, finding: Finding, hint: str) -> RenderableType:
    outcome, waived = Outcome(finding.severity.value), finding.waived
    where = f"  {terminal(finding.where)}" if finding.where else ""
    lines: list[Piece] = [(terminal(check.id), "bold"), where, f"\n{terminal(figures.predicate(finding))}"]
    if comparison := figures.comparison(finding):
        lines.append(f"\n{terminal(comparison)}")
    if hint:
        lines.append((f"\nhint: {terminal(hint)}", "cyan"))
    if waived is None:
        return _entry(WORDS[outcome], STYLES[outcome], *lines)
    return _entry("waived", "dim", *lines, (f"\nuntil {waived.until.isoformat()}: {terminal(waived.reason)}", "dim"))


def _same(same: figures.Same, outcome: Outcome, detail: str = "") -> RenderableType:
    names = ", ".join(terminal(check.id) for check in same.checks[:_NAMES])
    if len(same.checks) > _NAMES:
        names = f"{len(same.checks)} checks: {names}, {ELLIPSIS}"
    reason = f"{same.kind}: {terminal(same.reason)}" if same.kind else terminal(same.reason)
    trace = [(f"\n{terminal(line)}", "dim") for line in detail.splitlines()]
    return _entry(WORDS[outcome], STYLES[outcome], (names, "bold"), f"\n{reason}", *trace)


def _entry(tag: str, style: str, *pieces: Piece) -> RenderableType:
    """A word in the margin and text beside it, which wraps within its own column."""
    from rich.table import Table

    grid = Table.grid()
    grid.add_column(width=_MARGIN, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(words((f"  {tag}", style)), words(*pieces))
    return grid


def _closing(run: RunResult, width: int) -> Text:
    code = run.exit_code
    style = {0: "green", 1: "bold red"}.get(int(code), "bold magenta")
    totals, meaning = figures.totals_sentence(run), figures.exit_meaning(run)
    verdict = f"Exit code {int(code)}"
    space = " " if len(f"{totals}. {verdict}: {meaning}.") <= width else "\n"
    return words(f"{totals}.{space}", (verdict, style), f": {meaning}.")
