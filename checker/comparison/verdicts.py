"""Checks of one cell in two runs: outcomes and findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from checker.comparison.data import CheckChange, Direction, FindingChange, overall
from checker.domain import CheckResult, Finding, Outcome, Severity

T = TypeVar("T")
_VERDICTS = (Outcome.PASS, Outcome.WARN, Outcome.FAIL)  # the other outcomes are none
_ORDER = list(Direction)


def check_changes(old: Iterable[CheckResult], new: Iterable[CheckResult], fail_on: Severity) -> tuple[CheckChange, ...]:
    """The checks that say something else now, the worst first, else in the order of the new report."""
    before, now = numbered(old, _id), numbered(new, _id)
    found = (_check(key[0], before.get(key), now.get(key), fail_on) for key in {**now, **before})
    return tuple(
        sorted((change for change in found if change is not None), key=lambda item: _ORDER.index(item.direction))
    )


def numbered(items: Iterable[T], key: Callable[[T], str]) -> dict[tuple[str, int], T]:
    """Items by key and running number, so that none is lost where a foreign report holds a key twice."""
    seen: Counter[str] = Counter()
    table = {}
    for item in items:
        name = key(item)
        table[name, seen[name]] = item
        seen[name] += 1
    return table


def _id(check: CheckResult) -> str:
    return check.id


def _check(check_id: str, old: CheckResult | None, new: CheckResult | None, fail_on: Severity) -> CheckChange | None:
    before, now = (None if check is None else check.outcome for check in (old, new))
    findings = tuple(sorted(_findings(old, new, fail_on), key=lambda item: _ORDER.index(item.direction)))
    if before in (None, Outcome.SKIP) and now in (None, Outcome.SKIP):
        return None
    if before is now and not findings:
        return None
    directions = [_direction(before, now, fail_on), *(finding.direction for finding in findings)]
    return CheckChange(
        id=check_id,
        direction=overall(directions) or Direction.CHANGED,
        old=before,
        new=now,
        reason="" if new is None else _reason(new),
        findings=findings,
    )


def _reason(check: CheckResult) -> str:
    if check.error is not None:
        return f"{check.error.kind.value}: {check.error.message}"
    return check.skip_reason or ""


def _direction(old: Outcome | None, new: Outcome | None, fail_on: Severity) -> Direction:
    """Of what no finding tells: a verdict was gained, or lost because the check could not run."""
    if old is Outcome.ERROR and new in _VERDICTS:
        return Direction.BETTER
    fine = _VERDICTS[: _VERDICTS.index(Outcome(fail_on.value))]
    return Direction.WORSE if new is Outcome.ERROR and old in fine else Direction.CHANGED


def _findings(old: CheckResult | None, new: CheckResult | None, fail_on: Severity) -> Iterator[FindingChange]:
    """The findings that are not in both. Where there is no verdict now, none counts as gone."""
    went, came = _unmatched(_counted(old), _counted(new))
    if new is None or new.outcome not in _VERDICTS:
        went = []
    others: dict[str, list[Finding]] = {}
    for finding in went:
        others.setdefault(finding.where, []).append(finding)
    for finding in came:
        same_place = others.get(finding.where)
        partner = same_place.pop(0) if same_place else None
        yield FindingChange(direction=_appeared(finding, partner, fail_on), old=partner, new=finding)
    waived = {finding.where: finding for finding in new.findings if finding.waived} if new is not None else {}
    for finding in (item for items in others.values() for item in items):
        excused = waived.get(finding.where)
        direction = Direction.BETTER if excused is None else Direction.CHANGED
        yield FindingChange(direction=direction, old=finding, new=excused)


def _appeared(finding: Finding, partner: Finding | None, fail_on: Severity) -> Direction:
    """Direction of a finding that was not there, or was (``partner``) with the other severity."""
    if partner is not None and finding.severity is Severity.WARN:
        return Direction.BETTER
    return Direction.WORSE if finding.severity in (Severity.FAIL, fail_on) else Direction.CHANGED


def _counted(check: CheckResult | None) -> list[Finding]:
    return [] if check is None else [finding for finding in check.findings if finding.waived is None]


def _unmatched(old: list[Finding], new: list[Finding]) -> tuple[list[Finding], list[Finding]]:
    """What is left of both once the same are paired off: first those of one message, then by place and severity."""
    keys: tuple[Callable[[Finding], tuple[str, ...]], ...] = (
        lambda item: (item.where, item.severity, item.message),
        lambda item: (item.where, item.severity),
    )
    for key in keys:
        before, now = Counter(map(key, old)), Counter(map(key, new))
        common = before & now
        old, new = _without(old, key, common), _without(new, key, common)
    return old, new


def _without(
    findings: list[Finding], key: Callable[[Finding], tuple[str, ...]], taken: Counter[tuple[str, ...]]
) -> list[Finding]:
    room = taken.copy()
    kept = []
    for finding in findings:
        if room[key(finding)] > 0:
            room[key(finding)] -= 1
        else:
            kept.append(finding)
    return kept
