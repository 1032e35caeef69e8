"""A comparison as GitHub-flavoured markdown, for the step summary and for a comment on a pull request.

A summary over a mebibyte is dropped whole by the runner, hence a budget, spent by whole cells. Foreign strings stand
in code spans only.
"""

from __future__ import annotations

from collections.abc import Iterator

from checker.comparison import CellChange, Comparison, Direction, FigureChange, Status
from checker.domain import ExitCode
from checker.reporters import comparison_words as said
from checker.reporters import figures
from checker.reporters.escape import markdown, markdown_cell

MARKS = {
    Status.WORSE: "❌ worse",
    Status.GONE: "➖ gone",
    Status.APPEARED: "➕ appeared",
    Status.CHANGED: "🔸 changed",
    Status.BETTER: "✅ better",
}
_ICONS = {Direction.WORSE: "❌", Direction.CHANGED: "🔸", Direction.BETTER: "✅"}
_BUDGET = 900_000  # bytes
_CLOSING = 200  # bytes kept for the line that says what was left out
_FINDINGS = 5  # of one check
_LAYERS = 5  # of one figure
_NAMES = 6  # checks or cells named in one line
_FACTS = 50
_NAME_LIMIT = 120


def render(comparison: Comparison, budget: int = _BUDGET) -> str:
    """The whole as text, at most ``budget`` bytes of it (900 kB unless told otherwise)."""
    parts = [_heading(comparison), *_surroundings(comparison)]
    foot = list(_closing(comparison))
    room = budget - _CLOSING - sum(_bytes(part) for part in (*parts, *foot))
    blocks = [_block(cell) for cell in comparison.cells if cell.status is not Status.UNCHANGED]
    for number, block in enumerate(blocks):
        room -= _bytes(block)
        if room < 0:
            parts.append(
                f"_{figures.plural(len(blocks) - number, 'more cell')} left out: see the JSON of this command._"
            )
            break
        parts.append(block)
    return "\n\n".join([*parts, *foot]) + "\n"


def _bytes(part: str) -> int:
    return len(part.encode()) + len(b"\n\n")


def _heading(comparison: Comparison) -> str:
    code = comparison.exit_code
    mark = {ExitCode.PASSED: "✅", ExitCode.FAILED: "❌"}.get(code, "🚫")
    verdict = f"**{said.headline(comparison)}.** Exit code {int(code)}."
    return f"## {mark} quant-verify compare: {said.MEANINGS[code]}\n\n{verdict}"


def _surroundings(comparison: Comparison) -> Iterator[str]:
    facts = comparison.surroundings[:_FACTS]
    if facts:
        rows = [" | ".join(markdown_cell(text, _NAME_LIMIT) for text in said.replaced(fact)) for fact in facts]
        yield "\n".join(["| in all cells | before | now |", "|---|---|---|", *(f"| {row} |" for row in rows)])


def _block(cell: CellChange) -> str:
    """A cell: its line, then its checks and facts as a list, its figures and its texts as tables."""
    name = markdown(cell.id, _NAME_LIMIT)
    if cell.status in (Status.GONE, Status.APPEARED):
        return f"{MARKS[cell.status]}: {name}, {said.outcome(cell)}" + (f"; {markdown(cell.note)}" if cell.note else "")
    told = said.told_by_findings(cell, _FINDINGS)
    points = [line for group in said.check_groups(cell.checks) for line in _check(group, told)]
    for fact in cell.facts:
        what, old, new = (markdown(text, _NAME_LIMIT) for text in said.replaced(fact))
        points.append(f"- 🔸 {what}: {old} {said.ARROW} {new}")
    rest = [figure for figure in cell.figures if figure not in told.values()]
    heading = f"### {MARKS[cell.status]}: {name}, {said.outcome(cell)}"
    parts = [heading, "\n".join(points), "\n".join(_figures(rest)), "\n".join(_texts(cell))]
    return "\n\n".join(part for part in parts if part)


def _check(group: said.SameChange, told: said.Told) -> Iterator[str]:
    change, more = group.change, len(group.ids) - _NAMES
    names = ", ".join(markdown(check_id, _NAME_LIMIT) for check_id in group.ids[:_NAMES])
    names += f" and {more} more" if more > 0 else ""
    reason = f", {markdown(change.reason)}" if change.reason else ""
    yield f"- {_ICONS[change.direction]} {names}: {said.outcomes(change.old, change.new)}{reason}"
    for finding in change.findings[:_FINDINGS]:
        compared = said.finding_figures(change, finding, told)
        tail = f" ({markdown(compared)})" if compared else ""
        yield f"  - {said.finding_word(finding)}: {markdown(said.finding_sentence(finding))}{tail}"
    if len(change.findings) > _FINDINGS:
        yield f"  - and {len(change.findings) - _FINDINGS} more"


def _figures(changes: list[FigureChange]) -> Iterator[str]:
    if changes:
        yield "| figure | before | now | |"
        yield "|---|--:|--:|---|"
    for group in said.figure_groups(changes):
        first = group[0]
        mark = f"{_ICONS[first.direction]}\N{NO-BREAK SPACE}{first.direction.value}"
        unit = f", {said.unit(first)}" if said.unit(first) else ""
        for change in group[:_LAYERS]:
            where = f" of {markdown_cell(change.where, _NAME_LIMIT)}" if change.where else ""
            growth = f" ({said.growth(change)})" if said.growth(change) else ""
            sides = f"{said.amount(change, new=False)} | {said.amount(change, new=True)}{growth}"
            yield f"| {change.label}{where}{unit} | {sides} | {mark} |"
        if len(group) > _LAYERS:
            yield f"| {first.label} of {figures.plural(len(group) - _LAYERS, 'more layer')} | | | {mark} |"


def _texts(cell: CellChange) -> Iterator[str]:
    if cell.texts:
        yield "| prompt | before | now | differs from |"
        yield "|---|---|---|--:|"
    for text in cell.texts:
        sides = (text.prompt, *said.excerpts(text))
        yield f"| {' | '.join(markdown_cell(side) for side in sides)} | character {text.position + 1} |"


def _closing(comparison: Comparison) -> Iterator[str]:
    same = comparison.of(Status.UNCHANGED)
    if same:
        yield f"Unchanged: {_some([markdown(cell.id, _NAME_LIMIT) for cell in same])}"
    if times := said.times(comparison):
        yield f"Time: {_some([f'{markdown(cell_id, _NAME_LIMIT)} {text}' for cell_id, text in times])}"


def _some(names: list[str]) -> str:
    return figures.some(names, _NAMES)
