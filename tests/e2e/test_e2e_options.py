"""Options and their environment variables: what each does, and which of two wins."""

from __future__ import annotations

import json
import shutil

import pytest
from command_line import LOAD, STATIC, Done, check_reports, errors, quant_verify, read_report
from models import damage

CELLS = {"a/nf4": STATIC, "a/int8": STATIC, "b/nf4": STATIC}
MATRIX = """\
    defaults: {depth: static}
    models:
      - {name: a, checkpoints: {nf4: ./models/nf4, int8: ./models/int8}}
      - {name: b, checkpoints: {nf4: ./models/nf4}}
    """


def ids(done: Done) -> dict[str, list[str]]:
    """Checks by cell, from ``--format json``."""
    return {cell["id"]: [check["id"] for check in cell["checks"]] for cell in json.loads(done.out)["cells"]}


def check(work, *arguments, **extra):
    return quant_verify("check", "./models/nf4", "--format", "json", *arguments, cwd=work, **extra)


def test_select_and_ignore_take_globs_and_comma_lists(work):
    chosen = ids(check(work, "--select", "config.*,weights.scales", "--select", "layers.tied", "--ignore", "*.keys"))
    assert set(chosen["nf4"]) == {
        "config.present", "config.method", "config.roundtrip", "config.truthful", "weights.scales", "layers.tied",
    }  # fmt: skip


def test_only_and_shard_choose_cells(work, matrix):
    matrix(MATRIX)
    assert list(ids(quant_verify("run", "--format", "json", "--only", "*/nf4", cwd=work))) == ["a/nf4", "b/nf4"]
    halves = [ids(quant_verify("run", "--format", "json", "--shard", f"{i}/2", cwd=work)) for i in (1, 2)]
    assert sorted([*halves[0], *halves[1]]) == sorted(CELLS)


def test_the_command_line_beats_the_environment_and_that_the_matrix(work, matrix):
    matrix(MATRIX.replace("depth: static", "depth: static, select: [config.*]"))

    def first(*arguments, **extra):
        done = quant_verify("run", "--only", "b/*", "--format", "json", *arguments, cwd=work, **extra)
        return {name.partition(".")[0] for name in ids(done)["b/nf4"]}

    assert first() == {"config"}
    assert first(QUANT_VERIFY_SELECT="") == {"config"}
    assert first(QUANT_VERIFY_SELECT="layers.*") == {"layers"}
    assert first("--select", "dtypes.*", QUANT_VERIFY_SELECT="layers.*") == {"dtypes"}


def test_every_option_has_a_variable_and_an_empty_one_is_none(work):
    names = (
        "DEPTH SELECT IGNORE ONLY SHARD DEVICE JOBS TIMEOUT OFFLINE TRUST_REMOTE_CODE WEIGHTS REQUIRE_PINNED "
        "REPORT_DIR FAIL_ON ANNOTATIONS FORMAT QUIET VERBOSE BASELINE MATRIX"
    )
    empty = {f"QUANT_VERIFY_{name}": "" for name in names.split()}
    plain, same = (quant_verify("check", "./models/nf4", cwd=work, **extra) for extra in ({}, empty))
    assert plain.code == same.code == 0
    assert same.out.splitlines()[-1] == plain.out.splitlines()[-1]
    shown = quant_verify("check", "--help", cwd=work).out
    assert all(f"QUANT_VERIFY_{name}" in "".join(shown.split()) for name in names.split()[:-1])


def test_the_variables_do_what_the_options_do(work):
    done = quant_verify(
        "check", "./models/nf4", "./models/int8", cwd=work,
        QUANT_VERIFY_ONLY="nf4", QUANT_VERIFY_IGNORE="weights.* layers.*", QUANT_VERIFY_REPORT_DIR="from-env",
        QUANT_VERIFY_FORMAT="json", QUANT_VERIFY_QUIET="1", QUANT_VERIFY_WEIGHTS="off", QUANT_VERIFY_OFFLINE="true",
        QUANT_VERIFY_JOBS="2", QUANT_VERIFY_TIMEOUT="60", QUANT_VERIFY_DEVICE="cpu", QUANT_VERIFY_FAIL_ON="warn",
        QUANT_VERIFY_DEPTH="static", QUANT_VERIFY_SHARD="1/1", QUANT_VERIFY_ANNOTATIONS="never",
    )  # fmt: skip
    assert done.code == 0, done
    assert done.err == ""
    assert not [name for name in ids(done)["nf4"] if name.startswith(("weights", "layers"))]
    assert read_report(work / "from-env")["shard"] == "1/1"


@pytest.mark.parametrize(("variable", "value"), [("DEPTH", "deep"), ("SHARD", "0/1"), ("JOBS", "x"), ("TIMEOUT", "-1")])
def test_a_bad_variable_is_wrong_usage(work, variable, value):
    done = quant_verify("check", "./models/nf4", cwd=work, **{f"QUANT_VERIFY_{variable}": value})
    assert done.code == 2, done
    assert variable.lower() in done.err.lower()


def test_the_matrix_may_be_named_by_its_variable(work, matrix):
    matrix(MATRIX).rename(work / "other.yml")
    assert quant_verify("plan", cwd=work, QUANT_VERIFY_MATRIX="other.yml").code == 0


def test_a_device_that_is_not_there_is_not_verified(work):
    done = quant_verify("check", "./models/nf4", "--depth", "load", "--device", "cuda", "--report-dir", "out", cwd=work,
                        CUDA_VISIBLE_DEVICES="")  # fmt: skip
    assert done.code == 3, done
    without = errors(check_reports(work / "out", {"nf4": LOAD}), "nf4")
    assert {error["kind"] for error in without.values()} == {"not-run"}
    assert "device cuda was asked for, but torch sees no GPU; run quant-verify doctor" in done.out
    assert "weights.scales" not in without, "what needs no device is judged all the same"


def test_weights_off_skips_what_reads_them(work):
    done = json.loads(check(work, "--weights", "off", "--baseline", "./models/dense").out)
    skipped = {item["id"]: item["skip_reason"] for item in done["cells"][0]["checks"] if item["outcome"] == "skip"}
    assert {"weights.scales", "weights.codes", "weights.error"} <= set(skipped)
    assert skipped["weights.error"] == "weights: off keeps the numbers from being read"


def test_weights_sampled_reads_fewer_and_judges(work):
    done = json.loads(check(work, "--weights", "sampled", "--baseline", "./models/dense").out)
    assert done["totals"]["pass"] == 1


def test_reports_are_written_only_where_they_are_wanted(work):
    before = set(work.iterdir())
    quant_verify("check", "./models/nf4", cwd=work)
    assert set(work.iterdir()) == before
    quant_verify("check", "./models/nf4", "--report-dir", "deep/er", cwd=work)
    names = {file.name for file in (work / "deep/er").iterdir()}
    assert names >= {"report.json", "junit.xml", "summary.md", "report.html"}
    assert not [name for name in names if name.startswith(".")]


def test_run_writes_reports_without_being_told(work, matrix):
    matrix(MATRIX)
    assert quant_verify("run", cwd=work).code == 0
    check_reports(work / "quant-verify-report", CELLS)


def test_fail_on_warn_makes_a_warning_fail(work, zoo, tmp_path):
    with damage(zoo.quantized("llama", "nf4-double"), tmp_path / "warns") as damaged:
        damaged.quantization["llm_int8_skip_modules"] = ["no.such.module", "lm_head"]
    assert quant_verify("check", "./warns", cwd=work).code == 0
    assert quant_verify("check", "./warns", "--fail-on", "warn", cwd=work).code == 1


def test_quiet_has_no_progress_and_verbose_shows_the_passes(work):
    loud = quant_verify("check", "./models/nf4", cwd=work)
    quiet = quant_verify("check", "./models/nf4", "--quiet", cwd=work)
    verbose = quant_verify("check", "./models/nf4", "--verbose", cwd=work)
    assert "config.keys" in loud.err
    assert "config.keys" not in loud.out
    assert quiet.err == ""
    assert quiet.out
    assert "config.keys" in verbose.out


def test_annotations_come_when_a_workflow_asks_or_the_option_does(work):
    def commands(*arguments, **extra):
        return quant_verify("check", "./models/dense", "--quiet", *arguments, cwd=work, **extra).commands

    assert commands() == []
    assert len(commands(GITHUB_ACTIONS="true")) == 1
    assert commands("--annotations", "never", GITHUB_ACTIONS="true") == []
    assert len(commands("--annotations", "always")) == 1
    assert commands("--shard", "1/1", GITHUB_ACTIONS="true") == [], "a shard leaves them to merge"


def test_a_checkpoint_named_twice_is_judged_once(work):
    assert list(ids(check(work, "./models/nf4"))) == ["nf4"]


def test_globs_find_checkpoints(work):
    done = quant_verify("check", "./models/*", "--format", "json", cwd=work)
    assert list(ids(done)) == ["dense", "int8", "nf4"]


def test_baseline_auto_reads_the_model_card(work, zoo, tmp_path):
    shutil.copytree(zoo.quantized("llama", "nf4-double"), tmp_path / "carded")
    nothing = quant_verify("check", "./carded", "--baseline", "auto", cwd=work)
    assert nothing.code == 2
    assert "README.md does not exist; name the baseline" in nothing.err
    (tmp_path / "carded/README.md").write_text(f"---\nbase_model: {work}/models/dense\n---\n")
    done = quant_verify("check", "./carded", "--baseline", "auto", "--format", "json", cwd=work)
    assert done.code == 0, done
    assert json.loads(done.out)["cells"][0]["baseline"]["ref"] == f"{work}/models/dense"
