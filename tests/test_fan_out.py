"""Merged is undivided: whatever way a matrix is divided among jobs, their reports joined are those of one run."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import STATIC, Done, check_reports, errors, quant_verify, read_report
from hypothesis import given, settings
from hypothesis import strategies as st

from checker.domain import CellResult, CheckError, CheckResult, ErrorKind, ExitCode, ModelRef, Outcome, RunResult
from checker.errors import UsageError
from checker.matrix.jobs import plan
from checker.matrix.select import only, shard
from checker.reporters import github, html, json_v1, junit, summary
from checker.reporters.json_v1 import read_report as parse_report
from checker.reporters.merge import Planned, merge

sys.path.append(str(Path(__file__).parent / "reporters"))

from reporters_any_run import cell_results, patiently, runs

DIVISIONS = (1, 2, 3, 7)  # jobs; there are fewer cells than seven in most runs
NO_REPORT = CheckError(kind=ErrorKind.NOT_RUN, message="its job left no report")
FIXTURES = Path(__file__).parent / "fixtures"


@st.composite
def whole_runs(draw: st.DrawFn, least: int = 0) -> RunResult:
    """A run of any results, in cells as a matrix has them: with models, baselines, machines."""
    run = draw(runs)
    cells = []
    for number, result in enumerate([*run.cells, *draw(st.lists(cell_results(), min_size=least, max_size=4))]):
        model = draw(st.sampled_from("abc"))
        machine = draw(st.sampled_from([{}, {}, {"gpus": 2}]))
        baseline = ModelRef(kind="hub", name=f"org/{model}") if draw(st.booleans()) else None
        cell = replace(
            result.cell,
            id=f"{model}/q{number}",
            baseline=baseline,
            settings=replace(result.cell.settings, **machine),
        )
        cells.append(replace(result, cell=cell, baseline_revision=baseline and model * 40))
    ids = tuple(result.cell.id for result in cells)
    return replace(run, cells=tuple(cells), planned=ids, shard=None, matrix_sha256="a" * 64)


def matrix_of(run: RunResult) -> Planned:
    """What ``merge --matrix`` knows of the cells."""
    cells = tuple(
        CellResult(cell=cell.cell, checks=tuple(CheckResult(id=check.id, error=NO_REPORT) for check in cell.checks))
        for cell in run.cells
    )
    return Planned(path="another/spelling.yml", sha256="a" * 64, cells=cells)


def as_of(run: RunResult, matrix: Planned) -> RunResult:
    """The run; if nobody said where its matrix is, it is where merge found it."""
    return run if run.matrix_path is not None else replace(run, matrix_path=matrix.path)


def job_of(run: RunResult, names: tuple[str, ...]) -> RunResult:
    """What a job writes that runs some of the cells by name, as its report comes back from another machine."""
    cells = tuple(cell for cell in run.cells if cell.cell.id in names)
    return parse_report(json_v1.render(replace(run, cells=cells, planned=names)))


def jobs_of(run: RunResult, most: int, costs: dict[str, float]) -> list[RunResult]:
    cells = [result.cell for result in run.cells]
    entries = plan(cells, most, costs)["include"]
    chosen = [only(cells, entry["cells"].split(",")) for entry in entries]
    return [job_of(run, tuple(cell.id for cell in part)) for part in chosen]


def shards_of(run: RunResult, count: int) -> list[RunResult]:
    cells = [result.cell for result in run.cells]
    parts = []
    for index in range(1, count + 1):
        ids = {cell.id for cell in shard(cells, index, count)}
        part = replace(run, cells=tuple(cell for cell in run.cells if cell.cell.id in ids), shard=f"{index}/{count}")
        parts.append(parse_report(json_v1.render(part)))
    return parts


def assert_equal(merged: RunResult, whole: RunResult) -> None:
    """All that anybody reads: files, annotations, exit code."""
    assert merged.exit_code is whole.exit_code
    for reporter in (junit, summary, github, json_v1):
        assert reporter.render(merged) == reporter.render(whole)


@pytest.mark.parametrize("most", DIVISIONS)
@settings(patiently, max_examples=40)
@given(data=st.data())
def test_jobs_of_a_plan_merged_equal_the_undivided_run(most, data):
    run = data.draw(whole_runs(least=1))
    costs = data.draw(st.dictionaries(st.sampled_from(run.planned), st.floats(0.1, 1e4)))
    if most < len({cell.cell.settings.gpus for cell in run.cells}):
        with pytest.raises(UsageError, match="kinds of machines"):
            jobs_of(run, most, costs)
        return
    jobs = jobs_of(run, most, costs)
    assert 1 <= len(jobs) <= most
    order = data.draw(st.permutations(jobs))
    assert_equal(merge(order, matrix_of(run)), as_of(run, matrix_of(run)))


@pytest.mark.parametrize("count", DIVISIONS)
@settings(patiently, max_examples=40)
@given(data=st.data())
def test_shards_merged_equal_the_undivided_run(count, data):
    run = data.draw(whole_runs())
    order = data.draw(st.permutations(shards_of(run, count)))
    assert_equal(merge(order), run)
    assert_equal(merge(order, matrix_of(run)), as_of(run, matrix_of(run)))
    html.render(merge(order))


@settings(patiently, max_examples=40)
@given(run=whole_runs(least=1), data=st.data())
def test_a_job_without_a_report_costs_its_own_cells_and_no_other(run, data):
    jobs = jobs_of(run, 7, {})
    left = data.draw(st.lists(st.sampled_from(jobs), unique_by=id))
    merged = merge(left, matrix_of(run))
    kept = {cell_id for job in left for cell_id in job.planned}
    assert merged.planned == run.planned
    for before, after in zip(run.cells, merged.cells, strict=True):
        if before.cell.id in kept:
            assert json_v1.cell_dict(after) == json.loads(json.dumps(json_v1.plain(json_v1.cell_dict(before))))
        else:
            assert {check.id: check.error for check in after.checks} == {check.id: NO_REPORT for check in before.checks}
            assert after.outcome is (Outcome.ERROR if before.checks else Outcome.SKIP)
    junit.verify(junit.render(merged))
    lost = any(cell.checks for cell in run.cells if cell.cell.id not in kept)
    if lost and (not left or run.interrupted is None):
        failed = merge(left).exit_code is ExitCode.FAILED if left else False
        assert merged.exit_code is (ExitCode.FAILED if failed else ExitCode.UNVERIFIED)


# The same with the command line, on files.

MATRIX = """\
version: 1
defaults: {depth: static}
models:
  - {name: gpt2, baseline: ./baselines/gpt2, checkpoints: {gptq: ./checkpoints/gptq/gpt2}}
  - name: llama
    baseline: ./baselines/llama
    checkpoints: {gptq: ./checkpoints/gptq/w4-g64-sym, dense: ./baselines/llama, awq: ./checkpoints/awq/w4-g64-gemm}
  - {name: published, checkpoints: {fp8: ./checkpoints/fp8/block-128, dense: ./baselines/llama}}
overrides: [{cells: published/fp8, require: [weights.error]}]
waivers:
  - {cells: "[!p]*", check: config.present, reason: dense on purpose, until: 2999-12-31}
  - {cells: "*", check: weights.codes, reason: of no use, until: 2999-12-31}
references: ./references
"""
IDS = ("gpt2/gptq", "llama/gptq", "llama/dense", "llama/awq", "published/fp8", "published/dense")
CELLS = dict.fromkeys(IDS, STATIC)
UNUSED = "quant-verify: quant-verify.yml:12: the waiver of weights.codes on * covers nothing; remove it\n"
MERGE = ("merge", "--matrix", "quant-verify.yml", "--report-dir", "merged")


def timeless(folder: Path) -> dict[str, str]:
    """The reports without what differs between two runs of the same."""
    texts = {name: (folder / name).read_text() for name in ("junit.xml", "report.json", "summary.md")}
    texts["junit.xml"] = re.sub(r' time="[^"]*"', "", texts["junit.xml"])
    texts["report.json"] = re.sub(r'"seconds": [0-9.e-]+', "", texts["report.json"])
    texts["summary.md"] = timeless_summary(texts["summary.md"])
    return texts


def timeless_summary(text: str) -> str:
    return re.sub(r"\| [0-9.]+ (s|min) \|$", "|", text, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fan-out")
    for name in ("baselines", "checkpoints"):
        (folder / name).symlink_to(FIXTURES / name)
    (folder / "quant-verify.yml").write_text(MATRIX)
    return folder


@pytest.fixture(scope="module")
def whole(work: Path) -> Done:
    """One run of everything in a workflow, with its step summary in ``whole.md``."""
    step = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(work / "whole.md")}
    return quant_verify("run", "--report-dir", "whole", cwd=work, **step)


@pytest.fixture(scope="module")
def parts(work: Path) -> dict[str, Path]:
    """Reports of jobs by the cells they were given; each job is run once."""
    return {}


@pytest.fixture
def run_job(work: Path, parts: dict[str, Path]):
    """Run a job as the workflow does: named cells, no annotations; returns the report."""

    def run(cells: str) -> Path:
        if cells not in parts:
            folder = work / f"part{len(parts)}"
            step = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(work / "part.md")}
            done = quant_verify(
                "run", "--annotations", "never", "--report-dir", folder.name, cwd=work, QUANT_VERIFY_ONLY=cells, **step
            )
            assert done.code in (0, 1, 3), done
            assert done.commands == []
            assert not (work / "part.md").exists()
            assert "covers nothing" not in done.err, "a part cannot know"
            parts[cells] = folder / "report.json"
        return parts[cells]

    return run


def planned(work: Path, *arguments: str) -> list[str]:
    """The cells of each job."""
    done = quant_verify("plan", *arguments, cwd=work)
    assert done.code == 0, done
    return [job["cells"] for job in json.loads(done.out)["include"]]


@pytest.mark.parametrize("most", DIVISIONS)
def test_a_fan_out_equals_one_run(work: Path, whole: Done, run_job, most: int):
    jobs = planned(work, "--max-jobs", str(most))
    assert len(jobs) == min(most, 3), "one for each baseline, or published model"
    reports = sorted(run_job(cells) for cells in jobs)
    page = work / f"merged{most}.md"
    done = quant_verify(*MERGE, *reports, cwd=work, GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(page))
    assert done.code == whole.code == 1
    check_reports(work / "merged", CELLS)
    assert timeless(work / "merged") == timeless(work / "whole")
    assert timeless_summary(page.read_text()) == timeless_summary((work / "whole.md").read_text())
    assert done.commands == whole.commands
    assert len(done.commands) == 2, "one cell fails, one is not verified"
    assert done.err == UNUSED
    assert UNUSED in whole.err


def test_shards_are_silent_and_merged_equal_one_run(work: Path, whole: Done):
    page = work / "shard.md"
    step = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(page)}
    first = quant_verify("run", "--shard", "1/2", "--report-dir", "shard1", cwd=work, **step)
    assert (first.commands, page.exists()) == ([], False), "merge has them"
    always = {**step, "QUANT_VERIFY_ANNOTATIONS": "always"}
    second = quant_verify("run", "--shard", "2/2", "--report-dir", "shard2", cwd=work, **always)
    assert (len(second.commands), page.exists()) == (2, True), "unless they are asked for"
    assert "covers nothing" not in first.err + second.err
    page.unlink()
    done = quant_verify("merge", "shard2/report.json", "shard1/report.json", "--report-dir", "joined", cwd=work, **step)
    assert done.code == whole.code
    assert timeless(work / "joined") == timeless(work / "whole")
    assert timeless_summary(page.read_text()) == timeless_summary((work / "whole.md").read_text())
    assert done.commands == whole.commands


def test_a_job_that_left_no_report_is_not_verified(work: Path, run_job):
    report = run_job("gpt2/gptq")
    done = quant_verify(*MERGE, report, cwd=work, GITHUB_ACTIONS="true")
    assert done.code == 3, done
    read = check_reports(work / "merged", CELLS)
    assert read["totals"] == {"cells": 6, "pass": 1, "warn": 0, "fail": 0, "error": 5, "skip": 0}
    told = errors(read, "llama/awq")
    assert len(told) == STATIC
    assert {(error["kind"], error["message"]) for error in told.values()} == {("not-run", "its job left no report")}
    assert sum(command.startswith("::error file=quant-verify.yml,line=") for command in done.commands) == 5
    assert done.err == "", "nobody knows what the waivers would have covered"
    assert quant_verify("merge", report, cwd=work).code == 0, "the part by itself"


def test_no_report_at_all(work: Path):
    assert quant_verify(*MERGE, cwd=work).code == 3
    assert {*CELLS} == {cell["id"] for cell in read_report(work / "merged")["cells"]}
    done = quant_verify("merge", cwd=work)
    assert (done.code, "there is no report to merge" in done.err) == (2, True)


def test_merge_takes_what_plan_and_jobs_were_told(work: Path, run_job):
    report = run_job("gpt2/gptq")
    done = quant_verify(*MERGE, report, "--only", "gpt2/*,llama/gptq", "--select", "config.*", cwd=work)
    assert done.code == 3
    read = read_report(work / "merged")
    assert read["planned"] == ["gpt2/gptq", "llama/gptq"]
    assert {check["id"].partition(".")[0] for check in read["cells"][1]["checks"]} == {"config"}
    narrow = quant_verify(*MERGE, report, cwd=work, QUANT_VERIFY_ONLY="published/*")
    assert narrow.code == 2
    assert "planned by a report, but not a cell of quant-verify.yml: 'gpt2/gptq'; give merge the --only" in narrow.err


def test_the_matrix_of_a_variable_is_not_that_of_merge(work: Path, run_job):
    """It names what ``run`` runs, and merged reports may be of another, or of none."""
    report = run_job("gpt2/gptq")
    variables = {"QUANT_VERIFY_MATRIX": "quant-verify.yml", "QUANT_VERIFY_ONLY": "x", "QUANT_VERIFY_DEPTH": "full"}
    done = quant_verify("merge", report, "--report-dir", "alone", cwd=work, **variables)
    assert done.code == 0, done
    assert read_report(work / "alone")["planned"] == ["gpt2/gptq"]
    assert "QUANT_VERIFY_MATRIX" not in quant_verify("merge", "--help", cwd=work).out
    said = quant_verify("merge", report, "--only", "x", cwd=work)
    assert (said.code, "merge --only says what the jobs of a matrix were told; add --matrix" in said.err) == (2, True)


@pytest.mark.parametrize("change", ["\n", None], ids=["the matrix was edited", "there was none"])
def test_a_report_of_another_matrix_is_refused(work: Path, run_job, tmp_path: Path, change: str | None):
    other = work / "other.yml"
    other.write_text(MATRIX + (change or ""))
    report = run_job("gpt2/gptq")
    if change is None:
        shutil.copytree(report.parent, tmp_path / "part")
        report = tmp_path / "part/report.json"
        report.write_text(re.sub(r'"sha256": "\w+"', '"sha256": null', report.read_text()))
    done = quant_verify("merge", report, "--matrix", other.name, cwd=work)
    assert done.code == 2, done
    assert f"{report}: matrix.sha256: the report is " in done.err
    assert "so it cannot be joined with other.yml; name the file that its job ran" in done.err
    assert done.err.count("\n") == 1


def test_recorded_costs_balance_the_jobs(work: Path):
    path = work / "references/costs.json"
    path.parent.mkdir()
    seconds = {"gpt2/gptq": 100, "llama/gptq": 50, "published/fp8": 40}
    path.write_text(json.dumps({"schema": "quant-verify/costs/1", "seconds": seconds}))
    assert planned(work, "--only", "*gptq,published/*", "--max-jobs", "2") == [
        "llama/gptq,published/fp8,published/dense",
        "gpt2/gptq",
    ], "140 s, of which 50 for the cell of unknown cost, and 100 s"
    path.write_text("<<<<<<< HEAD")
    done = quant_verify("plan", cwd=work)
    assert done.code == 0
    assert done.err == (
        "quant-verify: the recorded costs in references/costs.json cannot be used: it is not JSON, or a key stands "
        "twice in it; the jobs are planned as if all cells took the same time; quant-verify record writes it anew\n"
    )
    assert json.loads(done.out)["include"][0]["job"] == "llama"
    shutil.rmtree(path.parent)


def test_plan_knows_the_time_limit_of_the_jobs(work: Path):
    done = quant_verify("plan", "--only", "gpt2/*", cwd=work, QUANT_VERIFY_TIMEOUT="600")
    assert [job["timeout-minutes"] for job in json.loads(done.out)["include"]] == [50]
