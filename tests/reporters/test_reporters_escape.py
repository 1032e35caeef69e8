"""Each sink's escaping, by example and by any text."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from reporters_any_run import texts
from reporters_reading import html, outside_code
from reporters_runner import command, commands

from checker.reporters import escape


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("a\x1b[31mred\x1b[0m", "ared"),
        ("\x1b]8;;http://x\x07link\x1b]8;;\x07", "link"),
        ("\x1b", "#x1B"),
        ("\x00\x7f\x80", "#x00#x7F#x80"),
        ("\ud800\ufffe\uffff", "#xD800#xFFFE#xFFFF"),
        ("\U0001ffff\ufdd0", "#x1FFFF#xFDD0"),
        ("a\r\nb\rc\td", "a\nb#x0Dc\td"),
        ("é\U0001f600", "é\U0001f600"),
    ],
)
def test_xml(text: str, expected: str) -> None:
    assert escape.xml(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("::error::x", r"\::error::x"),
        ("  \t::error::x", r"  \t::error::x"),
        ("a ::error::x", "a ::error::x"),
        ("std::bad_alloc", "std::bad_alloc"),
        ("a##[error]b", r"a##\[error]b"),
        ("a\nb", r"a\nb"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\u202eabc\u200b\ufeff", r"\u202eabc\u200b\ufeff"),
        ("\ud800\U000e0041", r"\ud800\U000e0041"),
    ],
)
def test_terminal(text: str, expected: str) -> None:
    assert escape.terminal(text) == expected


def test_log_breaks_the_commands_of_every_line_and_keeps_our_colours() -> None:
    text = "ok\n ::error::a\r::group::b\n\x1b[1m::error::c\nx ::error::d ##[error]e"
    assert escape.log(text) == "ok\n \\::error::a\r\\::group::b\n\x1b[1m\\::error::c\nx ::error::d ##\\[error]e"


def test_command_data_and_property() -> None:
    assert escape.command_data("100%\n::a,b") == "100%25%0A\\::a,b"
    assert escape.command_property("a:b,c%\nd") == r"a%3Ab%2Cc%25\nd"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", "`a`"),
        ("a`b", "``a`b``"),
        ("`", "`` ` ``"),
        (" a ", "`  a  `"),
        ("", "(empty)"),
        ("  ", "(empty)"),
        ("a|b", "`a|b`"),
        ("a\nb", r"`a\nb`"),
    ],
)
def test_markdown(text: str, expected: str) -> None:
    assert escape.markdown(text) == expected


def test_markdown_cell_keeps_pipes_out_of_the_tables_way() -> None:
    assert escape.markdown_cell("a|b") == r"`a\|b`"
    assert escape.markdown_cell("a\\|b") == "`a\\¦b`"


def test_limits_cut_with_an_ellipsis() -> None:
    assert escape.one_line("a" * 10, 4) == "aaa…"
    assert escape.one_line("aaaa", 4) == "aaaa"
    assert escape.markdown("`" * 10, 3) == "``` ``… ```"


@given(texts)
def test_any_text_in_xml_comes_back_as_it_was_cleaned(text: str) -> None:
    clean = escape.xml(text)
    element = ET.Element("a", {"b": clean})
    element.text = clean
    back = ET.fromstring(ET.tostring(element, encoding="unicode").encode())
    assert (back.text or "", back.get("b")) == (clean, clean)


@given(texts)
def test_any_text_in_a_terminal_line_is_no_command(text: str) -> None:
    shown = escape.terminal(text)
    assert shown.isprintable() or all(character.isprintable() or ord(character) > 0x7F for character in shown)
    assert command(shown) is None
    assert len(shown.splitlines()) <= 1


@given(texts, texts, texts)
def test_any_text_in_a_command_comes_back_escaped(file: str, title: str, message: str) -> None:
    line = (
        f"::error file={escape.command_property(file)},title={escape.command_property(title)}"
        f"::{escape.command_data(message)}"
    )
    ((name, properties, data),) = commands(line)
    assert name == "error"
    assert set(properties) == {"file", "title"}
    assert not commands(data)


@given(texts, texts)
def test_any_text_in_markdown_is_one_code_span(text: str, other: str) -> None:
    table = f"| a | b |\n|---|---|\n| {escape.markdown_cell(text)} | {escape.markdown_cell(other)} |\n"
    shown = outside_code(html(table)).replace("(empty)", "<code></code>")
    assert shown.count("<td><code></code></td>") == 2
    assert shown.count("<td") == 2
    prose = outside_code(html(f"x {escape.markdown(text)} y")).replace("(empty)", "<code></code>")
    assert prose == "<p>x <code></code> y</p>\n"
