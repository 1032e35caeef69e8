"""What a checkpoint calls its tensors and folders never becomes a command of the workflow runner."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest
from command_line import STATIC, check_reports, quant_verify
from models import damage

HOSTILE = (
    "::error::pwned",
    "##[error]pwned",
    "a\n::error::pwned\r##[set-env name=X]y",
    "\x1b[31m::stop-commands::x",
    "  ::add-mask::e",
    "<script>&]]>\x00\ufffe",
    "\u2028::warning::x",
)


@pytest.fixture
def hostile(zoo, work):
    """A checkpoint some of whose tensors, modules to skip and config values are attacks."""
    with damage(zoo.quantized("llama", "nf4-double"), work / "bad") as damaged:
        weight = "model.layers.0.mlp.up_proj.weight"
        for number, name in enumerate(HOSTILE):
            damaged.put(name, "F32", [1], bytes(4))
            damaged.tensors[f"{name}{number}.weight"] = damaged.tensors[weight]
        del damaged.tensors[weight]
        damaged.quantization["llm_int8_skip_modules"] = list(HOSTILE)
        damaged.quantization["bnb_4bit_quant_type"] = HOSTILE[2]
        damaged.quantization[HOSTILE[1]] = 1
    return work / "bad"


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_foreign_command_reaches_the_streams(work, hostile, form):
    done = quant_verify("check", "./bad", "--verbose", "--format", form, "--report-dir", "out", cwd=work, COLUMNS="80")
    assert done.code == 1, done
    assert done.commands == []
    assert "pwned" in done.out
    assert "\x1b[31m" not in done.out + done.err
    report = check_reports(work / "out", {"bad": STATIC})
    ET.parse(work / "out/junit.xml")
    if form == "json":
        assert json.loads(done.out)["cells"][0]["checks"] == report["cells"][0]["checks"]


def test_our_own_annotations_are_the_only_commands(work, hostile):
    done = quant_verify("check", "./bad", cwd=work, GITHUB_ACTIONS="true", GITHUB_WORKSPACE=str(work))
    assert [line.partition("%")[0] for line in done.commands] == [
        "::error file=bad/config.json,line=1,title=bad",
        "::warning file=bad/config.json,line=1,title=bad",
    ]


def test_a_folder_may_be_called_like_a_command(work, zoo):
    (work / "::error::x ##[error]y").symlink_to(zoo.baseline("llama"))
    done = quant_verify("check", "./::error::x ##[error]y", "./absent::error::", cwd=work)
    assert (done.code, done.commands) == (2, [])
    done = quant_verify("check", "./::error::x ##[error]y", "--verbose", cwd=work)
    assert (done.code, done.commands) == (1, [])


def test_annotations_point_to_the_lines_of_the_matrix(work, matrix):
    matrix("""\
        defaults: {depth: static}
        models:
          - {name: good, checkpoints: [./models/nf4]}
          - {name: dense, checkpoints: [./models/dense]}
          - name: absent
            checkpoints: [org/absent@v1]
        """)
    extra = {"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(work)}
    done = quant_verify("run", "--offline", cwd=work, **extra)
    assert done.code == 1, done
    places = [line.partition(",title=")[0] for line in done.commands]
    assert places == ["::error file=quant-verify.yml,line=5", "::error file=quant-verify.yml,line=7"]


def test_a_step_summary_that_cannot_be_written_is_told_and_not_a_success(work):
    extra = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(work / "absent/step.md")}
    done = quant_verify("check", "./models/nf4", cwd=work, **extra)
    assert done.code == 3, done
    assert "cannot write the step summary" in done.err
    assert "Exit code 0" in done.out
