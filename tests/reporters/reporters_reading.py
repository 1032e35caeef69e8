"""Reading the reports back as their readers do."""

from __future__ import annotations

import io
import re
from typing import Any
from xml.etree import ElementTree as ET

from junitparser import JUnitXml
from markdown_it import MarkdownIt
from rich.console import Console

from checker.domain import RunResult
from checker.reporters import terminal


def table_text(run: RunResult, width: int, *, verbose: bool = False, color: bool = False) -> str:
    """The terminal's text, with colours when asked."""
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=color, color_system="standard" if color else None)
    terminal.render_table(run, console, verbose=verbose)
    return file.getvalue()


def html(markdown: str) -> str:
    """Markdown as GitHub renders it, tables included, raw HTML let through."""
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown)


def outside_code(rendered: str) -> str:
    """What of the HTML does not stand in a code element: here no foreign character may be."""
    return re.sub(r"<code>.*?</code>", "<code></code>", rendered, flags=re.DOTALL)


def junit_counts(text: str) -> list[dict[str, Any]]:
    """Counts per suite by two parsers, which must agree."""
    root = ET.fromstring(text.encode())
    counted = [
        {
            "name": suite.get("name"),
            "tests": len(suite.findall("testcase")),
            "failures": len(suite.findall("testcase/failure")),
            "errors": len(suite.findall("testcase/error")),
            "skipped": len(suite.findall("testcase/skipped")),
        }
        for suite in root.iter("testsuite")
    ]
    parsed = JUnitXml.fromstring(text.encode())
    told = [
        {key: getattr(suite, key) for key in ("name", "tests", "failures", "errors", "skipped")} for suite in parsed
    ]
    assert told == counted
    for key in ("tests", "failures", "errors"):
        assert int(root.get(key, "-1")) == sum(suite[key] for suite in counted)
    return counted
