"""The step summary as GitHub shows it."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from reporters_any_run import patiently, runs
from reporters_reading import html, outside_code

from checker.domain import CheckResult, Environment, ExitCode, Finding, RunResult, Severity
from checker.reporters import summary

_OURS = {
    "p", "h2", "h3", "strong", "em", "code", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "details",
    "summary", "sub",
}  # fmt: skip


def _many(run: RunResult, cells: int, findings: int) -> RunResult:
    wrong = tuple(Finding(message="é" * 200, where=f"layer.{number}") for number in range(findings))
    checks = tuple(CheckResult(id=f"weights.{number}", findings=wrong) for number in range(5))
    template = dataclasses.replace(run.cells[0], checks=checks)
    copies = (
        dataclasses.replace(template, cell=dataclasses.replace(template.cell, id=f"cell/{number}"))
        for number in range(cells)
    )
    return dataclasses.replace(run, cells=tuple(copies))


def test_a_check_shows_ten_findings_and_how_many_more(run: RunResult) -> None:
    text = summary.render(_many(run, 1, 37))
    assert text.count("| fail | `layer.") == 5 * 10
    assert text.count("\n\nand 27 more: see report.json\n") == 5


def test_a_huge_summary_is_cut_by_rows_and_blocks(run: RunResult) -> None:
    text = summary.render(_many(run, 400, 37))
    assert 800_000 < len(text.encode()) < 900_000
    assert re.search(r"_\d+ more blocks left out: see report.json._", text)
    assert text.endswith("</details>\n")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(row.endswith("|") for row in rows)


def test_a_huge_table_is_cut_by_rows(run: RunResult) -> None:
    text = summary.render(_many(run, 200, 0), budget=10_000)
    assert len(text.encode()) < 10_000
    assert re.search(r"\n\n_and \d+ more cells: see report.json._\n", text)


@pytest.mark.parametrize(
    ("changes", "heading"),
    [
        ({}, "## ❌ quant-verify: failed"),
        ({"cells": ()}, "## ✅ quant-verify: passed"),
        ({"cells": (), "shard": None}, "## 🚫 quant-verify: nothing checked"),
        ({"interrupted": ExitCode.TERMINATED}, "## 🚫 quant-verify: interrupted"),
    ],
)
def test_the_verdict_comes_first(run: RunResult, changes: dict[str, object], heading: str) -> None:
    assert summary.render(dataclasses.replace(run, **changes)).startswith(heading)  # type: ignore[arg-type]


def test_the_reason_for_the_exit_code(run: RunResult) -> None:
    warned = dataclasses.replace(run, cells=run.cells[:2])
    assert "Exit code 0: no check failed." in summary.render(warned)
    assert "Exit code 1: warnings, and warnings" in summary.render(dataclasses.replace(warned, fail_on=Severity.WARN))
    assert "Exit code 0: every check passed." in summary.render(dataclasses.replace(run, cells=run.cells[:1]))
    assert "Exit code 3: no check failed, but" in summary.render(dataclasses.replace(run, cells=run.cells[3:]))


def test_measurements_of_any_shape_are_survived(run: RunResult) -> None:
    odd = ({"memory.ratio": 1, "weights": "x", "notes": "y"}, {"memory.ratio": {"observed": "z"}, "weights": [{}]})
    cells = tuple(dataclasses.replace(run.cells[0], measurements=measurements) for measurements in odd)
    assert "|  |  | 12 s |" in summary.render(dataclasses.replace(run, cells=cells))
    ratio = dataclasses.replace(run.cells[0], measurements={"memory.ratio": {"observed": 0.25}})
    assert "| 75% |" in summary.render(dataclasses.replace(run, cells=(ratio,)))


def test_no_packages_no_driver(run: RunResult) -> None:
    bare = dataclasses.replace(run, environment=Environment(python="3.12"))
    assert "driver" not in summary.render(bare)


@given(runs)
@patiently
def test_any_run_is_shown_without_a_trace_of_foreign_html(run: RunResult) -> None:
    shown = outside_code(html(summary.render(run)))
    assert {tag.lower() for tag in re.findall(r"</?([^\s>/]+)[^>]*>", shown)} <= _OURS
    words = re.sub(r"<[^>]*>", "", shown)
    assert not re.search(r"[@`#\[\]|\\]|://", words)
    rows = re.findall(r"<tr>.*?</tr>", shown, re.DOTALL)
    assert {len(re.findall("<t[dh]", row)) for row in rows} <= {2, 4, 5}
    table = shown[: shown.find("</table>")]
    if run.cells:
        assert table.count("<tr>") == len(run.cells) + 1
