"""The README says what is true: generated parts are current; its commands, examples, links and sample output hold."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import readme
from markdown_it import MarkdownIt
from markdown_it.token import Token

from checker.cli import cli
from checker.commands import demo
from checker.commands.vocabulary import vocabulary
from checker.domain import Depth, Environment, ExitCode, RunResult
from checker.matrix import load_matrix
from checker.registry import all_checks
from checker.reporters import write_reports

TEXT = readme.README.read_text(encoding="utf-8")
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
CHECKS = {item.id: item for item in all_checks()}


def tokens(page: str) -> list[Token]:
    text = (readme.ROOT / page).read_text(encoding="utf-8")
    blocks = MarkdownIt("commonmark").enable("table").parse(text)
    return [token for block in blocks for token in (block, *(block.children or ()))]


def fences(page: str, *languages: str) -> list[str]:
    return [item.content for item in tokens(page) if item.type == "fence" and item.info in languages]


def shell_lines(page: str) -> list[str]:
    """Every line of shell in a page: fences, steps of workflows, and code in the running text."""
    lines = [line for block in fences(page, "sh") for line in block.splitlines()]
    lines += [match[1] for block in fences(page, "yaml") for match in re.finditer(r"- run: (.*)", block)]
    lines += [item.content for item in tokens(page) if item.type == "code_inline"]
    return [part.strip() for line in lines for part in line.split("&&")]


def commands(program: str) -> list[str]:
    """The calls of one program in all pages, each once."""
    found = (line for page in PAGES for line in shell_lines(page) if line.startswith(f"{program} "))
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("name", readme.GENERATED)
def test_a_generated_part_is_current(name: str):
    assert dict(readme.parts(TEXT))[name] == readme.GENERATED[name](), "make readme writes it anew"


def test_every_marker_is_known_and_closed():
    names = [name for name, _ in readme.parts(TEXT)]
    assert sorted(names) == sorted({*readme.GENERATED, *readme.MEASURED})
    assert TEXT.count("<!-- generated:") == TEXT.count("<!-- end -->") == len(names)
    assert TEXT.index("<!-- figures:begin -->") < TEXT.index("<!-- figures:end -->")


def test_renewing_twice_changes_nothing():
    assert readme.renew(TEXT, with_demo=False) == TEXT


MATRICES = [text for page in PAGES for text in fences(page, "yaml") if text.startswith("version:")]


def test_there_is_an_example_of_a_matrix():
    assert MATRICES


@pytest.mark.parametrize("text", MATRICES)
def test_an_example_of_a_matrix_loads(tmp_path: Path, text: str):
    for folder in re.findall(r"\./[\w./-]+\*?", text):
        made = tmp_path / folder.replace("*", "some-model")
        made.mkdir(parents=True, exist_ok=True)
        (made / "config.json").write_text("{}")
    path = tmp_path / "quant-verify.yml"
    path.write_text(text, encoding="utf-8")
    ids = [cell.id for cell in load_matrix(path, vocabulary()).cells]
    assert {"llama-70b/nf4", "llama-70b/ours"} <= {*ids}
    assert "llama-70b/int8" not in ids


@pytest.mark.parametrize("line", commands("quant-verify"))
def test_a_command_exists_with_its_options(line: str, monkeypatch: pytest.MonkeyPatch):
    for name in {parameter.envvar for command in cli.commands.values() for parameter in command.params}:
        monkeypatch.delenv(str(name), raising=False)
    _, name, *words = shlex.split(line, comments=True)
    assert name in cli.commands, f"there is no command {name}"
    try:
        cli.commands[name].make_context(name, words)
    except click.MissingParameter:
        assert not words, line  # "quant-verify check" in a sentence names the command


@pytest.mark.parametrize("line", commands("make"))
def test_a_make_target_exists(line: str):
    _, *targets = shlex.split(line, comments=True)
    makefile = (readme.ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), f"no target {target}"


def anchors(page: str) -> set[str]:
    """What a heading's link is on GitHub."""
    items = tokens(page)
    headings = [items[index + 1].content for index, item in enumerate(items) if item.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page: str):
    links = [str(item.attrs["href"]) for item in tokens(page) if item.type == "link_open"]
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        assert (readme.ROOT / path).exists(), link
        assert not anchor or anchor in anchors(path or page), link


def test_the_sample_names_what_exists():
    sample = dict(readme.parts(TEXT))["sample"]
    found = re.findall(r"^  FAIL   (\S+)(?:  (\S+))?$", sample, re.MULTILINE)
    assert {check_id for check_id, _ in found} <= CHECKS.keys()
    assert ("weights.error", demo.LAYER) in found
    assert demo.EXPECTED[sample.splitlines()[1].split()[0]].value == "fail"
    limit = re.search(r"observed ([\d.]+) R, limit ([\d.]+) R$", sample, re.MULTILINE)
    assert limit is not None
    assert float(limit[2]) == pytest.approx(CHECKS["weights.error"].limits["R"].fail, rel=0.02)  # and chance
    assert float(limit[1]) > float(limit[2])
    assert "hint: " in sample


def test_the_table_of_depths_holds_every_depth():
    rows = re.findall(
        r"^\| `(\w+)` \|.* ([\d.]+)\ss \| ([\d.]+)\sGB \|$", dict(readme.parts(TEXT))["depths"], re.MULTILINE
    )
    assert [depth for depth, _, _ in rows] == [depth.value for depth in Depth]


def test_every_exit_code_is_explained():
    section = TEXT.partition("\n## Exit codes\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| ([\d, ]+) \|", section, re.MULTILINE)
    assert {int(code) for cell in cells for code in cell.split(",")} == {int(code) for code in ExitCode}


def test_the_report_files_are_those_that_are_written(tmp_path: Path):
    write_reports(RunResult(environment=Environment(python="3"), planned=(), cells=()), tmp_path)
    section = TEXT.partition("\n## Reports\n")[2].partition("\n## ")[0]
    named = {*re.findall(r"^\| `([\w.]+)` \|", section, re.MULTILINE)}
    assert named == {path.name for path in tmp_path.iterdir()}
