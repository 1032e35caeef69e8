"""The commands other than run and check."""

from __future__ import annotations

import json
import shutil

import pytest
from command_line import STATIC, Done, check_reports, quant_verify

from checker.registry import all_checks, all_methods

MATRIX = """\
    defaults: {depth: static}
    models:
      - {name: a, baseline: ./models/dense, checkpoints: {nf4: ./models/nf4, int8: ./models/int8}}
      - {name: b, checkpoints: {dense: ./models/dense}}
      - {name: c, checkpoints: {nf4: ./models/nf4}}
    """


def timeless(value):
    """Without what differs between two runs of the same."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key != "seconds"}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def test_merge_over_shards_equals_the_undivided_run(work, matrix):
    matrix(MATRIX)
    whole = quant_verify("run", "--report-dir", "whole", cwd=work)
    for index in (1, 2, 3):
        quant_verify("run", "--shard", f"{index}/3", "--report-dir", f"part{index}", cwd=work)
    parts = [f"part{index}/report.json" for index in (3, 1, 2)]
    merged = quant_verify("merge", *parts, "--report-dir", "merged", cwd=work)
    assert merged.code == whole.code == 1
    cells = {"a/nf4": STATIC, "a/int8": STATIC, "b/dense": STATIC, "c/nf4": STATIC}
    reports = [check_reports(work / name, cells) for name in ("whole", "merged")]
    assert timeless(reports[0]) == timeless(reports[1])


def test_merge_misses_a_shard(work, matrix):
    matrix(MATRIX)
    quant_verify("run", "--shard", "1/2", "--report-dir", "part", cwd=work)
    done = quant_verify("merge", "part/report.json", cwd=work)
    assert done.code == 2
    assert "planned, but in no report" in done.err


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema": "other/1"}', "\x00", '{"schema": "quant-verify/report/1"}']
)
def test_merge_refuses_what_is_no_report(work, content):
    (work / "some.json").write_text(content)
    done = quant_verify("merge", "some.json", cwd=work)
    assert done.code == 2, done
    assert "some.json" in done.err


def test_reports_of_an_earlier_run_do_not_outlive_a_mistake(work, matrix):
    matrix("defaults: {depth: static}\nmodels: [{name: c, checkpoints: {nf4: ./models/nf4}}]\n")
    assert quant_verify("run", "--report-dir", "out", cwd=work).code == 0
    (work / "out" / "mine.txt").touch()
    assert quant_verify("run", "--only", "absent/*", "--report-dir", "out", cwd=work).code == 2
    assert [path.name for path in (work / "out").iterdir()] == ["mine.txt"]


def test_merge_takes_the_folder_of_a_report(work, matrix):
    matrix(MATRIX)
    assert quant_verify("run", "--report-dir", "out", cwd=work).code == 1
    merged = quant_verify("merge", "out", "--report-dir", "merged", cwd=work)
    assert merged.code == 1
    assert quant_verify("compare", "out", "merged", cwd=work).code == 0


def test_merge_writes_annotations_for_the_shards(work, matrix):
    matrix(MATRIX)
    for index in (1, 2):
        quant_verify("run", "--shard", f"{index}/2", "--report-dir", f"part{index}", cwd=work)
    done = quant_verify("merge", "part1/report.json", "part2/report.json", cwd=work, GITHUB_ACTIONS="true")
    assert [line[:45] for line in done.commands] == ["::error file=quant-verify.yml,line=5,title=b/"]


def test_plan_is_one_line_of_json_and_opens_no_checkpoint(work, matrix):
    matrix("""\
        models:
          - {name: a, checkpoints: {x: ./absent}}
          - {name: b, baseline: org/model, checkpoints: {z: org/other@v1}}
        overrides: [{cells: "b/*", gpus: 2, runs-on: [self-hosted, gpu]}]
        """)
    done = quant_verify("plan", cwd=work)
    assert done.code == 0, done
    assert done.out.count("\n") == 1
    jobs = json.loads(done.out)["include"]
    assert [(job["cells"], job["runs-on"], job["gpus"]) for job in jobs] == [
        ("a/x", "ubuntu-latest", 1),
        ("b/z", ["self-hosted", "gpu"], 2),
    ]
    assert len(json.loads(quant_verify("plan", "--only", "a/*", cwd=work).out)["include"]) == 1
    assert quant_verify("plan", "--max-jobs", "1", cwd=work).code == 2
    assert quant_verify("plan", "--max-jobs", "257", cwd=work).code == 2


def test_explain_knows_every_check(work):
    listed = quant_verify("explain", cwd=work)
    assert listed.code == 0
    assert all(item.id in listed.out for item in all_checks())
    one = quant_verify("explain", "weights.error", cwd=work)
    assert "weights.error.R" in one.out
    assert "Default limits" in one.out


def test_methods_knows_every_method(work):
    listed = quant_verify("methods", cwd=work)
    assert all(item.id in listed.out for item in all_methods())
    assert "bnb_4bit_quant_type" in quant_verify("methods", "bitsandbytes-4bit", cwd=work).out


def test_estimate_agrees_with_itself_in_both_formats(work):
    done = quant_verify("estimate", "./models/dense", "--format", "json", cwd=work)
    assert done.code == 0, done
    answer = json.loads(done.out)
    shown = quant_verify("estimate", "./models/dense/config.json", cwd=work)
    assert f"{answer['footprint']:,}" in shown.out
    assert all(row["ratio"] > 1 for row in answer["quantizations"].values())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--quantization", "{"], "--quantization is no JSON"),
        (["--quantization", "[]"], "--quantization must be an object"),
        (["--quantization", '{"quant_method": "gptq9"}'], "is no known method"),
        (
            ["--quantization", '{"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant": 1}'],
            "is no key",
        ),
        (["--dtype", "int8"], "--dtype"),
    ],
)
def test_estimate_refuses(work, arguments, says):
    done = quant_verify("estimate", "./models/dense", *arguments, cwd=work)
    assert done.code == 2, done
    assert says in done.err


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"model_type": "llama"}', "[" * 100_000])
def test_estimate_refuses_what_is_no_config(work, text):
    (work / "config.json").write_text(text)
    done = quant_verify("estimate", "config.json", cwd=work)
    assert done.code == 2, done
    assert "config.json" in done.err
    assert done.err.count("\n") == 1


def test_doctor_calls_real_kernels(work):
    done = quant_verify("doctor", "--device", "cpu", cwd=work)
    assert done.code == 0, done
    assert done.out.count(" works: ") == 3
    absent = quant_verify("doctor", "--device", "cuda", cwd=work, CUDA_VISIBLE_DEVICES="")
    assert absent.code == 3
    assert "do not work: device cuda was asked for, but torch sees no GPU" in absent.out


def test_init_writes_a_matrix_that_plan_reads(work):
    done = quant_verify("init", cwd=work)
    assert done.code == 0, done
    planned = quant_verify("plan", cwd=work)
    assert planned.code == 0, planned
    assert (work / ".github/workflows/quant-verify.yml").is_file()
    again = quant_verify("init", cwd=work)
    assert again.code == 2
    assert "--force writes over it" in again.err
    assert quant_verify("init", "--force", cwd=work).code == 0


def test_version_and_help(work):
    assert quant_verify("--version", cwd=work).out.startswith("quant-verify, version ")
    for command in ("run", "check", "plan", "merge", "estimate", "explain", "methods", "doctor", "init", "demo"):
        done: Done = quant_verify(command, "--help", cwd=work)
        assert done.code == 0
        assert "Usage:" in done.out


def test_init_in_a_folder_that_cannot_be_written_is_one_sentence(work):
    shutil.rmtree(work / ".github", ignore_errors=True)
    (work / ".github").write_text("a file where a folder must be")
    done = quant_verify("init", cwd=work)
    assert done.code == 2, done
    assert done.err.count("\n") == 1
    assert ".github" in done.err
