"""``fan-out.yml`` from plan to verdict, run whole: the real Action and command line, tiny checkpoints, no network."""

from __future__ import annotations

import json
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from workflow_files import ROOT, load
from workflow_runs import Run, act, checkout, repository_of

FIXTURES = ROOT / "tests" / "fixtures"
CALLER = """\
name: caller
on: [push]
permissions: {}
jobs:
  quantization:
    permissions: {contents: read}
    uses: org/quant-verify/.github/workflows/fan-out.yml@v1
    with: %s
    secrets: {HF_TOKEN: "${{ secrets.HF_TOKEN }}"}
"""
GPTQ = {"gptq": f"{FIXTURES}/checkpoints/gptq/w4-g64-sym"}
MOE = {"gptq": f"{FIXTURES}/checkpoints/gptq/moe"}
HEALTHY = {"name": "llama", "baseline": f"{FIXTURES}/baselines/llama", "checkpoints": GPTQ}
OTHER = {"name": "moe", "baseline": f"{FIXTURES}/baselines/moe", "checkpoints": MOE}
NOTHING = {"name": "empty", "checkpoints": MOE, "select": ["weights.error"]}  # without a baseline, so a skip


def failing(model: dict[str, Any]) -> dict[str, Any]:
    """With a limit that no rounding can reach."""
    return {**model, "limits": {"weights.error.R": {"fail": 0.01}}}


@pytest.fixture
def action(tmp_path: Path) -> Path:
    return checkout(tmp_path / "action")


def fan_out(tmp_path: Path, models: list[Any], *, killed: str = "", **inputs: Any) -> Run:
    """Run it over these models; ``killed`` is part of the cells whose job dies before it has written anything."""
    matrix = {"version": 1, "defaults": {"depth": "static"}, "models": models, **inputs.pop("more", {})}
    files = {
        "quant-verify.yml": json.dumps(matrix, indent=1),
        ".github/workflows/caller.yml": CALLER % json.dumps(inputs),
    }
    repository = repository_of(tmp_path / "repository", files)
    words = ["--secret", "HF_TOKEN=hf_of_the_caller"]
    return act(repository, tmp_path, *words, action=tmp_path / "action", KILLED=killed)


def outcomes(run: Run) -> dict[str, str]:
    return {cell["id"]: cell["outcome"] for cell in run.report("quant-verify-report")["cells"]}


@pytest.mark.usefixtures("action")
def test_all_pass(tmp_path: Path):
    run = fan_out(tmp_path, [HEALTHY, OTHER])
    assert run.code == 0, run.all
    names = ("plan", "verify (llama)", "verify (moe)", "merge", "verdict")
    assert run.results == dict.fromkeys(names, "success")
    assert outcomes(run) == {"llama/gptq": "pass", "moe/gptq": "pass"}
    kept = {"quant-verify-job-llama", "quant-verify-job-moe", "quant-verify-report"}
    assert {path.name for path in run.artifacts.iterdir()} == kept
    assert run.report("quant-verify-report")["shard"] is None
    seen = (tmp_path / "seen").read_text().splitlines()
    assert sorted(seen) == ["merge without a token", "plan without a token", *["run with a token"] * 2]
    assert "hf_of_the_caller" not in run.all


@pytest.mark.usefixtures("action")
def test_one_cell_fails(tmp_path: Path):
    run = fan_out(tmp_path, [HEALTHY, failing(OTHER)])
    assert run.code == 1, run.all
    assert run.results == {
        "plan": "success",
        "verify (llama)": "success",
        "verify (moe)": "failure",
        "merge": "failure",
        "verdict": "failure",
    }
    assert outcomes(run) == {"llama/gptq": "pass", "moe/gptq": "fail"}
    assert run.report("quant-verify-report")["exit_code"] == 1
    assert "Not passed: failed (jobs: failure, merge: failure)." in run.log["verdict"]
    annotated = {job for job, text in run.log.items() if "::error file=quant-verify.yml" in text}
    assert annotated == {"merge"}


@pytest.mark.usefixtures("action")
def test_a_job_dies_without_a_report(tmp_path: Path):
    run = fan_out(tmp_path, [HEALTHY, OTHER], killed="moe/")
    assert run.code == 1, run.all
    assert run.results["verify (llama)"] == "success"
    assert {run.results[name] for name in ("verify (moe)", "merge", "verdict")} == {"failure"}
    assert outcomes(run) == {"llama/gptq": "pass", "moe/gptq": "error"}
    report = run.report("quant-verify-report")
    assert report["exit_code"] == 3
    lost = report["cells"][1]["checks"]
    assert {check["error"]["message"] for check in lost} == {"its job left no report"}
    assert "Not passed: unverified" in run.log["verdict"]


@pytest.mark.usefixtures("action")
def test_every_job_dies(tmp_path: Path):
    run = fan_out(tmp_path, [HEALTHY, OTHER], killed="/")
    assert run.code == 1, run.all
    assert run.results["verdict"] == "failure"
    assert outcomes(run) == {"llama/gptq": "error", "moe/gptq": "error"}
    assert "Not passed: unverified" in run.log["verdict"]


@pytest.mark.usefixtures("action")
def test_a_matrix_without_cells_is_not_green(tmp_path: Path):
    run = fan_out(tmp_path, [HEALTHY], more={"exclude": ["*"]})
    assert run.code == 1, run.all
    assert run.results == {"plan": "success", "verdict": "failure"}
    assert "Nothing was checked: the matrix has no cells." in run.log["verdict"]


@pytest.mark.usefixtures("action")
def test_a_matrix_with_a_mistake_is_not_green(tmp_path: Path):
    run = fan_out(tmp_path, [{**HEALTHY, "baselien": "x"}])
    assert run.code == 1, run.all
    assert run.results == {"plan": "failure", "verdict": "failure"}
    assert "Not verified: the matrix could not be divided into jobs" in run.log["verdict"]
    assert "did you mean 'baseline'?" in run.log["plan"]


@pytest.mark.usefixtures("action")
def test_a_job_that_had_nothing_to_check_does_not_spoil_the_others(tmp_path: Path):
    run = fan_out(tmp_path, [NOTHING, OTHER])
    assert run.code == 0, run.all
    assert outcomes(run) == {"empty/gptq": "skip", "moe/gptq": "pass"}
    assert run.results["verdict"] == "success"


@pytest.mark.usefixtures("action")
def test_nothing_but_skips_is_not_green(tmp_path: Path):
    run = fan_out(tmp_path, [NOTHING])
    assert run.results["verdict"] == "failure", run.all
    assert "Not passed: nothing-checked" in run.log["verdict"]


@pytest.mark.usefixtures("action")
def test_the_inputs_reach_their_jobs(tmp_path: Path):
    inputs = {
        "max-jobs": 1,
        "args": "--select config.method --select 'config.k*'",
        "artifact": "nightly",
        "runs-on": '["self-hosted", "gpu"]',
    }
    run = fan_out(tmp_path, [HEALTHY, OTHER], **inputs)
    assert run.code == 0, run.all
    assert {*run.results} == {"plan", "verify (llama-and-1-more)", "merge", "verdict"}
    assert {path.name for path in run.artifacts.iterdir()} == {"nightly-job-llama-and-1-more", "nightly-report"}
    checks = {check["id"] for cell in run.report("nightly-report")["cells"] for check in cell["checks"]}
    assert checks == {"config.keys", "config.method"}


RESULTS = ("success", "failure", "cancelled", "skipped")


@pytest.mark.parametrize("jobs", RESULTS)
@pytest.mark.parametrize("plan", RESULTS)
def test_the_verdict_is_green_in_one_case_only(plan: str, jobs: str, tmp_path: Path):
    """Also where a job was cancelled or outran its time, which act cannot show."""
    [step] = load(ROOT / ".github/workflows/fan-out.yml")["jobs"]["verdict"]["steps"]
    merged = (("passed", "0"), ("failed", "1"), ("unverified", "3"), ("", ""), ("failed", "0"))
    for empty, merge, (verdict, code) in product(("false", "true", ""), RESULTS, merged):
        variables = {"PLAN": plan, "EMPTY": empty, "JOBS": jobs, "MERGE": merge, "VERDICT": verdict, "EXIT_CODE": code}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            env={"PATH": "/usr/bin:/bin", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"), **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        good = (plan, empty, jobs, merge, verdict) == ("success", "false", "success", "success", "passed")
        assert (done.returncode == 0) == good, variables
        assert done.stdout.count("\n") == 1
        assert not done.stderr
