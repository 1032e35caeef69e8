"""``compare`` as a process: real reports in, exit codes and every form of output out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ENTRY, environment, quant_verify
from models import damage

LAYER = "model.layers.1.mlp.down_proj"
HOSTILE = "x\n::error::pwned ##[error]pwned | `<b>` \x1b[31m"


@pytest.fixture(scope="module")
def reports(zoo, tmp_path_factory):
    """Reports of a healthy model, made by older versions, and of one with the halves of a layer's bytes swapped."""
    folder = tmp_path_factory.mktemp("reports")
    for name in ("healthy", "damaged"):
        (folder / name).mkdir()
        (folder / name / "base").symlink_to(zoo.baseline("llama"))
        (folder / name / "int8").symlink_to(zoo.quantized("llama", "int8"))
    (folder / "healthy/nf4").symlink_to(zoo.quantized("llama", "nf4-double"))
    with damage(zoo.quantized("llama", "nf4-double"), folder / "damaged/nf4") as damaged:
        codes = damaged.u8(f"{LAYER}.weight")
        codes[:] = codes >> 4 | codes << 4
    for name in ("healthy", "damaged"):
        arguments = ("check", "./nf4", "./int8", "--baseline", "./base", "--report-dir", "..")
        quant_verify(*arguments, cwd=folder / name)
        (folder / "report.json").rename(folder / f"{name}.json")
    older = json.loads((folder / "healthy.json").read_text())
    older["environment"]["packages"]["bitsandbytes"] = "0.49.2"
    older["tool"]["version"] = "0.0.9"
    (folder / "healthy.json").write_text(json.dumps(older))
    return folder


def compare(reports, old, new, *arguments, **extra):
    return quant_verify("compare", f"{old}.json", f"{new}.json", *arguments, cwd=reports, **extra)


def test_worse_is_exit_code_1_and_names_the_layer(reports):
    done = compare(reports, "healthy", "damaged")
    assert done.code == 1, done
    first, _, rest = done.out.partition("\n")
    assert first.startswith("1 cell worse, 1 unchanged; quant-verify 0.0.9 → ")
    assert "bitsandbytes 0.49.2 → " in first
    assert "nf4  WORSE  pass → fail\n  worse    weights.error  pass → fail\n" in rest
    assert f"new: {LAYER}" in rest
    assert "unchanged: int8\n" in rest
    assert done.out.endswith("Exit code 1: something got worse.\n")
    assert done.err == ""


@pytest.mark.parametrize("old", ["healthy", "damaged"])
def test_the_same_or_better_is_exit_code_0(reports, old):
    done = compare(reports, old, "healthy")
    assert done.code == 0, done
    assert done.out.endswith("Exit code 0: nothing got worse.\n")


def test_no_cell_in_common_is_exit_code_4(reports, tmp_path):
    report = json.loads((reports / "healthy.json").read_text())
    report["planned"] = ["other"]
    report["cells"] = [{**report["cells"][0], "id": "other"}]
    report["totals"] |= {"cells": 1, "pass": 1}
    (tmp_path / "other.json").write_text(json.dumps(report))
    done = compare(reports, tmp_path / "other", "healthy")
    assert done.code == 4, done
    assert "nothing was compared" in done.out


@pytest.mark.parametrize("broken", ["", "[]", '{"schema": "quant-verify/comparison/1"}', "\x00", None])
@pytest.mark.parametrize("first", [True, False], ids=["as the old one", "as the new one"])
def test_what_is_no_report_is_exit_code_2(reports, tmp_path, broken, first):
    if broken is not None:
        (tmp_path / "some.json").write_text(broken)
    pair = (tmp_path / "some", "healthy") if first else ("healthy", tmp_path / "some")
    done = compare(reports, *pair)
    assert (done.code, done.out) == (2, ""), done
    assert "some.json" in done.err


def test_one_report_alone_is_exit_code_2(reports):
    done = quant_verify("compare", "healthy.json", cwd=reports)
    assert done.code == 2
    assert "NEW.json" in done.err


def test_json_and_markdown_say_the_same(reports):
    read = json.loads(compare(reports, "healthy", "damaged", "--format", "json").out)
    assert (read["schema"], read["exit_code"]) == ("quant-verify/comparison/1", 1)
    assert [(cell["id"], cell["status"]) for cell in read["cells"]] == [("nf4", "worse"), ("int8", "unchanged")]
    (moved,) = (item for item in read["cells"][0]["figures"] if item["id"] == "weights.R")
    assert (moved["where"], moved["direction"]) == (LAYER, "worse")
    markdown = compare(reports, "healthy", "damaged", QUANT_VERIFY_FORMAT="markdown")
    assert markdown.code == 1
    assert markdown.out.startswith("## ❌ quant-verify compare: something got worse\n")
    assert f"{LAYER} is" in markdown.out


@pytest.mark.parametrize("form", ["text", "markdown", "json"])
def test_a_stream_of_few_characters_or_without_room(reports, form):
    done = compare(reports, "healthy", "healthy", "--format", form, PYTHONIOENCODING="ascii")
    assert done.code == 0, done
    with Path("/dev/full").open("w") as full:
        lost = subprocess.run(
            [sys.executable, str(ENTRY), "compare", "healthy.json", "healthy.json", "--format", form],
            check=False, cwd=reports, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert lost.returncode == 3
    assert lost.stderr.startswith("quant-verify: cannot write the comparison to stdout: ")


def test_the_step_summary_is_written_in_a_workflow_only(reports, tmp_path):
    target = tmp_path / "step.md"
    target.write_text("before\n")
    extra = {"GITHUB_STEP_SUMMARY": str(target)}
    compare(reports, "healthy", "damaged", **extra)
    compare(reports, "healthy", "damaged", "--annotations", "never", GITHUB_ACTIONS="true", **extra)
    assert target.read_text() == "before\n"
    compare(reports, "healthy", "damaged", "--format", "json", GITHUB_ACTIONS="true", **extra)
    text = target.read_text(encoding="utf-8")
    assert text.startswith("before\n## ❌ quant-verify compare")
    compare(reports, "healthy", "healthy", "--annotations", "always", **extra)
    assert target.read_text(encoding="utf-8").startswith(f"{text}## ✅ quant-verify compare")


def test_a_step_summary_that_cannot_be_written_is_no_success(reports):
    extra = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": "absent/step.md"}
    done = compare(reports, "healthy", "healthy", **extra)
    assert done.code == 3, done
    assert "cannot write the step summary" in done.err
    assert compare(reports, "healthy", "damaged", **extra).code == 1


def test_warnings_count_with_fail_on_warn(reports, tmp_path):
    report = json.loads((reports / "healthy.json").read_text())
    finding = {"severity": "warn", "message": "odd", "where": "", "observed": 1, "limit": 0, "unit": "", "hint": ""}
    check = report["cells"][0]["checks"][0]
    check |= {"outcome": "warn", "findings": [{**finding, "waived": None}]}
    report["cells"][0]["outcome"] = "warn"
    report["totals"] |= {"pass": 1, "warn": 1}
    (tmp_path / "warned.json").write_text(json.dumps(report))
    assert compare(reports, "healthy", tmp_path / "warned").code == 0
    assert compare(reports, "healthy", tmp_path / "warned", "--fail-on", "warn").code == 1
    assert compare(reports, "healthy", tmp_path / "warned", QUANT_VERIFY_FAIL_ON="warn").code == 1


@pytest.mark.parametrize("form", ["text", "markdown", "json"])
def test_no_foreign_command_reaches_the_streams(reports, tmp_path, form):
    report = json.loads(
        (reports / "damaged.json").read_text().replace(LAYER, "LAYER").replace("bitsandbytes", "PACKAGE")
    )
    text = json.dumps(report).replace('"nf4"', "NAME").replace("LAYER", json.dumps(HOSTILE)[1:-1].replace("\\n", " "))
    text = text.replace("NAME", json.dumps(HOSTILE)).replace("PACKAGE", json.dumps(HOSTILE)[1:-1])
    for name, version in (("old", "1"), ("new", "2")):
        hostile = json.loads(text)
        hostile["environment"]["packages"]["x"] = f"{HOSTILE}{version}"
        hostile["cells"][0]["measurements"]["texts"] = [{"prompt": HOSTILE, "text": f"{HOSTILE}{version}"}]
        if name == "old":
            hostile["cells"][0]["checks"] = []
            hostile["cells"][0]["outcome"] = "skip"
            hostile["totals"] |= {"fail": 0, "skip": 1}
            hostile["exit_code"] = 0
        (tmp_path / f"{name}.json").write_text(json.dumps(hostile))
    done = compare(reports, tmp_path / "old", tmp_path / "new", "--format", form, COLUMNS="80")
    assert done.code == 1, done
    assert done.commands == []
    assert "pwned" in done.out
    assert "\x1b" not in done.out + done.err
    if form == "json":
        assert json.loads(done.out)["cells"][0]["id"] == HOSTILE
