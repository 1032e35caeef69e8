"""Whatever becomes of a worker: its check is charged, the next cell is judged, the reports are complete."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil
import pytest
from command_line import STATIC, Done, check_reports, errors, finish, quant_verify, read_report, running, until, workers

HOSTILE = Path(__file__).with_name("hostile_entry.py")
CELLS = {"first/nf4": STATIC, "second/int8": STATIC}
CHECK = "layers.coverage"


def run(work: Path, act: str, *arguments: str, **extra: str) -> tuple[Done, dict]:
    """A run in which the first cell's workers misbehave (in the second cell they would as well: only one is hurt)."""
    only = ("--only", "first/*") if act in SLOW else ()
    done = quant_verify("run", *arguments, *only, cwd=work, entry=HOSTILE, HOSTILE=f"{act},{CHECK}", **extra)
    cells = {"first/nf4": STATIC} if only else CELLS
    return done, check_reports(work / "quant-verify-report", cells)


SLOW = ("hang", "deaf", "left-behind")


@pytest.mark.parametrize(
    ("act", "kind", "says", "attempts"),
    [
        ("segfault", "crash", "the worker was ended by signal SIGSEGV", 2),
        ("abort", "crash", "the worker was ended by signal SIGABRT", 2),
        ("killed", "crash", "the worker was ended by signal SIGKILL; the system may have been out of memory", 2),
        ("exit", "crash", "the worker ended with exit code 7", 2),
        ("left-behind", "crash", "the worker ended with exit code 9", 2),
        ("garbage", "internal", "a worker said something that is no event", 1),
        ("foreign", "internal", "a worker reported a check that it was not asked for", 1),
        ("endless", "internal", "a worker sent a line that is too long", 1),
        ("hang", "timeout", "the cell's time limit of 2 s ran out", 1),
        ("deaf", "timeout", "the cell's time limit of 2 s ran out", 1),
    ],
)
def test_a_worker_that_dies_costs_the_check_it_was_in(work, act, kind, says, attempts):
    done, report = run(work, act, *(["--timeout", "2"] if act in SLOW else []))
    assert done.code == 3, done
    for cell in report["cells"]:
        found = errors(report, cell["id"])
        assert found.pop(CHECK)["kind"] == kind
        assert cell["attempts"] == attempts
        assert {error["kind"] for error in found.values()} == {"not-run"}
        assert all(error["message"].startswith("never reached: ") for error in found.values())
        before = [check for check in cell["checks"] if check["id"].startswith("config.") and check["outcome"] == "pass"]
        assert before, "what was judged before stands"
    assert says in " ".join(done.out.split())


def test_a_failed_check_elsewhere_wins_over_a_crash(work):
    matrix = work / "quant-verify.yml"
    matrix.write_text(matrix.read_text() + "  - {name: third, checkpoints: {dense: ./dense}}\n")
    done = quant_verify("run", cwd=work, entry=HOSTILE, HOSTILE="killed,weights.scales")
    assert done.code == 1, done
    report = check_reports(work / "quant-verify-report", CELLS | {"third/dense": STATIC})
    assert [cell["outcome"] for cell in report["cells"]] == ["error", "error", "fail"]


@pytest.mark.parametrize("act", ["killed", "segfault", "memory"])
def test_a_fresh_worker_makes_it_good(work, act):
    extra = {"HOSTILE": f"{act},{CHECK},{work / 'once'}"}
    done = quant_verify("run", cwd=work, entry=HOSTILE, **extra)
    assert done.code == 0, done
    first, second = check_reports(work / "quant-verify-report", CELLS)["cells"]
    assert (first["outcome"], first["attempts"], second["attempts"]) == ("pass", 2, 1)
    assert "tried twice" in first["measurements"]["notes"][0]
    assert "tried twice" in (work / "quant-verify-report/summary.md").read_text()
    assert "trying once more" in done.err


def test_a_worker_killed_from_outside_is_replaced(work):
    extra = {"HOSTILE": f"hang,{CHECK},{work / 'once'}"}
    with running("run", cwd=work, entry=HOSTILE, **extra) as process:
        until((work / "once").exists)
        workers(process)[0].kill()
        done = finish(process)
    assert done.code == 0, done
    first = check_reports(work / "quant-verify-report", CELLS)["cells"][0]
    assert "ended by signal SIGKILL" in first["measurements"]["notes"][0]


@pytest.mark.parametrize(
    ("act", "kind", "says"),
    [
        ("memory", "out-of-memory", "out of memory (MemoryError: ); use a larger device, or depth static"),
        ("full", "not-run", "the disk is full"),
        ("import", "not-run", "No module named 'bitsandbytes'); pip install 'quant-verify[torch]'"),
        ("bug", "internal", "--verbose shows where"),
    ],
)
def test_an_exception_in_a_check_costs_that_check_alone(work, act, kind, says):
    done, report = run(work, act)
    assert done.code == 3, done
    for cell_id in CELLS:
        found = errors(report, cell_id)
        assert list(found) == [CHECK]
        assert found[CHECK]["kind"] == kind
    assert says in " ".join(done.out.split())
    assert "Traceback" not in done.out + done.err
    assert done.commands == []


def test_a_traceback_is_shown_with_verbose_only(work):
    done = quant_verify("run", "--verbose", cwd=work, entry=HOSTILE, HOSTILE=f"bug,{CHECK}")
    assert "Traceback (most recent call last):" in done.out
    assert done.commands == []


def test_the_last_output_of_a_dead_worker_is_shown_with_verbose(work):
    done = quant_verify(
        "run", "--verbose", cwd=work, entry=HOSTILE, HOSTILE=f"segfault,{CHECK}", PYTHONFAULTHANDLER="1"
    )
    assert "Segmentation fault" in done.out


def test_a_loud_worker_disturbs_nobody(work):
    done, _report = run(work, "loud")
    assert done.code == 0, done
    assert "from the model" not in done.out + done.err


def test_a_checkpoint_that_vanishes_while_it_is_judged(work, zoo):
    import shutil

    (work / "nf4").unlink()
    shutil.copytree(zoo.quantized("llama", "nf4-double"), work / "nf4")
    extra = {"HOSTILE": "vanish,config.keys", "VANISHES": str(work / "nf4")}
    done = quant_verify("run", "--only", "first/*", cwd=work, entry=HOSTILE, **extra)
    assert done.code in {1, 3}, done
    check_reports(work / "quant-verify-report", {"first/nf4": STATIC})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_worker_that_ignores_signals(work, number):
    with running("run", cwd=work, entry=HOSTILE, HOSTILE=f"deaf,{CHECK},{work / 'once'}") as process:
        until((work / "once").exists)
        worker = workers(process)[0]
        time.sleep(0.2)
        begin = time.monotonic()
        process.send_signal(number)
        done = finish(process)
    assert time.monotonic() - begin < 5
    assert done.code == 128 + number
    assert not worker.is_running()
    report = check_reports(work / "quant-verify-report", CELLS)
    assert {error["message"] for error in errors(report, "second/int8").values()} == {"the run ended before this check"}


def passes(report: dict) -> int:
    return [check["outcome"] for check in report["cells"][0]["checks"]].count("pass")


def test_a_killed_parent_leaves_reports_and_no_orphan(work):
    with running("run", cwd=work, entry=HOSTILE, HOSTILE=f"deaf,{CHECK},{work / 'once'}") as process:
        until((work / "once").exists)
        worker = workers(process)[0]
        until(lambda: passes(read_report(work / "quant-verify-report")) > 3)
        process.kill()
        process.wait()
        until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, seconds=5)
    report = check_reports(work / "quant-verify-report", CELLS)
    assert report["exit_code"] == 3
    assert passes(report) > 3, "what was known is there"


@pytest.mark.parametrize("delay", [0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8])
def test_a_parent_killed_at_any_moment_leaves_whole_reports_or_none(work, delay):
    from command_line import ENTRY

    with running("run", cwd=work, entry=ENTRY) as process:
        time.sleep(delay)
        process.kill()
        process.wait()
    folder = work / "quant-verify-report"
    if (folder / "summary.md").exists():  # the last of the three to be written for the first time
        check_reports(folder, CELLS)
