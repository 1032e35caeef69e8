"""From the inputs of the Action to a command line, and what its run leaves for the steps after it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import pytest

from checker.cli import cli
from checker.commands import action, outputs
from checker.commands.action import command_line, run_action, wanted_gpu
from checker.domain import (
    Cell,
    CellResult,
    CheckError,
    CheckResult,
    Environment,
    ErrorKind,
    ExitCode,
    Finding,
    RunResult,
)
from checker.errors import Unavailable, UsageError

FOLDER = ["--report-dir", "quant-verify-report"]


def given(**inputs: str) -> dict[str, str]:
    """The variables of these inputs."""
    return {"QUANT_VERIFY_" + name.upper(): value for name, value in inputs.items()}


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({}, ("run", [])),
        ({"command": "", "checkpoint": " \n ", "matrix": ""}, ("run", [])),
        ({"matrix": "other.yml"}, ("run", [])),  # the command reads the variable by itself
        ({"args": "--verbose 'a b' \"c d\" e\\ f"}, ("run", ["--verbose", "a b", "c d", "e f"])),
        ({"checkpoint": "./a"}, ("check", [*FOLDER, "--", "./a"])),
        ({"checkpoint": "./a\n  org/b c@v1 \r\n\n-x\n"}, ("check", [*FOLDER, "--", "./a", "org/b c@v1", "-x"])),
        ({"command": "check", "checkpoint": "./a"}, ("check", [*FOLDER, "--", "./a"])),
        ({"checkpoint": "./a", "args": "--jobs 2"}, ("check", [*FOLDER, "--jobs", "2", "--", "./a"])),
        ({"checkpoint": "./a", "report_dir": "there"}, ("check", ["--", "./a"])),
        ({"command": "plan", "args": "--max-jobs 3"}, ("plan", ["--max-jobs", "3"])),
        ({"command": " record "}, ("record", [])),
        ({"command": "merge", "args": "a.json b.json"}, ("merge", ["a.json", "b.json"])),
        ({"command": "merge", "args": "a.json", "matrix": "-m.yml"}, ("merge", ["--matrix=-m.yml", "a.json"])),
        ({"command": "compare", "args": "a.json b.json --quiet"}, ("compare", ["a.json", "b.json", "--quiet"])),
    ],
)  # fmt: skip
def test_the_command_line(inputs, expected):
    assert command_line(given(**inputs)) == expected


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"command": "chekc"}, "which is none of run, check, plan, merge, compare, record (did you mean 'check'?)"),
        ({"command": "doctor"}, "which is none of"),
        ({"command": "run", "checkpoint": "./a"}, "is for command check, not for run; leave one of them out"),
        ({"checkpoint": "./a", "matrix": "m.yml"}, "checkpoint and matrix exclude each other"),
        ({"command": "check"}, "command check needs the input checkpoint"),
        ({"command": "check", "matrix": "m.yml"}, "command check needs the input checkpoint"),
        ({"command": "merge"}, "command merge needs the reports in the input args"),
        ({"command": "compare", "args": " "}, "command compare needs the reports in the input args"),
        ({"command": "merge", "args": "absent/*.json"}, "the input args: no file matches 'absent/*.json'"),
        ({"args": "'open"}, "the input args cannot be read: no closing quotation"),
    ],
)  # fmt: skip
def test_inputs_that_make_no_command(inputs, says):
    with pytest.raises(UsageError) as caught:
        command_line(given(**inputs))
    assert says in str(caught.value)


def test_globs_are_those_of_reports_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b/report.json", "a/report.json", "a/deep/report.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert command_line(given(command="merge", args="*/report.json last --x=*"))[1] == [
        "a/report.json", "b/report.json", "last", "--x=*",
    ]  # fmt: skip
    assert command_line(given(command="merge", args="'**/report.json'"))[1] == [
        "a/deep/report.json", "a/report.json", "b/report.json",
    ]  # fmt: skip
    assert command_line(given(command="merge", args="none/*", matrix="m.yml"))[1] == ["--matrix=m.yml"]
    assert command_line(given(command="merge", args="--only a/* --verbose b/*"))[1] == [
        "--only", "a/*", "--verbose", "b/report.json",
    ]  # fmt: skip


def test_the_value_of_an_option_is_no_glob_of_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").touch()
    words = command_line(given(command="merge", args="*.json --only 'llama/*' --verbose *.json", matrix="m.yml"))[1]
    assert words == ["--matrix=m.yml", "a.json", "--only", "llama/*", "--verbose", "a.json"]


def test_a_command_of_the_same_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "quant-verify.yml").write_text("version: 1\nmodels: [{name: m, checkpoints: {a: org/a}}]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUANT_VERIFY_OUTPUTS", str(tmp_path / "outputs"))
    for name, value in given(shard="1/2", fail_on="warn", offline="", device="cpu").items():
        monkeypatch.setenv(name, value)
    code = run_action(cli, given(command="plan", shard="1/2", fail_on="warn", offline="", device="cpu"))
    assert code is ExitCode.PASSED
    shown = capsys.readouterr()
    assert (tmp_path / "outputs").read_text() == f"plan={shown.out}"
    assert json.loads(shown.out)["include"][0]["cells"] == "m/a"
    assert [line.partition("input ")[2] for line in shown.err.splitlines()] == [
        f"{name} has no effect on command plan" for name in ("shard", "device", "fail-on")
    ]


def test_help_is_no_verdict():
    with pytest.raises(UsageError, match="asks for help and not for a verdict"):
        run_action(cli, given(command="plan", args="--help"))


def test_wrong_words_are_those_of_the_command():
    with pytest.raises(click.UsageError, match="No such option"):
        run_action(cli, given(command="plan", args="--maximum 3"))


MATRIX = """\
version: 1
models:
  - {name: files, checkpoints: {a: org/a}, depth: static}
  - {name: plain, checkpoints: {a: org/a}}
  - {name: cuda, checkpoints: {a: org/a}, device: "cuda:1"}
  - {name: large, checkpoints: {a: org/a}, gpus: 2}
  - {name: cpu, checkpoints: {a: org/a}, gpus: 2, device: cpu}
"""


@pytest.mark.parametrize(
    ("name", "inputs", "there", "device"),
    [
        ("run", {"only": ("plain/*",)}, False, None),
        ("run", {"only": ("plain/*",)}, True, "auto"),
        ("run", {"only": ("plain/*",), "gpus": "auto"}, False, None),
        ("run", {"only": ("plain/*",), "gpus": "1"}, False, "cuda"),
        ("run", {"only": ("plain/*",), "gpus": "none"}, True, None),
        ("run", {"only": ("plain/*",), "device": "cuda"}, False, "cuda"),
        ("run", {"only": ("plain/*",), "device": "cpu", "gpus": "1"}, True, None),
        ("run", {}, False, "cuda:1"),
        ("run", {"only": ("large/*",)}, False, "cuda"),
        ("run", {"only": ("cpu/*",)}, False, None),
        ("run", {"only": ("files/*",), "gpus": "1"}, True, None),
        ("run", {"depth": "static", "device": "cuda"}, True, None),
        ("record", {"only": ("plain/*",)}, True, "auto"),
        ("check", {}, True, None),
        ("check", {"depth": "load"}, True, "auto"),
        ("check", {"depth": "full", "device": "cuda:3"}, False, "cuda:3"),
        ("check", {"depth": "full"}, False, None),
        ("plan", {}, True, None),
        ("merge", {}, True, None),
    ],
)
def test_which_runs_want_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name, inputs, there, device):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0" if there else "")
    (tmp_path / "m.yml").write_text(MATRIX)
    options = {"depth": None, "device": None, "only": (), "matrix": str(tmp_path / "m.yml"), **inputs}
    gpus = options.pop("gpus", "")
    assert wanted_gpu(name, options, given(gpus=gpus)) == device


@pytest.mark.parametrize(("works", "workflow"), [(True, "true"), (False, "true"), (False, "")])
def test_doctor_comes_before_a_run_with_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, works, workflow):
    (tmp_path / "quant-verify.yml").write_text("version: 1\nmodels: [{name: m, checkpoints: [./absent]}]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUANT_VERIFY_DEVICE", "cuda")
    monkeypatch.setenv("GITHUB_ACTIONS", workflow)
    monkeypatch.setattr("checker.process.start_ahead", lambda *, preload: None)

    def examine(device: str) -> ExitCode:
        sys.stdout.write(f"looks at {device}\n")
        return ExitCode.PASSED if works else ExitCode.UNVERIFIED

    monkeypatch.setattr("checker.commands.doctor.examine", examine)
    monkeypatch.setattr("checker.commands.run.run_matrix", lambda *_: ExitCode.FAILED)
    assert run_action(cli, given(device="cuda")) is ExitCode.FAILED
    shown = capsys.readouterr()
    lines = ["::group::quant-verify doctor", "looks at cuda", "::endgroup::"] if workflow else ["looks at cuda", ""]
    assert shown.out.splitlines() == lines
    assert ("doctor found what does not work here" in shown.err) is not works


def check(check_id: str, **what: object) -> CheckResult:
    return CheckResult(id=check_id, **what)


RUN = RunResult(
    environment=Environment(python="3.12"),
    planned=("a", "b", "c", "d"),
    cells=(
        CellResult(cell=Cell(id="a"), checks=(check("x"),)),
        CellResult(cell=Cell(id="b"), checks=(check("x", findings=(Finding(message="wrong"),)),)),
        CellResult(cell=Cell(id="c"), checks=(check("x", error=CheckError(kind=ErrorKind.CRASH, message="died")),)),
        CellResult(cell=Cell(id="d"), checks=(check("x", skip_reason="none"),)),
    ),
)


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of outputs, in a working directory inside the workspace."""
    work = tmp_path / "workspace/inner"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setenv("QUANT_VERIFY_OUTPUTS", str(tmp_path / "outputs"))
    return tmp_path / "outputs"


def read(target: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in target.read_text(encoding="utf-8").splitlines())


def test_outputs_of_a_run(target: Path):
    outputs.write_run(RUN, Path("out"))
    assert read(target) == {
        "cells": "4", "passed": "1", "failed": "1", "warned": "0", "errored": "1", "skipped": "1",
        "junit": "inner/out/junit.xml", "json": "inner/out/report.json", "summary": "inner/out/summary.md",
        "html": "inner/out/report.html",
    }  # fmt: skip


def test_outputs_without_reports_are_the_counts(target: Path):
    outputs.write_run(RUN, None)
    assert read(target).keys() == {"cells", "passed", "failed", "warned", "errored", "skipped"}


def test_reports_outside_the_workspace_have_a_whole_path(target: Path, tmp_path: Path):
    outputs.write_run(RUN, Path("../../elsewhere"))
    assert read(target)["json"] == str(tmp_path / "elsewhere/report.json")


@pytest.mark.parametrize("name", ["a\nfailed=0", "a\rfailed=0", "a\u2028b", "a\x0bb"])
def test_a_folder_with_a_name_of_several_lines_forges_no_output(target: Path, name):
    outputs.write_run(RUN, Path(name))
    assert read(target).keys() == {"cells", "passed", "failed", "warned", "errored", "skipped"}
    assert read(target)["failed"] == "1"


def test_without_the_variable_nothing_is_written(target: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QUANT_VERIFY_OUTPUTS", "")
    outputs.write_run(RUN, Path("out"))
    outputs.write({"plan": "[]"})
    assert not target.exists()


def test_a_file_that_cannot_be_written_is_a_sentence(target: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QUANT_VERIFY_OUTPUTS", str(target / "absent/file"))
    with pytest.raises(Unavailable, match=r"cannot write the outputs of the step to .*absent/file: No such file"):
        outputs.write({})
    monkeypatch.setenv("QUANT_VERIFY_OUTPUTS", str(target))
    with pytest.raises(Unavailable, match="a path is not UTF-8"):
        outputs.write({"json": "\udcff"})
    assert not target.exists()


def test_lost_outputs_are_no_success(target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from checker.commands.options import RunArguments
    from checker.commands.suite import Reports

    monkeypatch.setenv("QUANT_VERIFY_OUTPUTS", str(target / "absent/file"))
    reports = Reports(RunArguments(report_dir="out"))
    reports.write(RUN)
    reports.write(RUN)
    assert isinstance(reports.failure, Unavailable)
    assert Path("out/report.json").is_file()
    assert capsys.readouterr().err.count("cannot write the outputs") == 1
    monkeypatch.setenv("QUANT_VERIFY_OUTPUTS", str(target))
    reports.write(RUN)
    assert reports.failure is None


def test_outputs_name_no_report_that_was_lost(target: Path, capsys: pytest.CaptureFixture[str]):
    from checker.commands.options import RunArguments
    from checker.commands.suite import Reports

    Path("file").touch()
    Reports(RunArguments(report_dir="file/out")).write(RUN)
    assert "json" not in read(target)
    assert "cannot write the reports" in capsys.readouterr().err


def test_every_input_of_an_option_is_one_of_some_command():
    known = {parameter.envvar for name in action.COMMANDS for parameter in cli.commands[name].params}
    assert {action._variable(name) for name in action.OF_OPTIONS} <= known


def test_the_command_is_hidden_and_there():
    assert cli.commands["action"].hidden
