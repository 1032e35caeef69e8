"""Help texts, docstrings and documented names: complete, of one form, and of things that exist."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
import readme

from checker import __version__
from checker.cli import cli
from checker.registry import all_checks, all_methods

PAGES = {
    name: (readme.ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
}
OPTIONS = [
    pytest.param(name, option, id=f"{name} {option.opts[0]}")
    for name in sorted(cli.commands)
    for option in readme.options_of(name).values()
]
LONGEST_SUMMARY = 115  # of a check: one row of explain
NO_OPTION = {"QUANT_VERIFY_CACHE", "QUANT_VERIFY_NETWORK_TIMEOUT"}  # variables that are read without an option
# a variable that destroys files would outlive its purpose; QUANT_VERIFY_MATRIX is what run reads, not what merge wants
NOT_SET_BY_ENVIRONMENT = {"--force", "--rebuild", "--matrix"}
PLACEHOLDERS = {"quant-verify.yml"}  # the user's own files


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_a_command_has_help(name: str):
    text = cli.commands[name].help or ""
    assert re.match(r"[A-Z][^\n]+[.]", text), text


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_an_option_has_help(name: str, option: click.Option):
    assert (option.help or "").endswith("."), f"{name} {option.opts[0]}: help is a sentence"


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_the_variable_of_an_option_has_its_name(name: str, option: click.Option):
    long_name = option.opts[0]
    if long_name in NOT_SET_BY_ENVIRONMENT:
        assert option.envvar is None
    else:
        assert option.envvar == "QUANT_VERIFY_" + long_name.removeprefix("--").replace("-", "_").upper(), name


@pytest.mark.parametrize("item", all_checks(), ids=lambda item: item.id)
def test_a_check_is_documented_in_one_line_and_more(item):
    assert len(item.summary) <= LONGEST_SUMMARY, f"{len(item.summary)} characters: {item.summary}"
    assert re.match(r"[A-Z`a-z]", item.summary)
    assert item.summary.endswith("."), "the first line is a sentence"
    assert "\n" not in item.summary


@pytest.mark.parametrize("item", all_methods(), ids=lambda item: item.id)
def test_a_method_is_documented(item):
    first, _, rest = item.documentation.partition("\n")
    assert first.endswith(".")
    assert rest.strip(), "how it stores a weight"


def test_documented_variables_are_those_of_the_options():
    known = {str(parameter.envvar) for command in cli.commands.values() for parameter in command.params}
    named = {name for text in PAGES.values() for name in re.findall(r"QUANT_VERIFY_\w+", text)}
    assert named - NO_OPTION <= known
    assert known - {"None"} <= named


@pytest.mark.parametrize("variable", sorted(NO_OPTION))
def test_a_variable_without_an_option_is_read(variable: str):
    sources = (readme.ROOT / "checker").rglob("*.py")
    assert any(variable in path.read_text(encoding="utf-8") for path in sources)


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page: str):
    """Paths in backquotes: of this repository when they start with a folder of it or end like a file of it."""
    for path in re.findall(r"`((?:checker|tests|\.ci)/[\w./-]+|[\w-]+\.(?:toml|txt|md|yml))`", PAGES[page]):
        written = Path(path).name in {"summary.md"} | PLACEHOLDERS  # by a run, or by the user
        assert written or (readme.ROOT / path).exists(), path


def test_the_changelog_knows_this_version():
    assert re.search(
        rf"^## \[{re.escape(__version__)}\] - (unreleased|\d{{4}}-\d\d-\d\d)$", PAGES["CHANGELOG.md"], re.MULTILINE
    )


def test_the_licence_is_the_declared_one():
    text = (readme.ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert 'license = "Apache-2.0"' in (readme.ROOT / "pyproject.toml").read_text(encoding="utf-8")
