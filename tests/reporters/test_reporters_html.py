"""The page: it says everything, obeys nobody, needs nothing, and is cheap enough to be written after every check."""

from __future__ import annotations

import dataclasses
import re
import time
from importlib.resources import files
from itertools import pairwise

import pytest
from hypothesis import given
from markupsafe import escape
from reporters_any_run import patiently, runs
from reporters_measured import ATTACKS, IDS, bare, cell, divergence, erring, failing, healthy, hostile, run_of
from reporters_page import Page

from checker.domain import CellResult, CheckResult, ExitCode, Finding, Json, RunResult
from checker.reporters import html
from checker.reporters.escape import one_line

TAGS = {
    "html", "head", "meta", "title", "link", "style", "body", "svg", "defs", "symbol", "circle", "path", "use",
    "header", "main", "footer", "section", "div", "p", "span", "b", "i", "small", "h1", "h2", "h3", "dl", "dt", "dd",
    "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "a", "details", "summary", "pre", "figure", "figcaption",
    "blockquote", "mark", "q",
}  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "http-equiv", "content", "name", "rel", "href", "class", "id", "aria-hidden", "aria-label",
    "focusable", "viewbox", "preserveaspectratio", "role", "d", "cx", "cy", "r", "style", "scope", "data-l", "open",
    "dir",
}  # fmt: skip
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def page(run: RunResult) -> Page:
    """The page of a run, checked for what holds for every page."""
    text = html.render(run)
    assert text.encode().decode() == text
    read = Page(text)
    assert read.tags() <= TAGS
    assert read.attributes() <= ATTRIBUTES
    assert not read.comments
    assert all(re.fullmatch(r"#[ci][\w-]+|data:image/svg\+xml,[^\"]*", link) for link in read.values("href"))
    assert all(re.fullmatch(r"(width|bottom|left|top|flex-grow):[\d.]+%?(;top:[\d.]+%)?", value)
               for value in read.values("style"))  # fmt: skip
    assert all(re.fullmatch(r"[MLHVZAachlmvz\d. -]*", value) for value in read.values("d"))
    ids = read.values("id")
    assert len(ids) == len({*ids})
    assert {link[1:] for link in read.values("href") if link.startswith("#")} <= {*ids}
    return read


def test_everything_that_is_known_is_said(measured_run: RunResult) -> None:
    text = page(measured_run).text()
    for result in measured_run.cells:
        assert one_line(result.cell.id)[:190] in text
        for check in result.checks:
            assert one_line(check.id)[:190] in text
            assert one_line(check.skip_reason or "")[:500] in text
            assert one_line(check.error.message if check.error else "")[:500] in text
            for finding in check.findings:
                assert one_line(finding.where)[:190] in text
                assert one_line(finding.hint)[:500] in text
    for words in ("210.5 R", "2 times the expected", "attempts", "bitsandbytes-4bit", "1.39 nats", "4.94×", "torch",
                  "269 MB", "112 MB", "0.240%", "the same for 11 characters", "both are the same", "limit 1.5",
                  "2 fail, 1 warn, 20 pass, 1 skip", "not among the accepted", "1.22 against 0.888"):  # fmt: skip
        assert words in text, words


def test_the_verdict_stands_above_all(measured_run: RunResult) -> None:
    text = page(measured_run).text()
    assert re.match(r"\s*quant-verify 1\.2\.3\s+Failed\s*5 cells: 1 passed, 2 failed, 1 not verified, 1 skipped\. "
                    r"Exit code 1: at least one check failed\.", text)  # fmt: skip
    assert page(run_of(healthy())).text().count("Passed") == 1
    stopped = dataclasses.replace(run_of(erring()), interrupted=ExitCode.TERMINATED)
    assert "Interrupted" in page(stopped).text("h1")
    assert "0 cells. Exit code 0: this shard is empty." in page(run_of()).text()


def test_cells_in_trouble_come_first_and_are_open(measured_run: RunResult) -> None:
    cells = [given for tag, given in page(measured_run).elements if tag == "details" and "cell" in given["class"]]
    assert [given["class"].partition(" ")[2] for given in cells] == ["fail", "fail", "error", "pass", "skip"]
    assert ["open" in given for given in cells] == [True, True, True, False, False]
    many = page(run_of(*(failing(f"m/{number}") for number in range(30))))
    assert sum("open" in given for tag, given in many.elements if tag == "details") == 10


def test_a_cell_alone_is_open_and_needs_no_overview() -> None:
    read = page(run_of(healthy()))
    assert [("open" in given) for tag, given in read.elements if tag == "details"] == [True]
    assert "overview" not in read.values("class")


def test_nothing_is_loaded_and_nothing_runs(measured_run: RunResult) -> None:
    text = html.render(measured_run)
    read = Page(text)
    assert POLICY in read.values("content")
    style = re.search(r"(?s)<style>(.*?)</style>", text)
    assert style
    assert not re.search(r"@import|url\(|expression|@font-face", style[1])
    assert {"script", "img", "iframe", "object", "embed", "base", "form", "foreignobject"} & read.tags() == set()
    assert not [name for name in read.attributes() if name.startswith("on") or name in ("src", "srcset")]


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_text_wherever_it_stands(attack: str) -> None:
    text = html.render(run_of(hostile()))
    assert one_line(attack) in Page(text).text()
    assert str(escape(one_line(attack))) in text
    if re.search("[<>\"']", attack):
        assert attack not in text
    assert not re.search("[\x00\x1b\u202e\u202c\u200b\u2028\ud800]", text)


@pytest.mark.parametrize(
    "measurements",
    [
        {"memory.ratio": 1, "memory.footprint": [], "weights": "x", "outputs.divergence": 7, "outputs.blocks": {}},
        {"outputs.modules": "x", "outputs.likelihood": 1, "texts": {"text": "x"}, "notes": 5},
        {"weights": [None, 1, {}, {"R": None}, {"R": "1"}], "outputs.blocks": [{}, {"drift": None}, 3]},
        {"outputs.divergence": {}, "texts": [None, {"text": 1}], "outputs.modules": [{"layer": 5}]},
        {"outputs.divergence": divergence() | {"kl_histogram": "x", "kl": 1, "top1": [], "delta_p": 3}},
        {"outputs.divergence": divergence() | {"kl_histogram": [[0], [1, 2, 3], [99, 1], [0, -1], ["a", 1]]}},
        {"outputs.blocks": [{"drift": "NaN"}, {"drift": "Infinity", "error": "-Infinity"}]},
        {"weights": [{"R": 0}, {"R": -1}, {"R": 1e-300}, {"R": 1e300}, {"R": 10**400}]},
        {"memory.ratio": {"predicted": -0.0, "observed": -0.0}, "outputs.divergence": {"kl_histogram": [[-0.0, -0.0]]},
         "outputs.modules": [{"layer": "x", "error": -0.0}, {"layer": "y", "error": 1.0}]},
    ],
    ids=["no mappings", "no lists", "rows without figures", "rows of other types", "wrong inside", "wrong bins",
         "no block is finite", "figures off any axis", "zeros below zero"],
)  # fmt: skip
def test_measurements_of_any_shape_are_survived(measurements: dict[str, Json]) -> None:
    page(run_of(cell("a", measurements=measurements)))


@given(runs)
@patiently
def test_any_run_makes_a_sound_page(run: RunResult) -> None:
    page(run)


def test_a_cell_is_rendered_again_when_anything_in_it_changes() -> None:
    first = healthy()
    before = html.render(run_of(first))
    assert html.render(run_of(dataclasses.replace(first))) == before
    changes = (
        {"checks": (*first.checks[:-1], CheckResult(id="new.check"))},
        {"measurements": first.measurements | {"outputs.likelihood": {"nll": 9.0, "baseline_nll": 8.0}}},
        {"measurements": {key: value for key, value in first.measurements.items() if key != "weights"}},
        {"device": "cpu"},
        {"baseline_revision": "0" * 40},
        {"seconds": 9000.0},
        {"cell": dataclasses.replace(first.cell, id="other")},
    )
    for change in changes:
        assert html.render(run_of(dataclasses.replace(first, **change))) != before  # type: ignore[arg-type]
        assert html.render(run_of(first)) == before
    first.measurements["notes"].append("a second attempt")  # as the board does
    assert "a second attempt" in html.render(run_of(first))


def test_likelihood_without_divergence_is_not_called_divergence() -> None:
    likelihood = {"outputs.likelihood": {"nll": 9.0, "baseline_nll": 8.0}}
    assert "Divergence from the baseline" not in html.render(run_of(cell("a", measurements=likelihood)))
    both = likelihood | {"outputs.divergence": divergence()}
    assert "Divergence from the baseline" in html.render(run_of(cell("a", measurements=both)))


def test_cells_that_left_are_forgotten() -> None:
    html.render(run_of(healthy("a"), failing("b")))
    assert "failed" not in html.render(run_of(healthy("a")))
    assert len(html._kept) == 1


def _hundred() -> list[CellResult]:
    kinds = (healthy, healthy, failing, healthy, erring, bare, healthy)
    return [kinds[number % len(kinds)](f"organisation/model-{number}/nf4") for number in range(100)]


def test_a_page_of_a_hundred_cells_is_small_and_soon_there() -> None:
    cells = _hundred()
    assert all(len(result.checks) == len(IDS) == 24 for result in cells)
    text = html.render(run_of(*cells))
    assert len(text.encode()) < 2_000_000
    changed = dataclasses.replace(cells[0], seconds=1.0)
    started = time.process_time()
    html.render(run_of(changed, *cells[1:]))
    assert time.process_time() - started < 0.2


def test_thirty_thousand_layers_take_no_more_room_than_hundreds() -> None:
    rows = [{"layer": f"model.layers.{number // 500}.experts.{number % 500}.up", "R": 0.95} for number in range(30_000)]
    rows[7777] |= {"R": 50.0}
    finding = Finding(message="too far", where=str(rows[7777]["layer"]), observed=50.0, limit=1.5, unit="R")
    made = cell("moe", measurements={"weights": rows}, checks=(CheckResult(id="weights.error", findings=(finding,)),))
    text = html.render(run_of(made))
    assert len(text) < 60_000
    assert "last of 30,000" in text
    assert text.index("model.layers.15.experts.277.up") < text.index("model.layers.0.experts.0.up")


def _blocks_table(text: str) -> list[str]:
    """The words of the first row of the table of blocks."""
    table = text[text.index("Outputs, block by block") :]
    return re.findall(r">([^<>\n]+)<", table[table.index("<tbody>") : table.index("</tr>", table.index("<tbody>"))])


def test_the_block_that_a_finding_names_is_the_one_that_is_marked() -> None:
    worst = failing()
    assert _blocks_table(html.render(run_of(worst))) == ["1", "model.layers.7", "5.80%", "137%"]
    finding = Finding(message="the first to depart", where="model.layers.3")
    named = dataclasses.replace(worst, checks=(*worst.checks, CheckResult(id="outputs.x", findings=(finding,))))
    assert _blocks_table(html.render(run_of(named))) == ["1", "model.layers.3", "4.20%", "9.00%"]
    assert _blocks_table(html.render(run_of(healthy()))) == ["model.layers.0", "3.00%", "3.00%"]


def test_modules_that_were_not_compared_are_told() -> None:
    rows = [{"modules": 12, "reason": "stored as <bits>"}, {"modules": "x", "reason": "y"}, {"reason": "z"}, 5]
    values = healthy().measurements | {"outputs.modules.not_compared": rows}
    text = page(run_of(cell("a", measurements=values))).text()
    assert "12 not compared: stored as <bits>" in text
    assert "not compared: y" not in text


def test_libraries_of_a_cell_are_told() -> None:
    values = healthy().measurements | {"libraries": {"bitsandbytes": "0.49.2", "httpx": "0.28.1"}}
    assert "bitsandbytes 0.49.2, httpx 0.28.1" in page(run_of(cell("a", measurements=values))).text()
    page(run_of(cell("a", measurements={"libraries": 7})))


def test_many_findings_are_cut() -> None:
    findings = tuple(Finding(message="wrong", where=f"layer.{number}") for number in range(5_000))
    text = page(run_of(cell("a", checks=(CheckResult(id="weights.error", findings=findings),)))).text()
    assert "and 4980 more: see report.json" in text
    assert text.count("layer.") == 20


def test_what_exceeds_the_budget_keeps_its_verdict() -> None:
    run = run_of(*(healthy(f"m/{number}") for number in range(20)), failing("bad"))
    text = html.render(run, budget=60_000)
    read = Page(text)
    assert len(text) < 100_000
    assert "is 210.5 times as far" in read.text()  # the worst is shown in full
    assert read.text("summary").count("pass") >= 20
    assert 0 < read.text().count("This page has no room for more of this cell: see report.json.") < 20


def test_pictures_have_words(measured_run: RunResult) -> None:
    read = page(measured_run)
    for tag, has in read.elements:
        if tag == "svg":
            assert has.get("aria-hidden") == "true" or (has["role"] == "img" and has["aria-label"])
    assert "R of 48 layers, from 0.930 to 210" in read.values("aria-label")
    assert all(has["scope"] in ("row", "col") for tag, has in read.elements if tag == "th")
    order = [int(tag[1]) for tag, _ in read.elements if re.fullmatch("h[1-6]", tag)]
    assert order[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(order))


def _luminance(colour: str) -> float:
    full = "".join(2 * digit for digit in colour) if len(colour) == 3 else colour
    channels = (int(full[place : place + 2], 16) / 255 for place in (0, 2, 4))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_text_has_contrast(scheme: int) -> None:
    style = files("checker.data").joinpath("report.css").read_text(encoding="utf-8")
    palettes = [
        dict(re.findall(r"--(\w+):#([0-9a-f]{3,6})\b", block)) for block in re.findall(r":root\{([^}]*)\}", style)
    ]
    palette = palettes[0] | palettes[scheme]
    grounds = ("bg", "card", "sunk")
    for ink in ("ink", "soft", "accent", "pass", "warn", "fail", "error", "skip"):
        for ground in grounds:
            light, dark = sorted((_luminance(palette[ink]), _luminance(palette[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)
    light, dark = sorted((_luminance(palette["ink"]), _luminance(palette["mark"])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5
