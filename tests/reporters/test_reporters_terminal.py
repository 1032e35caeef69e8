"""The table and the log, for eyes and for the runner that reads both streams."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reporters_any_run import patiently, runs
from reporters_measured import cell, failing, healthy, run_of
from reporters_reading import table_text
from reporters_runner import commands
from rich.console import Console

from checker.domain import RunResult
from checker.reporters import figures
from checker.reporters.progress import Progress
from checker.reporters.terminal import render_table


def test_a_long_id_breaks_where_its_libraries_begin() -> None:
    text = table_text(run_of(healthy("smol/nf4dq@bitsandbytes-0.49.2"), healthy("smol/nf4dq")), 80)
    assert text.splitlines()[2].startswith("smol/nf4dq ")
    assert text.splitlines()[3].startswith("@bitsandbytes")
    wide = table_text(run_of(healthy("smol/nf4dq@bitsandbytes-0.49.2")), 120)
    assert "\nsmol/nf4dq@bitsandbytes-0.49.2  pass" in wide


def test_the_divergence_is_shown_where_there_is_room() -> None:
    run = run_of(healthy(), failing())
    assert " KL " in table_text(run, 120)
    assert "4.94x" in table_text(run, 120)
    assert " KL " not in table_text(run_of(cell("a")), 120)
    assert " KL " not in table_text(run, 80).partition("\n")[0]


class _Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_no_line_is_wider_than_the_console(run: RunResult) -> None:
    for width in (80, 120):
        assert max(len(line) for line in table_text(run, width).splitlines()) <= width


def test_colour_only_adds_escape_sequences(run: RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = table_text(run, 100, color=True)
    assert "\x1b[1;31mFAIL" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;31m" not in table_text(run, 100, color=True)


def test_an_ascii_stream_takes_everything(run: RunResult) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    render_table(run, Console(file=file, width=80))
    with Progress(Console(file=file, width=80)) as progress:
        progress.note("é", "ü…")
    file.seek(0)
    text = file.read()
    assert r"\xe9" not in text  # grouped by cell: the note does not name it
    assert r"\xfc..." in text
    assert "..." in text


def test_the_live_display_shows_what_runs_and_goes_away(run: RunResult) -> None:
    file = _Terminal()
    console = Console(file=file, width=100, force_terminal=True, color_system=None)
    with Progress(console, total=5) as progress:
        progress.cell_started("m/nf4")
        progress.check_started("m/nf4", "weights.error")
        progress.note("m/nf4", "downloading")
        time.sleep(0.3)  # the display refreshes eight times a second
        progress.cell_finished(run.cells[2])
        time.sleep(0.3)
    text = file.getvalue()
    assert "0 of 5 cells done" in text
    assert "m/nf4 weights.error" in text
    assert "note   m/nf4: downloading" in text
    assert "FAIL   smollm2/w4a16" in text
    assert "1 of 5 cells done, 1 not passed" in text
    assert text.endswith("\x1b[2K")


def test_a_quiet_terminal_stays_quiet(run: RunResult) -> None:
    file = _Terminal()
    with Progress(Console(file=file, force_terminal=True), quiet=True) as progress:
        progress.cell_started("a")
        progress.cell_finished(run.cells[0])
    assert file.getvalue() == ""


def test_forced_colour_does_not_make_a_log_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    file = io.StringIO()
    with Progress(Console(file=file)) as progress:
        progress.cell_started("a")
    assert "\x1b[?25l" not in file.getvalue()


def test_lines_of_a_cell_stay_together_when_the_run_is_cut_short() -> None:
    file = io.StringIO()
    with Progress(Console(file=file)) as progress:
        progress.cell_started("a")
        progress.cell_started("b")
        progress.note("b", "of b")
        progress.note("a", "of a")
    assert file.getvalue() == "a\n  note   of a\nb\n  note   of b\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (101.4, "101 s"), (1810, "30 min"), (9000, "2.5 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert figures.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (269e6, "269 MB"), (1.5e9, "1.5 GB"), (2e12, "2 TB")]
)
def test_sizes(count: float, text: str) -> None:
    assert figures.size(count) == text


@pytest.mark.parametrize(
    ("observed", "unit", "text"),
    [
        (None, "x", ""),
        (1.23456, "", "1.235"),
        (3, "bits", "3 bits"),
        (True, "", "true"),
        ("a\nb", "", r"a\nb"),
        ([1, {"a": float("inf")}], "", '[1, {"a": "Infinity"}]'),
        (float("nan"), "", "NaN"),
    ],
)
def test_values(observed: Any, unit: str, text: str) -> None:
    assert figures.value(observed, unit) == text


@given(runs, st.integers(20, 130), st.booleans(), st.booleans())
@patiently
def test_any_table_holds_no_command(run: RunResult, width: int, verbose: bool, color: bool) -> None:
    assert not commands(table_text(run, width, verbose=verbose, color=color))


@given(runs, st.booleans())
@patiently
def test_any_log_holds_no_command(run: RunResult, verbose: bool) -> None:
    file = io.StringIO()
    with Progress(Console(file=file, width=40), verbose=verbose) as progress:
        for result in run.cells:
            progress.cell_started(result.cell.id)
            for check in result.checks:
                progress.check_started(result.cell.id, check.id)
                progress.check_finished(result.cell.id, check)
                progress.note(result.cell.id, check.id)
            progress.cell_finished(result)
    assert not commands(file.getvalue())
