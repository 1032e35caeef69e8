"""One test for each exit code: what CI sees of us."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import (
    ENTRY,
    FULL,
    STATIC,
    check_reports,
    environment,
    finish,
    quant_verify,
    read_report,
    running,
    until,
    workers,
)


def test_0_when_all_passed(work):
    done = quant_verify("check", "./models/nf4", "./models/int8", cwd=work)
    assert done.code == 0, done
    assert "Exit code 0" in done.out


def test_1_when_a_check_failed(work):
    done = quant_verify("check", "./models/dense", cwd=work)
    assert done.code == 1, done
    assert "config.present" in done.out


def test_1_wins_over_3(work):
    done = quant_verify("check", "./models/dense", "org/absent", "--offline", "--report-dir", "out", cwd=work)
    assert done.code == 1, done
    assert [cell["outcome"] for cell in read_report(work / "out")["cells"]] == ["fail", "error"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check", "./absent"], "the folder ./absent does not exist"),
        (["check", "./models/nf4", "--select", "layers.coverag"], "did you mean 'layers.coverage'"),
        (["check", "./models/nf4", "--shard", "3/2"], "--shard '3/2' is not of the form I/N"),
        (["check", "./models/nf4", "--device", "gpu"], "--device 'gpu' is none of"),
        (["check", "./models/nf4", "--jobs", "0"], "--jobs '0' is neither"),
        (["check", "./models/nf4", "--only", "int8"], "no cell matches 'int8'"),
        (["check", "./models/nf4", "--timeout", "0"], "'--timeout'"),
        (["check", "./models/nf4", "--depth", "deep"], "'deep' is not one of 'static', 'load', 'full'"),
        (["check", "org/model@main", "--require-pinned"], "org/model@main is not pinned"),
        (["check", "../../models/*"], "matches no folder with a config.json"),
        (["check"], "Missing argument"),
        (["run"], "there is no matrix file quant-verify.yml"),
        (["merge", "absent.json"], "cannot read the report absent.json"),
        (["explain", "weights.eror"], "did you mean 'weights.error'"),
        (["methods", "bitsandbytes-4bits"], "did you mean 'bitsandbytes-4bit'"),
        (["estimate", "absent"], "absent is neither a config.json nor a folder"),
        (["frobnicate"], "No such command"),
        ([], "Usage:"),
    ],
)
def test_2_for_wrong_usage(work, arguments, says):
    done = quant_verify(*arguments, cwd=work)
    assert done.code == 2, done
    assert says in done.err
    assert not done.out
    assert not (work / "quant-verify-report").exists()


def test_2_for_a_matrix_with_mistakes_all_told_at_once(work, matrix):
    matrix("""\
        defaults: {depht: static}
        models:
          - {name: a, checkpoints: [./models/nf4], limits: {weights.error.Q: {fail: 2}}}
        """)
    done = quant_verify("run", cwd=work)
    assert done.code == 2
    assert "quant-verify.yml:2: " in done.err
    assert "depth" in done.err
    assert "quant-verify.yml:4: " in done.err
    assert "weights.error" in done.err


def test_2_for_folders_that_are_not_there_each_with_its_line(work, matrix):
    matrix("""\
        models:
          - {name: a, checkpoints: [./absent/one, ./models/nf4]}
          - {name: b, checkpoints: [./absent/two]}
        """)
    done = quant_verify("run", "--depth", "static", cwd=work)
    assert done.code == 2
    assert "quant-verify.yml:3: the folder ./absent/one does not exist" in done.err
    assert "quant-verify.yml:4: the folder ./absent/two does not exist" in done.err


def test_3_when_something_could_not_be_verified(work):
    done = quant_verify("check", "org/absent@main", "--offline", "--report-dir", "out", cwd=work)
    assert done.code == 3, done
    report = check_reports(work / "out", {"absent": STATIC})
    errors = {(check["error"]["kind"], check["error"]["message"]) for check in report["cells"][0]["checks"]}
    assert [kind for kind, _ in errors] == ["network"]
    assert "org/absent@main is not, or not wholly, in the local cache" in done.out
    assert report["cells"][0]["attempts"] == 1, "offline, a second look finds no more than the first"


def test_4_when_nothing_was_checked(work):
    done = quant_verify("check", "./models/nf4", "--select", "outputs.*", cwd=work)
    assert done.code == 4, done


def test_an_empty_shard_is_a_success_with_a_report(work):
    done = quant_verify("check", "./models/nf4", "--shard", "2/2", "--report-dir", "out", cwd=work)
    assert done.code == 0, done
    report = read_report(work / "out")
    assert report["planned"] == ["nf4"]
    assert report["cells"] == []
    assert report["shard"] == "2/2"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str
)
def test_a_signal_ends_the_run_with_complete_reports(work, matrix, number, code):
    matrix("""\
        quantizations: {int8: {quant_method: bitsandbytes, load_in_8bit: true}}
        models:
          - {baseline: ./models/dense, name: tiny, quantizations: [int8], checkpoints: {made: ./models/nf4}}
        """)
    with running("run", "--report-dir", "out", cwd=work) as process:
        until((work / "out" / "report.json").exists)  # a worker is there even before the matrix is read
        worker = until(lambda: workers(process))[0]
        time.sleep(0.3)
        begin = time.monotonic()
        process.send_signal(number)
        done = finish(process)
    assert time.monotonic() - begin < 5
    assert done.code == code, done
    report = check_reports(work / "out", {"tiny/int8": FULL, "tiny/made": FULL})
    assert report["exit_code"] == code
    assert "interrupted" in done.out
    assert not worker.is_running()


def test_a_second_signal_does_not_spoil_the_reports(work):
    with running("check", "./models/nf4", "--depth", "full", "--report-dir", "out", cwd=work) as process:
        until((work / "out" / "report.json").exists)
        for _ in range(5):
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGINT)
        done = finish(process)
    assert done.code in {130, 143}
    check_reports(work / "out", {"nf4": FULL})


def test_a_reader_that_goes_away_changes_no_verdict(work):
    with running("check", "./models/nf4", cwd=work) as process:
        process.stdout.close()
        process.stderr.close()
        assert process.wait(30) == 0
        process.stdout = process.stderr = None


def test_a_full_stdout_is_not_a_success(work):
    command = [sys.executable, str(ENTRY), "check", "./models/nf4"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, cwd=work, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 3
    assert "cannot write the verdict to stdout: No space left on device" in done.stderr
