"""The comment on a pull request: the step summary's verdict and table, then what is wrong, in short and worst first.

GitHub refuses a body of more than 65,536 characters and keeps at most four bytes for each. The budget is in bytes, so
it holds however characters are counted, and leaves room for the line by which the comment is found again. As in the
summary, foreign strings stand in code spans only: there they mention nobody, link nowhere and are no HTML.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import checker
from checker.domain import CellResult, CheckResult, Outcome, RunResult
from checker.reporters import figures, summary
from checker.reporters.escape import markdown

BUDGET = 60_000  # bytes
_CLOSING = 200  # bytes kept for the line that says what was left out
_TABLE = 12_000  # bytes, about a hundred cells
_CELLS = 10  # with their findings
_CHECKS = 5  # of a cell
_FINDINGS = 3  # of a check
_NAME = 120  # characters of an id
_TEXT = 200  # of anything else
_SHORT = 7  # of a commit
_TOLD = {Outcome.FAIL: "❌", Outcome.ERROR: "🚫", Outcome.WARN: "⚠️"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a report comes from. Addresses and commit are put into links as they are: the caller has checked them."""

    label: str = ""  # foreign
    commit: str | None = None
    commit_url: str | None = None
    run_url: str | None = None


def render(run: RunResult, source: Source, budget: int = BUDGET) -> str:
    """The comment, at most ``budget`` bytes of it."""
    parts = [summary.heading(run)]
    foot = _foot(source)
    room = budget - _CLOSING - sum(summary.size(part) for part in (*parts, foot))
    ordered = summary.worst_first(run.cells)
    if ordered:
        rows = summary.table(ordered, min(room, _TABLE))
        parts.append(rows)
        room -= summary.size(rows)
    told = [cell for cell in ordered if cell.outcome in _TOLD]
    for number, cell in enumerate(told):
        block = "\n".join(_block(cell))
        room -= summary.size(block)
        if room < 0 or number == _CELLS:
            more = figures.plural(len(told) - number, "more cell")
            parts.append(f"_and {more} with findings: see the summary of the run._")
            break
        parts.append(block)
    return "\n\n".join([*parts, foot]) + "\n"


def _block(cell: CellResult) -> Iterator[str]:
    """A heading, then a line for each finding and for each reason why there is no verdict."""
    yield f"#### {summary.MARKS[cell.outcome]}: {markdown(cell.cell.id, _NAME)}"
    yield ""
    checks = figures.by_outcome(cell.checks)
    lines = [*(_findings(check) for check in checks[Outcome.FAIL])]
    for same in figures.unverified(checks[Outcome.ERROR]):
        names = figures.some([markdown(check.id, _NAME) for check in same.checks])
        lines.append([f"- 🚫 {names}: {same.kind}, {markdown(same.reason, _TEXT)}"])
    lines += [_findings(check) for check in checks[Outcome.WARN]]
    for item in lines[:_CHECKS]:
        yield from item
    if len(lines) > _CHECKS:
        yield f"- and {figures.plural(len(lines) - _CHECKS, 'more check')}"


def _findings(check: CheckResult) -> list[str]:
    found = [finding for finding in figures.ranked(check.findings) if finding.waived is None]
    lines = []
    for finding in found[:_FINDINGS]:
        where = f"{markdown(finding.where, _NAME)}: " if finding.where else ""
        compared = figures.comparison(finding)
        figure = f" ({markdown(compared, _TEXT)})" if compared else ""
        message = markdown(figures.predicate(finding), _TEXT)
        lines.append(f"- {_TOLD[check.outcome]} {markdown(check.id, _NAME)}: {where}{message}{figure}")
    if len(found) > _FINDINGS:
        lines.append(f"- {markdown(check.id, _NAME)}: and {len(found) - _FINDINGS} more")
    hint = next((finding.hint for finding in found if finding.hint), None)
    return lines if hint is None else [*lines, f"  - 💡 {markdown(hint, _TEXT)}"]


def _foot(source: Source) -> str:
    """What the comment is about: matrix, commit, run, version."""
    parts = [markdown(source.label, _NAME)] if source.label else []
    if source.commit is not None:
        short = f"`{source.commit[:_SHORT]}`"
        parts.append(f"commit {short if source.commit_url is None else f'[{short}]({source.commit_url})'}")
    if source.run_url is not None:
        parts.append(f"[summary and reports of the run]({source.run_url})")
    return f"<sub>{' · '.join([*parts, f'quant-verify {checker.__version__}'])}</sub>"
