"""A comparison in every form: for eyes, for GitHub, for programs, and for the runner that reads along."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from reporters_any_run import patiently, runs, texts
from reporters_reading import html, outside_code
from reporters_runner import commands
from rich.console import Console

from checker.comparison import Comparison, compare
from checker.domain import CellResult, CheckResult, Environment, Finding, Outcome, RunResult, Severity
from checker.errors import UsageError
from checker.reporters import comparison_json, comparison_markdown, comparison_text, escape

HOSTILE = (
    "w|x`y``<script>alert(1)</script> @user ##[error]old\n::error::new \x1b[31mred\x00\ud800\u202e\r::stop-commands::t"
)
Golden = Callable[[str, str], None]
_OURS = {
    "p", "h2", "h3", "strong", "em", "code", "table", "thead", "tbody", "tr", "th", "td", "ul", "li",
}  # fmt: skip


def _estimate(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def _divergence(kl: float, top1: float) -> dict[str, Any]:
    return {"reference": "cached", "kl": _estimate(kl, 0.04), "top1": _estimate(top1, 0.03)}


def _with(cell: CellResult, *checks: CheckResult, seconds: float | None = None, **measurements: Any) -> CellResult:
    """The cell with checks replaced by those of the same id, and with more measurements."""
    others = {check.id: check for check in checks}
    kept = tuple(others.pop(check.id, check) for check in cell.checks)
    return dataclasses.replace(
        cell,
        checks=(*kept, *others.values()),
        measurements={**cell.measurements, **{key.replace("_", "."): value for key, value in measurements.items()}},
        seconds=cell.seconds if seconds is None else seconds,
    )


def _renamed(cell: CellResult, name: str) -> CellResult:
    return dataclasses.replace(cell, cell=dataclasses.replace(cell.cell, id=name))


def _layers(*ratios: float) -> list[dict[str, Any]]:
    return [{"layer": f"model.layers.{number}.mlp.up_proj", "R": ratio} for number, ratio in enumerate(ratios)]


def _text(text: str) -> list[dict[str, str]]:
    return [{"prompt": f"The capital of {HOSTILE}", "text": text}]


@pytest.fixture
def pair(run: RunResult) -> tuple[RunResult, RunResult]:
    """Two runs between which everything changed that can."""
    passing, warning, failing, erring, skipped = run.cells
    same = _renamed(passing, f"same {HOSTILE}")
    before = _with(
        passing,
        outputs_divergence=_divergence(0.21, 0.75),
        texts=_text("Paris, of course."),
        weights=_layers(*[0.95] * 9),
    )
    broken = tuple(Finding(message="NaN", where=f"{HOSTILE}{number}", observed=number, limit=0) for number in range(7))
    far_off = Finding(message="it is far off", where="model.layers.8.mlp.up_proj", observed=13.0, limit=1.5, unit="R")
    now = _with(
        passing,
        CheckResult(id="weights.scales", findings=broken),
        CheckResult(id="weights.error", findings=(far_off,)),
        seconds=90.0,
        outputs_divergence=_divergence(0.51, 0.69),
        texts=_text(f"Paris, {HOSTILE}"),
        memory_ratio={"stored_bytes": 112_000_000, "baseline_bytes": 269_060_552},
        weights=_layers(0.97, 0.98, 0.99, 1.0, 1.01, 1.02, 1.03, 1.2, 13.0),
    )
    mended = _with(warning, CheckResult(id="outputs.divergence", seconds=3.0))
    fewer = _with(
        dataclasses.replace(failing, baseline_revision="f" * 40),
        CheckResult(id="weights.error", findings=failing.checks[3].findings[:4]),
        CheckResult(id="weights.codes"),
        weights=[{"layer": "model.layers.11.mlp.up_proj", "R": 40.0}],
    )
    crash = erring.checks[-1].error
    lost = _with(erring, *(CheckResult(id=check.id, error=crash) for check in erring.checks[:2]))
    cells = (now, mended, fewer, lost, same, _renamed(skipped, f"new {HOSTILE}"))
    new = dataclasses.replace(
        run,
        cells=cells,
        planned=tuple(cell.cell.id for cell in cells),
        environment=Environment(
            python="3.11.7",
            packages={"torch": "2.11.0", "transformers": "5.5.0", "evil|pack`age": "2"},
            device="NVIDIA H200",
        ),
    )
    return dataclasses.replace(run, cells=(before, warning, failing, erring, same, skipped)), new


@pytest.fixture
def comparison(pair: tuple[RunResult, RunResult]) -> Comparison:
    """What changed between the two."""
    return compare(*pair)


def _shown(comparison: Comparison, width: int = 100, *, color: bool = False) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=color, color_system="standard" if color else None)
    comparison_text.render(comparison, console)
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_text(comparison: Comparison, golden: Golden, width: int) -> None:
    golden(f"comparison-{width}.txt", _shown(comparison, width))


def test_markdown(comparison: Comparison, golden: Golden) -> None:
    golden("comparison.md", comparison_markdown.render(comparison))


def test_markdown_as_github_shows_it(comparison: Comparison, golden: Golden) -> None:
    golden("comparison.html", html(comparison_markdown.render(comparison)))


def test_json(comparison: Comparison, golden: Golden) -> None:
    golden("comparison.json", comparison_json.render(comparison))


def test_the_verdict_is_the_first_line(pair: tuple[RunResult, RunResult]) -> None:
    old, new = pair
    assert _shown(compare(old, new)).startswith("3 cells worse, 1 gone, 1 appeared, 1 better, 1 unchanged\n")
    assert _shown(compare(old, old)).startswith("6 cells unchanged\n")
    newer = dataclasses.replace(old, environment=dataclasses.replace(old.environment, python="3.12.1"))
    assert _shown(compare(old, newer)).startswith("6 cells unchanged; python 3.11.7 → 3.12.1\n")
    nothing = dataclasses.replace(old, cells=())
    assert _shown(compare(nothing, nothing)).startswith("no cells in either report\n")


def test_what_did_not_change_is_one_line(pair: tuple[RunResult, RunResult]) -> None:
    old, _ = pair
    assert len(_shown(compare(old, old), 400).splitlines()) == len(["verdict", "", "unchanged", "exit code"])


@pytest.mark.parametrize(
    ("name", "heading"),
    [
        ("new", "## ❌ quant-verify compare: something got worse"),
        ("old", "## ✅ quant-verify compare: nothing got worse"),
        ("other", "## 🚫 quant-verify compare: no cell is in both reports, so nothing was compared"),
    ],
)
def test_the_heading_says_what_the_exit_code_means(pair: tuple[RunResult, RunResult], name: str, heading: str) -> None:
    old, new = pair
    other = dataclasses.replace(old, cells=(_renamed(old.cells[0], "other"),))
    found = compare(old, {"new": new, "old": old, "other": other}[name])
    assert comparison_markdown.render(found).startswith(f"{heading}\n")
    assert f"Exit code {int(found.exit_code)}" in _shown(found)


def test_no_line_is_wider_than_the_console(comparison: Comparison) -> None:
    assert max(len(line) for line in _shown(comparison, 80).splitlines()) <= 80


def test_colour_only_adds_escape_sequences(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = _shown(comparison, color=True)
    assert "\x1b[1;31mWORSE" in coloured
    assert "\x1b[31m" not in coloured.replace("\x1b[1;31m", "")  # the attack's own colour
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;31m" not in _shown(comparison, color=True)


def test_an_ascii_stream_takes_everything(comparison: Comparison) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    comparison_text.render(comparison, Console(file=file, width=80))
    file.seek(0)
    assert "worse" in file.read()


def test_a_figure_that_a_finding_tells_is_told_once(comparison: Comparison) -> None:
    text = _shown(comparison, 400)
    markdown = comparison_markdown.render(comparison)
    for shown in (text, markdown):
        assert "observed 13 R, limit 1.5 R, before 0.95" in shown
        assert shown.count("model.layers.8.mlp.up_proj") == 1
        assert re.search("R of `?model.layers.11.mlp.up_proj", shown)  # its finding has no line, and is gone besides


def test_commits_are_cut_and_still_told_apart(pair: tuple[RunResult, RunResult]) -> None:
    old, _ = pair
    first, second = (
        dataclasses.replace(old, cells=(dataclasses.replace(old.cells[0], baseline_revision="a" * 39 + end),))
        for end in "bc"
    )
    third = dataclasses.replace(old, cells=(dataclasses.replace(old.cells[0], baseline_revision="b" * 40),))
    assert f"@{'a' * 12} → HuggingFaceTB/SmolLM2-135M@{'b' * 12}\n" in _shown(compare(first, third), 200)
    assert f"@{'a' * 39}b → HuggingFaceTB/SmolLM2-135M@{'a' * 39}c" in _shown(compare(first, second), 300)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (111_726_673, 116_443_386, "stored  111,726,673 → 116,443,386 bytes (+4.2%)"),
        (111_726_673, 111_726_685, "stored  111,726,673 → 111,726,685 bytes (+0.0000%)"),
        (0, 5, "stored  0 → 5 bytes\n"),
    ],
)
def test_bytes_in_full_and_by_how_much(run: RunResult, old: int, new: int, text: str) -> None:
    first, second = (
        dataclasses.replace(run, cells=(_with(run.cells[0], memory_ratio={"stored_bytes": count}),))
        for count in (old, new)
    )
    assert text in _shown(compare(first, second))


def test_a_huge_comparison_is_cut_by_whole_cells(run: RunResult) -> None:
    wrong = tuple(Finding(message="é" * 200, where=f"layer.{number}") for number in range(9))
    checks = tuple(CheckResult(id=f"weights.{number}", findings=wrong) for number in range(20))
    cells = [_renamed(run.cells[0], f"cell/{number}") for number in range(60)]
    old = dataclasses.replace(run, cells=tuple(cells))
    new = dataclasses.replace(run, cells=tuple(_with(cell, *checks) for cell in cells))
    text = comparison_markdown.render(compare(old, new))
    assert 800_000 < len(text.encode()) < 900_000
    assert re.search(r"\n\n_\d+ more cells left out: see the JSON of this command._\n", text)
    assert text.count("\n  - and 4 more\n") == 20 * text.count("\n### ")


def test_json_has_everything(comparison: Comparison) -> None:
    read = json.loads(comparison_json.render(comparison))
    assert read["totals"] == {"worse": 3, "gone": 1, "appeared": 1, "changed": 0, "better": 1, "unchanged": 1}
    assert sum(read["totals"].values()) == len(read["cells"])
    first = read["cells"][0]
    assert first["outcome"] == {"old": "pass", "new": "fail"}
    assert [(item["id"], item["direction"]) for item in first["checks"]] == [
        ("weights.scales", "worse"),
        ("weights.error", "worse"),
    ]
    assert len(first["checks"][0]["findings"]) == 7
    assert first["figures"][0]["new"] == pytest.approx({"value": 0.51, "low": 0.47, "high": 0.55})
    assert first["seconds"] == {"old": 12.3, "new": 90.0}


@st.composite
def _comparisons(draw: st.DrawFn) -> Comparison:
    """Any two runs, which share some cells."""
    old, new = draw(runs), draw(runs)
    if old.cells and draw(st.booleans()):
        new = dataclasses.replace(new, cells=(*new.cells, *(draw(_changed(cell)) for cell in old.cells)))
    try:
        return compare(old, new, draw(st.sampled_from(Severity)))
    except UsageError:  # a cell twice
        assume(False)
        raise


@st.composite
def _changed(draw: st.DrawFn, cell: CellResult) -> CellResult:
    other = draw(st.sampled_from(draw(runs.filter(lambda run: bool(run.cells))).cells))
    written = st.fixed_dictionaries({"prompt": texts, "text": texts})
    spoken = st.lists(written, max_size=2).map(lambda rows: {"texts": rows})
    return dataclasses.replace(other, cell=cell.cell, measurements={**other.measurements, **draw(spoken)})


@given(_comparisons(), st.integers(20, 130), st.booleans())
@patiently
def test_any_text_holds_no_command(comparison: Comparison, width: int, color: bool) -> None:
    assert not commands(_shown(comparison, width, color=color))


@given(_comparisons())
@patiently
def test_any_markdown_holds_no_foreign_html_and_no_command(comparison: Comparison) -> None:
    text = comparison_markdown.render(comparison)
    shown = outside_code(html(text))
    assert {tag.lower() for tag in re.findall(r"</?([^\s>/]+)[^>]*>", shown)} <= _OURS
    assert not re.search(r"[@`#\[\]|\\]|://", re.sub(r"<[^>]*>", "", shown))
    rows = re.findall(r"<tr>.*?</tr>", shown, re.DOTALL)
    assert {len(re.findall("<t[dh]", row)) for row in rows} <= {3, 4}
    assert not commands(escape.log(text))


@given(_comparisons())
@patiently
def test_any_json_is_strict_and_agrees_with_its_totals(comparison: Comparison) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    read = json.loads(comparison_json.render(comparison), parse_constant=refuse)
    assert [cell["id"] for cell in read["cells"]] == [cell.id for cell in comparison.cells]
    assert read["exit_code"] == int(comparison.exit_code)
    assert (read["totals"]["worse"] > 0) is (read["exit_code"] == 1)
    outcomes = {outcome.value for outcome in Outcome} | {None}
    assert {cell["outcome"][side] for cell in read["cells"] for side in ("old", "new")} <= outcomes
