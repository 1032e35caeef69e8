"""The command line as a process of its own, and what its reports must hold whatever happened."""

from __future__ import annotations

import html
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from checker.domain import Depth
from checker.registry import selected_checks

STATIC, LOAD, FULL = (len(selected_checks(depth, (), ())) for depth in Depth)  # checks of a cell
ENTRY = Path(__file__).parent.parent / "entrypoint.py"
FOREIGN = ("QUANT_VERIFY_", "GITHUB_", "PYTHON", "HF_", "CI", "COLUMNS", "FORCE_COLOR", "NO_COLOR", "TERM")
SECONDS = 120


@dataclass(frozen=True)
class Done:
    """What a finished command left behind."""

    code: int
    out: str
    err: str

    @property
    def commands(self) -> list[str]:
        """The lines that a workflow runner would obey, on either stream: at a line's start, or anywhere."""
        lines = (self.out + "\n" + self.err).splitlines()
        return [line for line in lines if line.lstrip().startswith("::") or "##[" in line]


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without what would change the outcome."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
    cache = str(Path(tempfile.gettempdir()) / f"quant-verify-tests-{os.getuid()}")
    kept["QUANT_VERIFY_CACHE"] = cache
    return kept | {"COLUMNS": "200", "HF_HOME": "/nonexistent/huggingface", "PYTHONDONTWRITEBYTECODE": "1"} | extra


def start(*arguments: object, cwd: Path, entry: Path = ENTRY, **extra: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(entry), *map(str, arguments)],
        cwd=cwd,
        env=environment(**extra),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def finish(process: subprocess.Popen[str]) -> Done:
    out, err = process.communicate(timeout=SECONDS)
    assert "Traceback" not in err or process.args[-1] == "--verbose", err
    return Done(code=process.returncode, out=out, err=err)


def quant_verify(*arguments: object, cwd: Path, entry: Path = ENTRY, **extra: str) -> Done:
    """Run the command to its end. Nothing but ``--verbose`` may show a traceback."""
    return finish(start(*arguments, cwd=cwd, entry=entry, **extra))


@contextmanager
def running(*arguments: object, cwd: Path, entry: Path = ENTRY, **extra: str) -> Iterator[subprocess.Popen[str]]:
    """A command in the middle of its work, ended at the latest with the test."""
    process = start(*arguments, cwd=cwd, entry=entry, **extra)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The condition's value as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children()


def read_report(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return report


def check_reports(folder: Path, cells: Mapping[str, int]) -> dict[str, Any]:
    """All three files are there and whole, and name every planned cell with its number of checks."""
    report = read_report(folder)
    assert report["planned"] == [*cells]
    assert {cell["id"]: len(cell["checks"]) for cell in report["cells"]} == cells
    suites = ET.parse(folder / "junit.xml").getroot().iter("testsuite")
    assert {suite.get("name"): len(list(suite.iter("testcase"))) for suite in suites} == cells
    summary = (folder / "summary.md").read_text(encoding="utf-8")
    assert all(cell_id in summary for cell_id in cells)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert all(html.escape(cell_id) in page for cell_id in cells)
    return report


def errors(report: Mapping[str, Any], cell_id: str) -> dict[str, dict[str, str]]:
    """The checks of a cell that have no verdict, and why."""
    cell = next(cell for cell in report["cells"] if cell["id"] == cell_id)
    return {check["id"]: check["error"] for check in cell["checks"] if check["error"] is not None}
