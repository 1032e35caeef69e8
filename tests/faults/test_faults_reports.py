"""When the reports themselves cannot be written: the verdict is on stdout, and the exit code is never a success."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from command_line import STATIC, check_reports, quant_verify, running, until, workers

from checker import cli, reporters
from checker.commands import suite
from checker.domain import ExitCode

HOSTILE = Path(__file__).with_name("hostile_entry.py")
CELLS = {"first/nf4": STATIC, "second/int8": STATIC}


def test_a_report_folder_that_cannot_be_made(work):
    (work / "file").write_text("")
    done = quant_verify("run", "--report-dir", "file/reports", cwd=work)
    assert done.code == 3, done
    assert "Exit code 0: every check passed" in done.out, "the verdict all the same"
    assert done.err.count("cannot write the reports to file/reports: Not a directory") == 1


def test_a_failed_check_wins_over_a_lost_report(work):
    (work / "file").write_text("")
    assert quant_verify("check", "./dense", "--report-dir", "file/reports", cwd=work).code == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_report_folder(work):
    (work / "reports").mkdir(mode=0o555)
    done = quant_verify("run", "--report-dir", "reports", cwd=work)
    assert done.code == 3
    assert "cannot write the reports to reports: Permission denied" in done.err


def test_a_report_folder_removed_while_the_run_goes_on_is_made_again(work):
    with running("run", cwd=work, entry=HOSTILE, HOSTILE=f"hang,memory.ratio,{work / 'once'}") as process:
        settled(work)
        shutil.rmtree(work / "quant-verify-report")
        workers(process)[0].kill()
        process.communicate()
    assert process.returncode == 0
    check_reports(work / "quant-verify-report", CELLS)


def test_a_file_in_the_place_of_the_report_folder_while_the_run_goes_on(work):
    with running("run", cwd=work, entry=HOSTILE, HOSTILE=f"hang,memory.ratio,{work / 'once'}") as process:
        settled(work)
        shutil.rmtree(work / "quant-verify-report")
        (work / "quant-verify-report").write_text("")
        workers(process)[0].kill()
        out, err = process.communicate()
    assert process.returncode == 3
    assert "every check passed" in out
    assert err.count("cannot write the reports to quant-verify-report: File exists") == 1


def settled(work: Path) -> None:
    """Wait until the worker hangs and the parent has written what it knows."""
    until((work / "once").exists)
    report = work / "quant-verify-report/summary.md"
    until(lambda: time.time() - report.stat().st_mtime > 0.4)


def invoke(*arguments: str) -> tuple[int, str, str]:
    """The command in this process, so that its writing can be made to fail."""
    result = CliRunner().invoke(cli.cli, [*arguments], standalone_mode=False, catch_exceptions=False)
    return int(result.return_value), result.stdout, result.stderr


@pytest.fixture
def full_disk(monkeypatch):
    """No file can be put in place any more, as long as the list is not empty."""
    full = [True]
    real = Path.replace

    def replace(self, target):
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    return full


def test_a_full_disk_at_the_report(work, full_disk, monkeypatch):
    monkeypatch.chdir(work)
    code, out, err = invoke("run", "--report-dir", "reports")
    assert code == 3
    assert "Exit code 0" in out
    assert err.count("cannot write the reports to reports: No space left on device") == 1
    assert list(Path("reports").iterdir()) == [], "no half of a report, no temporary file"


def test_a_disk_that_has_room_again_at_the_end_loses_nothing(work, full_disk, monkeypatch):
    monkeypatch.chdir(work)
    monkeypatch.setattr(suite, "show", lambda run, _: run.exit_code)
    real = reporters.write_reports

    def write(run, folder):
        if all(cell.seconds for cell in run.cells):
            full_disk.clear()
        real(run, folder)

    monkeypatch.setattr(reporters, "write_reports", write)
    code, _, err = invoke("run", "--report-dir", "reports")
    assert code == ExitCode.PASSED
    assert "No space left" in err
    check_reports(work / "reports", CELLS)


def test_merge_shows_the_verdict_when_its_reports_are_lost(work):
    assert quant_verify("run", cwd=work).code == 0
    (work / "file").write_text("")
    done = quant_verify("merge", "quant-verify-report/report.json", "--report-dir", "file/x", cwd=work)
    assert done.code == 3, done
    assert "Exit code 0" in done.out
    assert "cannot write the reports to file/x" in done.err
