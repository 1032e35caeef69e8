"""What the reports for people have in common: how a figure reads, what a cell's measurements say, what goes together.

Measurements may come from a report that somebody else wrote, so nothing is assumed about their shape.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from checker.domain import CellResult, CheckResult, ExitCode, Finding, Json, Outcome, RunResult, Severity
from checker.reporters import measured
from checker.reporters.escape import one_line
from checker.reporters.json_v1 import non_finite, plain, totals

VERDICTS = {
    ExitCode.PASSED: "passed",
    ExitCode.FAILED: "failed",
    ExitCode.USAGE: "nothing was run",
    ExitCode.UNVERIFIED: "not verified",
    ExitCode.NOTHING_CHECKED: "nothing checked",
    ExitCode.HANGUP: "interrupted",
    ExitCode.INTERRUPTED: "interrupted",
    ExitCode.TERMINATED: "interrupted",
}
_MEANINGS = {
    ExitCode.PASSED: "every check passed",
    ExitCode.FAILED: "at least one check failed",
    ExitCode.USAGE: "wrong usage or matrix, nothing was run",
    ExitCode.UNVERIFIED: "no check failed, but something could not be verified",
    ExitCode.NOTHING_CHECKED: "nothing was checked",
    ExitCode.HANGUP: "interrupted by SIGHUP",
    ExitCode.INTERRUPTED: "interrupted by SIGINT",
    ExitCode.TERMINATED: "interrupted by SIGTERM",
}
_TOTALS = {
    "pass": "passed",
    "warn": "with warnings",
    "fail": "failed",
    "error": "not verified",
    "skip": "skipped",
}
_NO_JSON = tuple(map(non_finite, (math.nan, math.inf, -math.inf)))
_VALUE_LIMIT = 200
_THOUSAND, _MILLION = 1e3, 1e6
_MANY = 10.0  # from here on nobody reads per cent
_LONG, _MINUTE, _HOUR = 1000, 60, 3600  # seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes stored over bytes of the baseline; the bytes themselves when they are known."""

    ratio: float
    stored: float | None = None
    baseline: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Same:
    """Checks of one cell that have no verdict, or do not apply, for one and the same reason."""

    checks: tuple[CheckResult, ...]
    kind: str  # an error's kind, or "" for a skip
    reason: str
    detail: str = ""


def value(observed: Json, unit: str = "") -> str:
    """A figure as people read it: four significant digits, its unit behind it, nothing for nothing."""
    if observed is None:
        return ""
    text = _value(observed)
    return f"{text} {unit}" if unit else text


def duration(seconds: float) -> str:
    """``0.4 s``, ``101 s``, ``30 min``, ``2.1 h``: short enough for a column."""
    if seconds < 9.95:  # noqa: PLR2004 - beyond, a decimal tells nothing
        return f"{seconds:.1f} s"
    if seconds < _LONG:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < 2 * _HOUR else f"{seconds / _HOUR:.1f} h"


def size(count: float) -> str:
    """Bytes in decimal units, as model files are advertised."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:  # noqa: PLR2004 - the step of these units
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def short(figure: float | None) -> str:
    """Three significant digits, so that columns line up; no power of ten where one can do without."""
    if figure is None:
        return ""
    if not math.isfinite(figure):
        return "NaN" if math.isnan(figure) else "∞" if figure > 0 else "−∞"
    if abs(figure) >= _MILLION:
        text = f"{figure:.2e}"
    else:
        text = f"{figure:,.0f}" if abs(figure) >= _THOUSAND else f"{figure:#.3g}".rstrip(".")
    return text.replace("-", "−")


def percent(share: float) -> str:
    """A share in per cent; what is not finite by its name, what is many times the whole as a multiple."""
    if not math.isfinite(share):
        return short(share)
    return f"{short(share)}×" if abs(share) >= _MANY else f"{short(share * 100)}%"


def memory(cell: CellResult) -> Memory | None:
    """What ``memory.ratio`` measured, or None when it did not run."""
    measurement = cell.measurements.get("memory.ratio")
    if not isinstance(measurement, Mapping):
        return None
    stored, baseline = (measured.number(measurement.get(key)) for key in ("stored_bytes", "baseline_bytes"))
    if stored is not None and baseline:
        return Memory(ratio=stored / baseline, stored=stored, baseline=baseline)
    ratio = measured.number(measurement.get("observed"))
    return None if ratio is None else Memory(ratio=ratio)


def excess(cell: CellResult) -> float | None:
    """The KL divergence as a multiple of what the quantization explains."""
    found = measured.divergence(cell)
    return None if found is None else found.excess


def notes_of(run: RunResult) -> list[tuple[str, list[str]]]:
    """Each note once, with the ids of the cells that have it."""
    found: dict[str, list[str]] = {}
    for cell in run.cells:
        for note in dict.fromkeys(notes(cell)):
            found.setdefault(note, []).append(cell.cell.id)
    return list(found.items())


def notes(cell: CellResult) -> list[str]:
    """Remarks that are neither findings nor figures, one line each."""
    lines = cell.measurements.get("notes")
    if not isinstance(lines, list | tuple):
        return []
    return [one_line(str(line)) for line in lines if str(line).strip()]


def totals_sentence(run: RunResult) -> str:
    """``5 cells: 1 passed, 2 failed, 2 skipped``."""
    counts = totals(run)
    parts = [f"{counts[key]} {word}" for key, word in _TOTALS.items() if counts[key]]
    return f"{plural(counts['cells'], 'cell')}{': ' if parts else ''}{', '.join(parts)}"


def exit_meaning(run: RunResult) -> str:
    """What the exit code says about this run."""
    code = run.exit_code
    outcomes = {cell.outcome for cell in run.cells}
    if code is ExitCode.PASSED and not outcomes:
        return "this shard is empty"
    if code is ExitCode.PASSED and Outcome.WARN in outcomes:
        return "no check failed"
    if code is ExitCode.FAILED and Outcome.FAIL not in outcomes:
        return "warnings, and warnings were asked to fail"
    return _MEANINGS[code]


def some(names: list[str], shown: int = 3) -> str:
    """``a, b, c and 4 more``."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")


def plural(count: int, noun: str) -> str:
    """``1 check``, ``2 checks``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Failures, then warnings, then what is waived; each in the order in which the check gave them."""
    return sorted(findings, key=lambda finding: (finding.waived is not None, finding.severity is Severity.WARN))


def label(finding: Finding) -> str:
    """``fail``, ``warn`` or ``waived``."""
    return "waived" if finding.waived is not None else finding.severity.value


def sentence(finding: Finding) -> str:
    """The message with the name of its tensor, once."""
    named = not finding.where or finding.where in finding.message
    return finding.message if named else f"{finding.where}: {finding.message}"


def predicate(finding: Finding) -> str:
    """The message for a place that shows the tensor's name already: without it where it begins with it."""
    rest = finding.message.removeprefix(finding.where).lstrip(" :,") if finding.where else ""
    return rest or finding.message


def bar(limit: Json) -> str:
    """What a finding's limit is called: a number is a ``limit``, also one that stands as its name in a report."""
    return "expected" if isinstance(limit, str) and limit not in _NO_JSON else "limit"


def comparison(finding: Finding) -> str:
    """``observed 2.13, limit 1.2``, as far as the finding has them; what is no number is ``expected``."""
    parts = (("observed", finding.observed), (bar(finding.limit), finding.limit))
    texts = ((name, value(figure, finding.unit)) for name, figure in parts)
    return ", ".join(f"{name} {text}" for name, text in texts if text)


def by_outcome(checks: Iterable[CheckResult]) -> dict[Outcome, list[CheckResult]]:
    """The checks of each outcome, every outcome there, the worst first."""
    groups: dict[Outcome, list[CheckResult]] = {outcome: [] for outcome in Outcome}
    for check in checks:
        groups[check.outcome].append(check)
    return groups


def unverified(checks: Iterable[CheckResult]) -> list[Same]:
    """The errors of a cell, those of one kind and message together: a worker that dies takes many checks with it."""
    groups: dict[tuple[str, str], list[CheckResult]] = {}
    details: dict[tuple[str, str], str] = {}
    for check in checks:
        if check.error is not None:
            key = (check.error.kind.value, check.error.message)
            groups.setdefault(key, []).append(check)
            details.setdefault(key, check.error.detail)
    return [Same(checks=tuple(groups[key]), kind=key[0], reason=key[1], detail=details[key]) for key in groups]


def skipped(checks: Iterable[CheckResult]) -> list[Same]:
    """The skips of a cell, those of one reason together."""
    groups: dict[str, list[CheckResult]] = {}
    for check in checks:
        if check.outcome is Outcome.SKIP:
            groups.setdefault(check.skip_reason or "", []).append(check)
    return [Same(checks=tuple(checks), kind="", reason=reason) for reason, checks in groups.items()]


def _value(observed: Json) -> str:
    if isinstance(observed, str):
        text = observed
    elif isinstance(observed, float):
        text = f"{observed:.4g}" if math.isfinite(observed) else non_finite(observed)
    else:
        text = json.dumps(plain(observed), ensure_ascii=False)
    return one_line(text, _VALUE_LIMIT)
