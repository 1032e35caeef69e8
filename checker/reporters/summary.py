"""The step summary: GitHub-flavoured markdown, a verdict first, then one table, then what is wrong.

A summary over a mebibyte is dropped whole by the runner, hence a budget, spent by whole rows and blocks. Foreign
strings stand in code spans only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from checker.domain import CellResult, CheckResult, Environment, ExitCode, Finding, Outcome, RunResult
from checker.reporters import figures, measured, sparks
from checker.reporters.escape import markdown, markdown_cell

_BUDGET = 900_000  # bytes
_CLOSING = 200  # bytes kept for the lines that say what was left out
_TABLE_SHARE = 2  # the table may take one part in so many
_CHART = 20  # cells with a chart
_ROWS = 10  # findings shown of one check
_NAMES = 6  # checks named where several share a reason
_NAME_LIMIT = 120
MARKS = {
    Outcome.PASS: "✅ pass",
    Outcome.WARN: "⚠️ warn",
    Outcome.FAIL: "❌ fail",
    Outcome.ERROR: "🚫 not verified",
    Outcome.SKIP: "⏭️ skip",
}
_HEADLINES = {ExitCode.PASSED: "✅", ExitCode.FAILED: "❌"}


def render(run: RunResult, budget: int = _BUDGET) -> str:
    """The summary, at most ``budget`` bytes of it (900 kB unless told otherwise)."""
    parts = [heading(run)]
    foot = _environment(run.environment)
    room = budget - _CLOSING - sum(size(part) for part in (*parts, foot))
    if run.cells:
        rows = table(run.cells, min(room, budget // _TABLE_SHARE))
        parts.append(rows)
        room -= size(rows)
    ordered = worst_first(run.cells)
    chart = _chart(ordered)
    if chart and size(chart) <= room:
        parts.append(chart)
        room -= size(chart)
    blocks = [block for cell in ordered for block in _blocks(cell)]
    blocks += [f"Note on {_cells(ids)}: {markdown(note)}" for note, ids in figures.notes_of(run)[:_ROWS]]
    for number, block in enumerate(blocks):
        room -= size(block)
        if room < 0:
            parts.append(f"_{figures.plural(len(blocks) - number, 'more block')} left out: see report.json._")
            break
        parts.append(block)
    return "\n\n".join([*parts, foot]) + "\n"


def _cells(ids: list[str]) -> str:
    more = len(ids) - _NAMES
    return ", ".join(markdown(cell_id, _NAME_LIMIT) for cell_id in ids[:_NAMES]) + (
        f" and {more} more" if more > 0 else ""
    )


def worst_first(cells: Iterable[CellResult]) -> list[CellResult]:
    """The cells by outcome, those of one outcome in the order in which they come."""
    return sorted(cells, key=lambda cell: list(Outcome).index(cell.outcome))


def size(part: str) -> int:
    """Bytes of a part and of the empty line behind it."""
    return len(part.encode()) + len(b"\n\n")


def heading(run: RunResult) -> str:
    """The verdict, how many cells have which, and what the exit code means."""
    code = run.exit_code
    shard = f" Shard {markdown(run.shard)}." if run.shard else ""
    return (
        f"## {_HEADLINES.get(code, '🚫')} quant-verify: {figures.VERDICTS[code]}\n\n"
        f"**{figures.totals_sentence(run)}.**{shard} Exit code {int(code)}: {figures.exit_meaning(run)}."
    )


def table(cells: Iterable[CellResult], room: int) -> str:
    """A row for each cell, as many as ``room`` bytes hold, and how many more there are."""
    return "\n".join(_table(cells, room))


def _table(cells: Iterable[CellResult], room: int) -> Iterator[str]:
    yield "| cell | verdict | memory saved | worst layer | time |"
    yield "|---|---|--:|---|--:|"
    rows = [_row(cell) for cell in cells]
    for number, row in enumerate(rows):
        room -= len(row.encode()) + 1
        if room < 0:
            yield f"\n_and {figures.plural(len(rows) - number, 'more cell')}: see report.json._"
            return
        yield row


def _row(cell: CellResult) -> str:
    worst = measured.worst_layer(cell)
    layer = "" if worst is None else f"{markdown_cell(worst[0], _NAME_LIMIT)} R {figures.value(worst[1])}"
    name = markdown_cell(cell.cell.id, _NAME_LIMIT)
    time = figures.duration(cell.seconds)
    return f"| {name} | {MARKS[cell.outcome]} | {_memory(cell)} | {layer} | {time} |"


def _memory(cell: CellResult) -> str:
    memory = figures.memory(cell)
    if memory is None:
        return ""
    saved = f"{1 - memory.ratio:.0%}"
    if memory.stored is None or memory.baseline is None:
        return saved
    return f"{saved} ({figures.size(memory.baseline)} → {figures.size(memory.stored)})"


def _chart(cells: Iterable[CellResult]) -> str:
    """Bars for each cell that has more than its memory measured, at most so many; nothing when there is none."""
    rows = []
    for cell in cells:
        ratios, excess, memory = (
            [layer.ratio for layer in measured.layers(cell)],
            figures.excess(cell),
            figures.memory(cell),
        )
        if ratios or excess is not None:
            saved = "" if memory is None else f"`{sparks.share(memory.ratio)}` {memory.ratio:.0%}"
            times = "" if excess is None else f"`{sparks.excess(excess)}` {figures.short(excess)}×"
            line = f"`{sparks.ratios(ratios)}`" if ratios else ""
            rows.append(f"| {markdown_cell(cell.cell.id, _NAME_LIMIT)} | {saved} | {line} | {times} |")
    if not rows:
        return ""
    head = ["| cell | memory of the baseline's | R, first layer to last | KL over expected |", "|---|---|---|---|"]
    more = f" {figures.plural(len(rows) - _CHART, 'cell')} more in report.html." if len(rows) > _CHART else ""
    legend = (
        "R from `▁`, as scales and codes predict, to `█`, ten times that or more; "
        f"KL with `{sparks.EXPECTED}` where all of it is explained by the quantization."
    )
    return "\n".join([*head, *rows[:_CHART], "", f"<sub>{legend}{more}</sub>"])


def _blocks(cell: CellResult) -> Iterator[str]:
    """What a cell has to say beyond its row: a block per check with findings, a block per reason for no verdict."""
    blocks = [*_verdicts(cell)]
    if blocks:
        again = f", attempt {cell.attempts}" if cell.attempts > 1 else ""
        yield f"### {MARKS[cell.outcome]}: {markdown(cell.cell.id, _NAME_LIMIT)}{again}\n\n{blocks[0]}"
        yield from blocks[1:]


def _verdicts(cell: CellResult) -> Iterator[str]:
    checks = figures.by_outcome(cell.checks)
    yield from (_findings(check, "❌") for check in checks[Outcome.FAIL])
    for same in figures.unverified(checks[Outcome.ERROR]):
        yield _same("🚫", same, f": {same.kind}, {markdown(same.reason)}")
        yield from (_findings(check, "🚫") for check in same.checks if check.findings)
    yield from (_findings(check, "⚠️") for check in checks[Outcome.WARN])
    yield from (_findings(check, "☑️") for check in checks[Outcome.PASS] if check.findings)  # waived ones
    troubled = checks[Outcome.FAIL] or checks[Outcome.ERROR] or checks[Outcome.WARN] or not checks[Outcome.PASS]
    for same in figures.skipped(checks[Outcome.SKIP] if troubled else ()):
        yield _same("⏭️", same, f" skipped: {markdown(same.reason)}")


def _findings(check: CheckResult, mark: str) -> str:
    """The findings of one check as a table, the worst ten of them, and each hint once."""
    findings = figures.ranked(check.findings)
    lines = [
        f"{mark} **{markdown(check.id)}**: {figures.plural(len(findings), 'finding')}",
        "",
        "| | tensor or module | finding | observed | limit or expected |",
        "|---|---|---|--:|--:|",
    ]
    lines += [_finding(finding) for finding in findings[:_ROWS]]
    hints = dict.fromkeys(finding.hint for finding in findings if finding.hint)
    if len(findings) > _ROWS:
        lines += ["", f"and {len(findings) - _ROWS} more: see report.json"]
    lines.append("")
    lines += [f"- 💡 {markdown(hint, 1_000)}" for hint in list(hints)[:_ROWS]]
    return "\n".join(lines).rstrip("\n")


def _finding(finding: Finding) -> str:
    waived = finding.waived
    message = markdown_cell(figures.predicate(finding))
    if waived is not None:
        message += f" waived until {waived.until.isoformat()}: {markdown_cell(waived.reason)}"
    cells = (
        figures.label(finding),
        markdown_cell(finding.where, _NAME_LIMIT) if finding.where else "",
        message,
        _figure(figures.value(finding.observed, finding.unit)),
        _figure(figures.value(finding.limit, finding.unit)),
    )
    return f"| {' | '.join(cells)} |"


def _figure(text: str) -> str:
    return markdown_cell(text) if text else ""


def _same(mark: str, same: figures.Same, predicate: str) -> str:
    names = ", ".join(markdown(check.id) for check in same.checks[:_NAMES])
    more = len(same.checks) - _NAMES
    return f"{mark} {names}{f' and {more} more' if more > 0 else ''}{predicate}"


def _environment(environment: Environment) -> str:
    facts = {"python": environment.python, "device": environment.device, "driver": environment.driver or ""}
    rows = [f"| {name} | {_figure(text)} |" for name, text in facts.items() if text]
    rows += [f"| {markdown_cell(name)} | {_figure(version)} |" for name, version in environment.packages.items()]
    head = ["<details><summary>Environment</summary>", "", "| | version |", "|---|---|"]
    return "\n".join([*head, *rows[:100], "", "</details>"])
