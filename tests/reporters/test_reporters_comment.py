"""The comment on a pull request as GitHub shows it: short, worst first, and nothing foreign outside code."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from reporters_any_run import patiently, runs, texts
from reporters_reading import html, outside_code

from checker.domain import CellResult, CheckError, CheckResult, ErrorKind, Finding, RunResult
from checker.reporters import comment, summary
from checker.reporters.comment import Source

SOURCE = Source(
    label="ci/quant-verify.yml",
    commit="0123456789abcdef" * 2 + "01234567",
    commit_url="https://github.com/team/models/commit/" + "0123456789abcdef" * 2 + "01234567",
    run_url="https://github.com/team/models/actions/runs/42",
)
LIMIT = 65_536  # GitHub's
_OURS = {
    "p", "h2", "h4", "strong", "em", "code", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "sub", "a",
}  # fmt: skip


def _cell(run: RunResult, name: str, *checks: CheckResult) -> CellResult:
    first = run.cells[0]
    return dataclasses.replace(first, cell=dataclasses.replace(first.cell, id=name), checks=checks)


def _fails(count: int, text: str = "is wrong") -> CheckResult:
    found = tuple(Finding(message=text, where=f"layer.{number}", hint="do it again") for number in range(count))
    return CheckResult(id="weights.error", findings=found)


def test_the_comment(run: RunResult, golden: Callable[[str, str], None]) -> None:
    golden("comment.md", comment.render(run, SOURCE))


def test_the_comment_as_github_shows_it(run: RunResult, golden: Callable[[str, str], None]) -> None:
    golden("comment.html", html(comment.render(run, SOURCE)))


def test_it_leaves_to_the_summary_what_nobody_acts_on(run: RunResult) -> None:
    text, whole = comment.render(run, SOURCE), summary.render(run)
    for word in ("<details>", "python", "no tied weights", "Note on", "waived until"):
        assert word in whole
        assert word not in text
    assert len(text) < len(whole) * 0.6


def test_the_worst_comes_first(run: RunResult) -> None:
    error = CheckResult(id="loading.keys", error=CheckError(kind=ErrorKind.TIMEOUT, message="too slow"))
    cells = (_cell(run, "good", CheckResult(id="a")), _cell(run, "lost", error), _cell(run, "bad", _fails(1)))
    text = comment.render(dataclasses.replace(run, cells=cells), SOURCE)
    assert re.findall(r"^\| `(\w+)`", text, re.MULTILINE) == ["bad", "lost", "good"]
    assert re.findall(r"^#### \S+ .*`(\w+)`$", text, re.MULTILINE) == ["bad", "lost"]
    assert "- 🚫 `loading.keys`: timeout, `too slow`" in text


def test_three_findings_of_a_check_and_how_many_more(run: RunResult) -> None:
    text = comment.render(dataclasses.replace(run, cells=(_cell(run, "bad", _fails(12)),)), SOURCE)
    assert text.count("- ❌ `weights.error`: `layer.") == 3
    assert "- `weights.error`: and 9 more\n  - 💡 `do it again`\n" in text


def test_five_checks_of_a_cell_and_how_many_more(run: RunResult) -> None:
    checks = [dataclasses.replace(_fails(1), id=f"check.{number}") for number in range(8)]
    text = comment.render(dataclasses.replace(run, cells=(_cell(run, "bad", *checks),)), SOURCE)
    assert text.count("- ❌ ") == 5
    assert "- and 3 more checks" in text


def test_ten_cells_with_findings_and_how_many_more(run: RunResult) -> None:
    cells = tuple(_cell(run, f"cell-{number}", _fails(1)) for number in range(13))
    text = comment.render(dataclasses.replace(run, cells=cells), SOURCE)
    assert text.count("#### ") == 10
    assert "_and 3 more cells with findings: see the summary of the run._" in text


def test_waived_findings_are_left_to_the_summary(run: RunResult) -> None:
    text = comment.render(dataclasses.replace(run, cells=run.cells[:1]), SOURCE)
    assert "transformers#123" not in text
    assert "####" not in text


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f600"])
def test_the_largest_comment_is_within_githubs_limit_however_it_counts(run: RunResult, letter: str) -> None:
    cells = tuple(_cell(run, f"{number}/{letter * 300}", *[_fails(9, letter * 5_000)] * 9) for number in range(400))
    text = comment.render(dataclasses.replace(run, cells=cells), SOURCE)
    sizes = [len(text), len(text.encode("utf-16-le")) // 2, len(text.encode())]
    assert max(sizes) <= comment.BUDGET < LIMIT
    assert min(sizes) > 5_000
    assert re.search(r"_and \d+ more cells: see report.json._", text)
    assert re.search(r"_and \d+ more cells with findings: see the summary of the run._", text)
    assert text.endswith("</sub>\n")


def test_a_small_budget_is_kept(run: RunResult) -> None:
    cells = tuple(_cell(run, f"cell-{number}", _fails(3)) for number in range(50))
    whole = dataclasses.replace(run, cells=cells)
    for budget in (1_200, 2_000, 4_000):
        assert len(comment.render(whole, SOURCE, budget).encode()) <= budget


@pytest.mark.parametrize(
    ("source", "foot"),
    [
        (Source(), "<sub>quant-verify 1.2.3</sub>"),
        (Source(commit="a" * 40), "<sub>commit `aaaaaaa` · quant-verify 1.2.3</sub>"),
        (Source(label="x`y"), "<sub>``x`y`` · quant-verify 1.2.3</sub>"),
        (Source(run_url="x://y"), "<sub>[summary and reports of the run](x://y) · quant-verify 1.2.3</sub>"),
    ],
)
def test_what_is_not_known_is_left_out(run: RunResult, source: Source, foot: str) -> None:
    assert comment.render(run, source).splitlines()[-1] == foot


@given(runs, texts)
@patiently
def test_any_run_is_shown_without_a_trace_of_foreign_html(run: RunResult, label: str) -> None:
    text = comment.render(run, dataclasses.replace(SOURCE, label=label))
    assert len(text.encode()) <= comment.BUDGET
    shown = outside_code(html(text))
    tags = re.findall(r"</?([^\s>/]+)[^>]*>", shown)
    assert {tag.lower() for tag in tags} <= _OURS
    assert sorted(set(re.findall(r'href="([^"]*)"', shown))) == sorted([str(SOURCE.commit_url), str(SOURCE.run_url)])
    words = re.sub(r"<[^>]*>", "", shown)
    assert not re.search(r"[@`#\[\]|\\]|://", words)
    assert not text.startswith("<!--")
