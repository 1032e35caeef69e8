"""Report files: whole, readable, and cheap enough to be written after every check."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from checker.domain import RunResult
from checker.errors import Unavailable
from checker.reporters import html, json_v1, junit, summary, write_reports


def test_the_four_files(run: RunResult, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    write_reports(run, folder)
    write_reports(run, folder)
    assert {path.name for path in folder.iterdir()} == {"junit.xml", "report.html", "report.json", "summary.md"}
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    assert (folder / "report.json").read_bytes() == json_v1.render(run).encode()
    assert (folder / "junit.xml").read_bytes() == junit.render(run).encode()
    assert (folder / "summary.md").read_bytes() == summary.render(run).encode()
    assert (folder / "report.html").read_bytes() == html.render(run).encode()


def test_a_folder_that_cannot_be_made(run: RunResult, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match=r"cannot write the reports to .*/file/x: Not a directory"):
        write_reports(run, tmp_path / "file" / "x")


def test_a_rename_that_fails_leaves_no_rubbish(run: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "report.json").mkdir()
    with pytest.raises(Unavailable, match="Is a directory"):
        write_reports(run, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_importing_the_reporters_imports_nothing_heavy() -> None:
    names = ("github", "html", "json_v1", "junit", "merge", "progress", "summary", "terminal")
    code = f"import sys; from checker.reporters import {', '.join(names)}; print(*sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"rich", "jinja2", "junit_xml", "pydantic", "numpy", "torch"} & {*modules}


def test_without_reports_no_template_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    code = (
        "import sys; from checker.cli import cli\n"
        f"try: cli(['check', {str(tmp_path)!r}, '--depth', 'static'])\n"
        "except SystemExit: pass\n"
        "print('jinja2' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "Exit code" in done.stdout
