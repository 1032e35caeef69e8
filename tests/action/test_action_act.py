"""The Action in a job: expressions evaluated, inputs handed in, outputs seen by later steps."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import textwrap
import time

import pytest
from act import run_job
from launcher import ACTION, IMAGE, Machine, variable

from checker import __version__

MATRIX = """\
    version: 1
    defaults: {depth: static}
    models:
      - {name: m, checkpoints: {a: ./model, b: ./model}}
    """
# Every input once, so that its way to the command line is seen; where two exclude each other, in two jobs.
GIVEN = {
    "command": "run",
    "matrix": "inner/other.yml",
    "depth": "static",
    "select": "config.*\nlayers.*, weights.codes",
    "ignore": "config.roundtrip",
    "only": "m/a\nm/b",
    "shard": "1/2",
    "device": "cpu",
    "gpus": "none",
    "runtime": "docker",
    "image": IMAGE,
    "docker-options": "--label 'two words'",
    "cache-dir": "cache",
    "report-dir": "out",
    "fail-on": "warn",
    "annotations": "always",
    "comment": "never",
    "offline": "true",
    "args": "--weights full",
}
ELSEWHERE = {"checkpoint": "./model\n./mod*", "baseline": "auto", "working-directory": "inner"}


@pytest.fixture
def with_matrix(with_docker: Machine) -> Machine:
    """A machine with docker and quant-verify, whose workspace holds a matrix in a folder of its own."""
    with_docker.has_quant_verify()
    inner = with_docker.workspace / "inner"
    inner.mkdir()
    (inner / "other.yml").write_text(textwrap.dedent(MATRIX).replace("./model", "../model"))
    return with_docker


def test_every_input_is_given_here():
    assert {*GIVEN, *ELSEWHERE} == {*ACTION["inputs"]}


def test_every_input_reaches_the_tool_and_every_output_comes_out(with_matrix: Machine):
    job = run_job(with_matrix, GIVEN)
    assert job.succeeded, job.log
    seen = with_matrix.contained()
    assert {name: seen.get(variable(name)) for name in GIVEN} == GIVEN
    assert job.outputs == {
        "verdict": "passed",
        "exit-code": "0",
        "cells": "1",
        "passed": "1",
        "failed": "0",
        "warned": "0",
        "errored": "0",
        "skipped": "0",
        "junit": "out/junit.xml",
        "json": "out/report.json",
        "summary": "out/summary.md",
        "html": "out/report.html",
        "plan": "",
    }
    assert job.outputs.keys() == ACTION["outputs"].keys()
    report = job.report
    assert (report["shard"], report["fail_on"], report["matrix"]["path"]) == ("1/2", "warn", "inner/other.yml")
    ids = {check["id"] for check in report["cells"][0]["checks"]}
    assert {check_id.partition(".")[0] for check_id in ids} == {"config", "layers", "weights"}
    assert "config.roundtrip" not in ids
    (line,) = with_matrix.calls()
    assert line[-4:] == ["--label", "two words", IMAGE, "action"]
    assert "quant-verify: passed" in job.summary


def test_the_inputs_of_command_check_reach_it_too(with_matrix: Machine):
    job = run_job(with_matrix, {**ELSEWHERE, "runtime": "docker", "image": IMAGE})
    assert (job.outcome, job.outputs["verdict"]) == ("failure", "usage-error")
    seen = with_matrix.contained()
    assert {name: seen.get(variable(name)) for name in ELSEWHERE} == ELSEWHERE
    assert "./model does not exist" in job.log or "matches no folder" in job.log


def test_a_variable_of_the_job_counts_where_no_input_is_given(with_matrix: Machine):
    variables = {"QUANT_VERIFY_ONLY": "m/a", "QUANT_VERIFY_RUNTIME": "path", "QUANT_VERIFY_REPORT_DIR": "there"}
    job = run_job(with_matrix, {"matrix": "inner/other.yml", "report-dir": "here"}, **variables)
    assert job.succeeded, job.log
    assert (job.outputs["cells"], job.outputs["json"]) == ("1", "here/report.json")
    job = run_job(with_matrix, {"matrix": "inner/other.yml", "only": "m/*"}, env={"QUANT_VERIFY_RUNTIME": "path"})
    assert (job.outputs["cells"], job.outputs["json"]) == ("2", "quant-verify-report/report.json")


def test_a_step_that_fails_has_its_outputs_all_the_same(with_matrix: Machine):
    config = with_matrix.workspace / "model/config.json"
    document = json.loads(config.read_text())
    document["quantization_config"]["bits"] = 8
    config.write_text(json.dumps(document))
    job = run_job(with_matrix, {"checkpoint": "./model", "runtime": "path"})
    assert (job.succeeded, job.outcome) == (False, "failure")
    assert (job.outputs["verdict"], job.outputs["exit-code"], job.outputs["failed"]) == ("failed", "1", "1")
    assert job.report["exit_code"] == 1


def test_a_plan_is_read_by_an_expression(with_matrix: Machine):
    job = run_job(with_matrix, {"command": "plan", "matrix": "inner/other.yml", "runtime": "path"})
    assert [entry["cells"] for entry in json.loads(job.outputs["plan"])["include"]] == ["m/a,m/b"]


def test_an_unreleased_action_says_so(with_matrix: Machine):
    if not ACTION["runs"]["steps"][0]["env"]["QUANT_VERIFY_IMAGE"].count("0" * 64):
        pytest.skip("this is a release")
    job = run_job(with_matrix, {"matrix": "inner/other.yml"})
    assert (job.outputs["verdict"], job.outputs["exit-code"]) == ("usage-error", "2")
    assert "names no image yet; build one (docker build -t quant-verify .)" in job.log


@pytest.mark.parametrize("runtime", ["path", "docker"])
def test_hostile_values_of_a_job_stay_text(with_matrix: Machine, runtime):
    evil = "$(touch${IFS}pwned)`touch${IFS}pwned`'\"##[error]x\n::error::x"  # select splits at white space
    inputs = {"runtime": runtime, "image": IMAGE, "matrix": "inner/other.yml", "only": evil}
    job = run_job(with_matrix, inputs, QUANT_VERIFY_SELECT=evil)
    assert job.outputs["verdict"] == "usage-error"
    assert "pwned" in job.log
    assert job.obeyed == []
    assert not (job.workspace / "pwned").exists()


def test_a_token_of_the_machine_is_masked_and_a_sentence_is_an_annotation(with_matrix: Machine):
    job = run_job(with_matrix, {"runtime": "podman"}, env={"HF_TOKEN": "hf_secret"})
    assert [name for name, _ in job.obeyed] == ["add-mask", "error"]
    assert "which is none of auto, docker, python, path" in job.obeyed[1][1]


@pytest.mark.slow
def test_runtime_python_installs_once(machine: Machine):
    asked = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps", "--ignore-installed", "click"]
    if subprocess.run(asked, capture_output=True, timeout=60, check=False).returncode != 0:
        pytest.skip("pip reaches no package index")
    machine.has("python3", sys.executable)
    first = run_job(machine, {"checkpoint": "./model"})
    assert (first.succeeded, first.outputs["passed"]) == (True, "1"), first.log
    assert "torch" not in first.report["environment"]["packages"]
    (environment,) = (machine.home / ".cache/act/tool_cache/quant-verify").glob("*")
    assert environment.name.startswith(f"{__version__}-{platform.python_version()}-")
    made = environment.stat().st_mtime_ns
    began = time.monotonic()
    second = run_job(machine, {"checkpoint": "./model"})
    assert (second.outputs["verdict"], environment.stat().st_mtime_ns) == ("passed", made)
    assert time.monotonic() - began < 15
    assert [path for path in environment.parent.iterdir() if path != environment] == []
