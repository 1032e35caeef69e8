"""What the page shows of one cell: every string made visible, every figure written out, every list cut to length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from checker.domain import CellResult, CheckResult, Finding, ModelRef, Outcome
from checker.reporters import figures, measured, panels
from checker.reporters.escape import one_line
from checker.reporters.json_v1 import reference

WORDS = {
    Outcome.PASS: "pass",
    Outcome.WARN: "warn",
    Outcome.FAIL: "fail",
    Outcome.ERROR: "not verified",
    Outcome.SKIP: "skip",
}
_FINDINGS = 20  # shown of one check
_LINE = 600  # characters of a message
_NAME = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class FindingView:
    """One finding; ``kind`` is ``fail``, ``warn`` or ``waived``."""

    kind: str
    where: str
    message: str
    observed: str
    bar: str
    limit: str
    waiver: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckView:
    """A check with findings, those of them that are shown, and what to do about them."""

    id: str
    outcome: str
    time: str
    findings: tuple[FindingView, ...]
    hints: tuple[str, ...]
    more: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupView:
    """Checks without a verdict, or not applicable, for one reason."""

    checks: tuple[str, ...]
    reason: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What the overview and the closed cell show."""

    id: str
    outcome: str
    word: str
    memory: str
    share: float | None  # of the baseline's bytes, in per cent
    ratio: str
    excess: str
    top1: str
    counts: str
    time: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CellView:
    """Everything the page shows of a cell."""

    row: Row
    facts: tuple[tuple[str, str], ...]
    errors: tuple[GroupView, ...]
    checks: tuple[CheckView, ...]
    passed: tuple[tuple[str, str], ...]
    skipped: tuple[GroupView, ...]
    notes: tuple[str, ...]
    panels: panels.Panels


def cell_view(cell: CellResult) -> CellView:
    """The view of a cell; costs about a millisecond."""
    groups = figures.by_outcome(cell.checks)
    ordered = (*groups[Outcome.FAIL], *groups[Outcome.ERROR], *groups[Outcome.WARN], *groups[Outcome.PASS])
    return CellView(
        row=row(cell),
        facts=tuple(_facts(cell)),
        errors=tuple(_group(same) for same in figures.unverified(groups[Outcome.ERROR])),
        checks=tuple(_check(check) for check in ordered if check.findings),
        passed=tuple((one_line(check.id, _NAME), figures.duration(check.seconds)) for check in groups[Outcome.PASS]),
        skipped=tuple(_group(same) for same in figures.skipped(groups[Outcome.SKIP])),
        notes=tuple(one_line(note, _LINE) for note in figures.notes(cell)),
        panels=panels.panels(cell),
    )


def row(cell: CellResult) -> Row:
    """The overview's row of a cell."""
    memory, worst, found = figures.memory(cell), measured.worst_layer(cell), measured.divergence(cell)
    return Row(
        id=one_line(cell.cell.id, _NAME),
        outcome=cell.outcome.value,
        word=WORDS[cell.outcome],
        memory="" if memory is None else f"{memory.ratio:.0%}",
        share=None if memory is None else round(min(max(0.0, memory.ratio), 1.0) * 100, 1),
        ratio="" if worst is None else figures.short(worst[1]),
        excess="" if found is None or found.excess is None else f"{figures.short(found.excess)}×",
        top1="" if found is None or found.top1 is None else figures.percent(found.top1.value),
        counts=_counts(cell),
        time=figures.duration(cell.seconds),
    )


def _counts(cell: CellResult) -> str:
    groups = figures.by_outcome(cell.checks)
    return ", ".join(f"{len(checks)} {WORDS[outcome]}" for outcome, checks in groups.items() if checks) or "no checks"


def _facts(cell: CellResult) -> Iterator[tuple[str, str]]:
    """Pairs of a word and a value, as far as they are known."""
    origin = cell.cell.origin
    pairs = (
        ("method", cell.method),
        ("checkpoint", _model(cell.cell.checkpoint, cell.checkpoint_revision)),
        ("baseline", _model(cell.cell.baseline, cell.baseline_revision)),
        ("libraries", ", ".join(f"{name} {version}" for name, version in measured.libraries(cell).items())),
        ("depth", cell.cell.settings.depth.value),
        ("device", cell.device),
        ("attempts", str(cell.attempts) if cell.attempts > 1 else None),
        ("matrix entry", None if origin is None else f"{origin.file}:{origin.line}"),
    )
    yield from ((name, one_line(value, _NAME)) for name, value in pairs if value)


def _model(model: ModelRef | None, revision: str | None) -> str | None:
    if model is None:
        return None
    return (
        f"{reference(model)} ({revision[:12]})" if revision and revision not in reference(model) else reference(model)
    )


def _group(same: figures.Same) -> GroupView:
    kind = f"{same.kind}: " if same.kind else ""
    return GroupView(
        checks=tuple(one_line(check.id, _NAME) for check in same.checks),
        reason=one_line(f"{kind}{same.reason}", _LINE),
        detail="\n".join(one_line(line, _LINE) for line in same.detail.splitlines()[-_FINDINGS:]),
    )


def _check(check: CheckResult) -> CheckView:
    ranked = figures.ranked(check.findings)
    shown = ranked[:_FINDINGS]
    hints: Iterable[str] = dict.fromkeys(finding.hint for finding in shown if finding.hint.strip())
    return CheckView(
        id=one_line(check.id, _NAME),
        outcome=check.outcome.value,
        time=figures.duration(check.seconds),
        findings=tuple(_finding(finding) for finding in shown),
        hints=tuple(one_line(hint, _LINE) for hint in hints),
        more=len(ranked) - len(shown),
    )


def _finding(finding: Finding) -> FindingView:
    waived = finding.waived
    return FindingView(
        kind=figures.label(finding),
        where=one_line(finding.where, _NAME),
        message=one_line(figures.predicate(finding), _LINE),
        observed=figures.value(finding.observed, one_line(finding.unit, _NAME)),
        bar=figures.bar(finding.limit),
        limit=figures.value(finding.limit, one_line(finding.unit, _NAME)),
        waiver="" if waived is None else f"until {waived.until.isoformat()}: {one_line(waived.reason, _LINE)}",
    )
