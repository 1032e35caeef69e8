"""JUnit XML for the consumers read in the reference: Jenkins, GitLab, and the three GitHub reporters.

Written by the junit-xml library, whose faults are worked around here and nowhere else: it cleans after serialising
(so every string is cleaned first), drops a failure without text and reads it as a pass (ours always have message and
body), leaves out a time of zero and writes others in exponents, and counts what the format does not know.
What the file says is what report.json holds, so that merged reports equal those of one run.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree as ET

from checker.domain import CellResult, CheckResult, ErrorKind, Finding, Json, Outcome, RunResult, Severity
from checker.errors import Unavailable
from checker.reporters import figures, json_v1
from checker.reporters.escape import shorten, xml

if typing.TYPE_CHECKING:
    from junit_xml import TestCase, TestSuite

_PROPERTY_LIMIT = 200  # characters; longer measurements are for report.json
_BODY_LIMIT = 50_000  # characters; consumers cut at 64,000 bytes, in the middle of a word
_MESSAGE_LIMIT = 1_000
_COUNTS = ("tests", "failures", "errors")


def render(run: RunResult) -> str:
    """One suite per cell, one case per check; warnings are failures when the run says so."""
    root = ET.Element("testsuites", {"name": "quant-verify"})
    names = _Unique()
    for cell in run.cells:
        root.append(_suite_element(run, cell, names(cell.cell.id)))
    for key in _COUNTS:
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    root.set("time", _seconds(sum(cell.seconds for cell in run.cells)))
    return "<?xml version='1.0' encoding='utf-8'?>\n" + ET.tostring(root, encoding="unicode") + "\n"


def verify(text: str) -> None:
    """Read the report as a consumer would, so that a broken one is found here and not by its reader.

    Raises:
        Unavailable: it does not parse, a suite's counts are wrong, or two cases have one name.
    """
    try:
        root = ET.fromstring(text.encode())  # noqa: S314 - written by us a moment ago
    except (ET.ParseError, UnicodeEncodeError) as error:
        raise Unavailable(f"the JUnit report does not parse: {error}", ErrorKind.INTERNAL) from error
    seen: set[tuple[str | None, str | None]] = set()
    for suite in root.iter("testsuite"):
        cases = suite.findall("testcase")
        found = {"tests": len(cases)} | {
            key: sum(case.find(tag) is not None for case in cases)
            for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))
        }
        told = {key: int(suite.get(key, "-1")) for key in found}
        if told != found:
            raise Unavailable(f"the JUnit report counts {told} where there are {found}", ErrorKind.INTERNAL)
        for case in cases:
            name = (case.get("classname"), case.get("name"))
            if name in seen:
                raise Unavailable(f"the JUnit report has two cases {name}", ErrorKind.INTERNAL)
            seen.add(name)


class _Unique:
    """Cleaned names that stay apart: consumers keep only the first of two equal ones."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def __call__(self, name: str) -> str:
        clean = unique = xml(name).strip() or "(no name)"
        number = 1
        while unique in self._taken:
            number += 1
            unique = f"{clean} ({number})"
        self._taken.add(unique)
        return unique


def _suite_element(run: RunResult, cell: CellResult, name: str) -> ET.Element:
    from junit_xml import TestSuite

    names = _Unique()
    cases = [_case(run, cell, check, (name, names(check.id))) for check in cell.checks]
    suite: TestSuite = TestSuite(name, cases, properties=_properties(run, cell))
    element: ET.Element = suite.build_xml_doc()
    del element.attrib["disabled"]
    element.set("time", _seconds(cell.seconds))
    for case, check in zip(element.iter("testcase"), cell.checks, strict=True):
        case.set("time", _seconds(check.seconds))
    return element


def _case(run: RunResult, cell: CellResult, check: CheckResult, names: tuple[str, str]) -> TestCase:
    from junit_xml import TestCase

    origin = cell.cell.origin
    place = {} if origin is None else {"file": xml(origin.file), "line": str(origin.line)}
    case = TestCase(names[1], classname=names[0], **place)
    findings = figures.ranked(check.findings)
    body = _body(findings)
    match _reported(run, check):
        case Outcome.ERROR if check.error is not None:
            kind, message = check.error.kind.value, _clean(f"{check.error.kind.value}: {check.error.message}")
            case.add_error_info(message, "\n\n".join(filter(None, [message, body])), kind)
        case Outcome.SKIP:
            reason = _clean(check.skip_reason or "")
            case.add_skipped_info(reason, reason)
            case.stdout = body
        case Outcome.FAIL:
            case.add_failure_info(_headline(findings), body, check.outcome.value)
        case _:
            case.stdout = body
    return case


def _reported(run: RunResult, check: CheckResult) -> Outcome:
    as_failure = check.outcome is Outcome.WARN and run.fail_on is Severity.WARN
    return Outcome.FAIL if as_failure else check.outcome


def _headline(findings: list[Finding]) -> str:
    first, more = findings[0], sum(finding.waived is None for finding in findings) - 1
    where = f"{first.where}: " if first.where else ""
    return _clean(f"{where}{first.message}") + (f" (and {more} more)" if more else "")


def _body(findings: list[Finding]) -> str:
    blocks: list[str] = []
    room = _BODY_LIMIT
    for finding in findings:
        block = "\n".join(_lines(finding))
        room -= len(block)
        if room < 0:
            blocks.append(f"and {len(findings) - len(blocks)} more, see report.json")
            break
        blocks.append(block)
    return "\n\n".join(blocks)


def _lines(finding: Finding) -> Iterator[str]:
    yield _clean(f"{figures.label(finding).upper()} {figures.sentence(finding)}")
    for name, figure in (("observed", finding.observed), (figures.bar(finding.limit), finding.limit)):
        if text := figures.value(figure, finding.unit):
            yield _clean(f"  {name}: {text}")
    if finding.hint:
        yield _clean(f"  hint: {finding.hint}")
    if finding.waived is not None:
        yield _clean(f"  waived until {finding.waived.until}: {finding.waived.reason}")


def _properties(run: RunResult, cell: CellResult) -> dict[str, str]:
    """Versions, device and short measurements; those that are small tables spread over one property per entry."""
    subject = json_v1.cell_dict(cell)
    facts: dict[str, Json] = {key: subject[key] for key in ("method", "depth", "device", "attempts")}
    for key in ("baseline", "checkpoint"):
        facts |= {f"{key}.{name}": part for name, part in (subject[key] or {}).items()}
    facts |= {"python": run.environment.python, "driver": run.environment.driver}
    facts |= {f"package.{name}": version for name, version in run.environment.packages.items()}
    for key, measured in cell.measurements.items():
        spread = measured if isinstance(measured, Mapping) else {"": measured}
        facts |= {f"measurement.{key}.{name}".rstrip("."): figure for name, figure in spread.items()}
    texts = {xml(key): xml(_property(figure)) for key, figure in facts.items()}
    return {key: text for key, text in texts.items() if text and len(text) <= _PROPERTY_LIMIT}


def _property(figure: Json) -> str:
    """A figure in full, or nothing for what is no single figure; a number that JSON lacks by its name."""
    if not isinstance(figure, str | bool | int | float):
        return ""
    value = json_v1.plain(figure)
    return value if isinstance(value, str) else json.dumps(value)


def _clean(text: str) -> str:
    return shorten(xml(text), _MESSAGE_LIMIT) or "(no text)"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}"
