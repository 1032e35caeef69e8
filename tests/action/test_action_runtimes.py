"""Where a run takes place, what it hands to the workflow, and how it ends."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import textwrap
import time

import pytest
from command_line import until
from launcher import IMAGE, ROOT, Machine

RUN = {"checkpoint": "./model", "runtime": "path"}
MATRIX = """\
    version: 1
    defaults: {depth: static}
    models:
      - {name: good, checkpoints: {a: ./model}}
      - {name: bad, checkpoints: {b: ./damaged}}
    """


def damage(machine: Machine) -> None:
    """A second checkpoint, whose config says something else than its tensors, and a matrix over both."""
    shutil.copytree(machine.workspace / "model", machine.workspace / "damaged")
    path = machine.workspace / "damaged/config.json"
    config = json.loads(path.read_text())
    config["quantization_config"]["bits"] = 8
    path.write_text(json.dumps(config))
    (machine.workspace / "quant-verify.yml").write_text(textwrap.dedent(MATRIX))


def test_everything_comes_out(with_path: Machine):
    damage(with_path)
    done = with_path.run({"runtime": "path"})
    assert done.code == 1, done.log
    assert done.outputs == {
        "verdict": "failed",
        "exit-code": "1",
        "cells": "2",
        "passed": "1",
        "failed": "1",
        "warned": "0",
        "errored": "0",
        "skipped": "0",
        "junit": "quant-verify-report/junit.xml",
        "json": "quant-verify-report/report.json",
        "summary": "quant-verify-report/summary.md",
        "html": "quant-verify-report/report.html",
    }
    assert all((with_path.workspace / done.outputs[name]).is_file() for name in ("junit", "json", "summary", "html"))
    assert done.summary == (with_path.workspace / "quant-verify-report/summary.md").read_text()
    assert [line[:38] for line in done.out.splitlines() if line.startswith("::")] == [
        "::error file=quant-verify.yml,line=5,t"
    ]


def test_a_plan_comes_out(with_path: Machine):
    damage(with_path)
    done = with_path.run({"runtime": "path", "command": "plan"})
    assert done.code == 0, done.log
    assert done.outputs.keys() == {"verdict", "exit-code", "plan"}
    assert [job["cells"] for job in json.loads(done.outputs["plan"])["include"]] == ["good/a", "bad/b"]
    assert done.outputs["plan"] in done.out.splitlines()


def test_two_jobs_are_merged_and_compared(with_path: Machine):
    damage(with_path)
    path = {"runtime": "path"}
    for name in ("good", "bad"):
        part = {**path, "only": f"{name}/*", "annotations": "never", "report-dir": f"jobs/{name}"}
        assert with_path.run(part).summary == ""
    merge = {**path, "command": "merge", "matrix": "quant-verify.yml", "args": "jobs/*/report.json"}
    done = with_path.run(merge)
    assert (done.code, done.outputs["cells"], done.outputs["failed"]) == (1, "2", "1"), done.log
    assert "bad/b" in done.summary
    assert "::error file=quant-verify.yml,line=5," in done.out
    assert with_path.run({**merge, "matrix": ""}).code == 1
    none = with_path.run({**merge, "args": "absent/*/report.json"})
    assert (none.code, none.outputs["verdict"], none.outputs["errored"]) == (3, "unverified", "2"), none.log
    compare = {**path, "command": "compare", "args": "jobs/good/report.json quant-verify-report/report.json"}
    assert with_path.run(compare).outputs.keys() == {"verdict", "exit-code"}


@pytest.mark.parametrize(
    ("inputs", "code", "verdict"),
    [
        ({"checkpoint": "./model"}, 0, "passed"),
        ({"checkpoint": "./damaged"}, 1, "failed"),
        ({"checkpoint": "./absent"}, 2, "usage-error"),
        ({"checkpoint": "org/absent@main", "offline": "true"}, 3, "unverified"),
        ({"checkpoint": "./model", "select": "outputs.*"}, 4, "nothing-checked"),
    ],
)
def test_a_verdict_for_each_exit_code(with_path: Machine, inputs, code, verdict):
    damage(with_path)
    done = with_path.run({"runtime": "path", **inputs})
    assert (done.code, done.outputs["exit-code"], done.outputs["verdict"]) == (code, str(code), verdict), done.log


def test_the_working_directory(with_path: Machine):
    inner = with_path.workspace / "some folder"
    inner.mkdir()
    (with_path.workspace / "model").rename(inner / "model")
    (with_path.workspace / "link").symlink_to(inner)
    for name in ("some folder", "./some folder/", str(inner), "link"):
        done = with_path.run({**RUN, "working-directory": name})
        assert done.code == 0, done.log
        assert done.outputs["json"] == "some folder/quant-verify-report/report.json"


def test_the_caches_go_where_they_are_told(with_path: Machine):
    script = "import os; print(*map(os.environ.get, ['HF_HOME', 'QUANT_VERIFY_CACHE', 'HF_HUB_CACHE']), sep='|')"
    with_path.has("quant-verify", sys.executable, "-c", script)
    places = {
        "cache": with_path.workspace / "cache",
        "~/some cache": with_path.home / "some cache",
        str(with_path.folder / "far"): with_path.folder / "far",
    }
    for given, place in places.items():
        done = with_path.run({**RUN, "cache-dir": given}, HF_HUB_CACHE="/elsewhere")
        assert done.out.startswith(f"{place}/huggingface|{place}|None"), done.log
        assert (place / "huggingface").is_dir()
    assert with_path.run(RUN, HF_HUB_CACHE="/elsewhere").out.startswith("None|None|/elsewhere")


def test_what_is_not_quant_verify_passes_nothing(with_path: Machine):
    with_path.has("quant-verify", "printf", "all is well")
    done = with_path.run(RUN)
    assert (done.code, done.outputs["verdict"]) == (3, "unverified")
    assert "in place of quant-verify ended with 0 and checked nothing" in done.error


@pytest.mark.parametrize(("code", "says"), [(137, "killed (signal 9)"), (139, "exit code 139"), (255, "exit code 255")])
def test_an_end_of_its_own_is_unverified(with_path: Machine, code, says):
    with_path.has("quant-verify", "bash", "-c", f"exit {code}")
    done = with_path.run(RUN)
    assert (done.code, done.outputs) == (3, {"verdict": "unverified", "exit-code": "3"})
    assert says in done.error


def test_no_token_and_no_file_of_the_runner_reaches_the_run(with_path: Machine):
    with_path.has(
        "quant-verify", sys.executable, "-c", "import os; print(*map('='.join, os.environ.items()), sep='\\n')"
    )
    secret = {"GH_TOKEN": "ghs_other", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "ghs_id", "GITHUB_STATE": "state"}
    done = with_path.run(RUN, HF_TOKEN="hf_100%secret", **secret)
    seen = dict(line.partition("=")[::2] for line in done.out.splitlines() if "=" in line)
    assert seen["HF_TOKEN"] == "hf_100%secret"
    assert "ghs_" not in done.out
    assert seen.keys().isdisjoint({"GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_STATE", "GITHUB_TOKEN", *secret})
    assert seen["GITHUB_STEP_SUMMARY"] != str(with_path.summary)
    assert done.out.startswith("::add-mask::hf_100%25secret\n")


def test_outputs_that_are_none_of_ours_are_left_out(with_path: Machine):
    lines = r"cells=3\nPATH=/evil\nverdict=passed\nfailed<<X\nfailed=1\rpassed=9\n"
    script = f"import os; open(os.environ['QUANT_VERIFY_OUTPUTS'], 'w', newline='').write('{lines}')"
    (with_path.folder / "liar.py").write_text(script)
    with_path.has_quant_verify(with_path.folder / "liar.py")
    done = with_path.run(RUN)
    assert done.outputs == {"verdict": "passed", "exit-code": "0", "cells": "3", "failed": "1passed=9"}


@pytest.mark.parametrize("runtime", ["path", "docker"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_cancelled_run_leaves_its_reports(with_docker: Machine, runtime, number):
    code = 128 + number
    entry = with_docker.folder / "entry.py"
    once = with_docker.folder / "once"
    entry.write_text(
        f"import os, runpy; os.environ['HOSTILE'] = 'hang,memory.ratio,{once}'\n"
        f"runpy.run_path('{ROOT / 'tests/faults/hostile_entry.py'}', run_name='__main__')\n"
    )
    with_docker.has_quant_verify(entry)
    (with_docker.notes / "entry").write_text(str(entry))
    process = with_docker.start({**RUN, "runtime": runtime, "image": IMAGE, "comment": "always"})
    until(once.exists)
    begin = time.monotonic()
    process.send_signal(number)
    done = with_docker.finish(process)
    assert time.monotonic() - begin < 7.5, "the runner waits no longer"
    assert (done.code, done.outputs["verdict"], done.outputs["exit-code"]) == (code, "interrupted", str(code)), done.log
    assert (done.outputs["cells"], done.outputs["errored"]) == ("1", "1")
    report = json.loads((with_docker.workspace / done.outputs["json"]).read_text())
    assert report["exit_code"] == code
    assert done.summary
    assert not list(with_docker.notes.glob("*comment*"))


def test_a_signal_before_the_run_ends_the_step(with_docker: Machine):
    (with_docker.notes / "present").unlink()
    with_docker.has("docker", "bash", "-c", "case $1 in image) exit 1 ;; *) sleep 30 ;; esac", "docker")
    process = with_docker.start({"checkpoint": "./model", "runtime": "docker", "image": IMAGE})
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    done = with_docker.finish(process)
    assert (done.code, done.outputs) == (130, {"verdict": "interrupted", "exit-code": "130"})


def test_a_summary_that_no_workflow_can_show(with_path: Machine):
    (with_path.folder / "long.py").write_text(
        "import os; open(os.environ['QUANT_VERIFY_OUTPUTS'], 'w')\n"
        "open(os.environ['GITHUB_STEP_SUMMARY'], 'w').write('x' * 2**20 + 'x')"
    )
    with_path.has_quant_verify(with_path.folder / "long.py")
    done = with_path.run(RUN)
    assert (done.code, done.summary) == (0, "")
    assert "longer than a workflow can show" in done.err


@pytest.mark.parametrize("lost", ["GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"])
def test_what_cannot_be_handed_over_is_no_success(with_path: Machine, lost):
    done = with_path.run(RUN, **{lost: str(with_path.folder / "absent/file")})
    assert done.code == 3, done.log
    assert "could not be written" in done.err


def test_outside_a_workflow_there_are_no_commands(with_path: Machine):
    done = with_path.run(RUN, GITHUB_ACTIONS="", HF_TOKEN="hf_x")
    assert done.code == 0
    assert "::" not in done.log


def test_comments_come_from_a_process_of_their_own(with_path: Machine):
    script = (
        "import os, sys; seen = '\\n'.join(map('='.join, os.environ.items()))\n"
        "open(os.environ['NOTES'] + sys.argv[1], 'w').write(seen)\n"
        "if sys.argv[1] == 'action': open(os.environ['QUANT_VERIFY_OUTPUTS'], 'w').write('json=there/report.json\\n')\n"
        "else: sys.exit(5)\n"
    )
    (with_path.folder / "note.py").write_text(script)
    with_path.has_quant_verify(with_path.folder / "note.py")
    notes = {"NOTES": f"{with_path.notes}/"}
    done = with_path.run({**RUN, "comment": "failures"}, HF_TOKEN="hf_x", **notes)
    assert done.code == 0, "the comment is a courtesy"
    assert "the comment was not posted" in done.err
    seen = dict(line.partition("=")[::2] for line in (with_path.notes / "comment").read_text().splitlines())
    assert (seen["GITHUB_TOKEN"], seen["QUANT_VERIFY_COMMENT"]) == ("ghs_workflow", "failures")
    assert seen["QUANT_VERIFY_REPORT_DIR"] == f"{with_path.workspace}/there"
    assert "HF_TOKEN" not in seen
    assert "ghs_workflow" not in (with_path.notes / "action").read_text()
    (with_path.notes / "comment").unlink()
    for inputs in ({"comment": "never"}, {}, {"comment": "always", "shard": "1/2"}):
        with_path.run({**RUN, **inputs}, **notes)
    assert not (with_path.notes / "comment").exists()
