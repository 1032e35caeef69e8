"""``record`` and what later runs make of its files, as a user meets them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import FULL, check_reports, quant_verify
from models import Zoo

from checker.reference import read_reference
from checker.reference.write import write_reference

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODELS = """\
defaults: {depth: full, device: cpu}
references: ./references
models: [{name: tiny, baseline: ./models/dense, checkpoints: {nf4: ./models/nf4}}]
"""


@pytest.fixture(scope="module")
def recorded(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which ``record`` was run; never write into it."""
    work = tmp_path_factory.mktemp("recorded")
    (work / "models").symlink_to(shelf)
    (work / "quant-verify.yml").write_text("version: 1\n" + MODELS)
    done = quant_verify("record", cwd=work)
    assert done.code == 0, done
    assert "1 reference and 0 texts in references" in done.err  # a model without a tokenizer has no texts
    return work


@pytest.fixture
def work(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "work", symlinks=True))


def test_what_each_cell_took_is_recorded_and_plan_reads_it(recorded: Path):
    path = recorded / "references" / "costs.json"
    [(cell, seconds)] = json.loads(path.read_text())["seconds"].items()
    assert cell == "tiny/nf4"
    assert 0.5 < seconds < 600
    done = quant_verify("plan", cwd=recorded)
    assert (done.code, done.err) == (0, "")


def test_a_run_uses_what_was_recorded(work: Path):
    shutil.rmtree(work / "quant-verify-report", ignore_errors=True)
    done = quant_verify("run", cwd=work)
    assert done.code == 0, done
    [cell] = check_reports(work / "quant-verify-report", {"tiny/nf4": FULL})["cells"]
    assert cell["measurements"]["outputs.divergence"]["reference"] == "recorded"


def test_a_pinned_baseline_need_not_even_be_fetched(work: Path):
    """There is no network in tests: fetching the baseline would be an error of every check."""
    made = read_reference(work / "references" / "dense.safetensors")
    identity = replace(made.summary.identity, baseline="org/model", revision=COMMIT)
    target = work / "references" / "org--model.safetensors"
    write_reference(target, replace(made.summary, identity=identity), made.rows, made.hidden, made.samples)
    matrix = work / "quant-verify.yml"
    matrix.write_text(matrix.read_text().replace("./models/dense", f"org/model@{COMMIT}"))
    done = quant_verify("run", "--offline", cwd=work)
    assert done.code == 0, done
    [cell] = check_reports(work / "quant-verify-report", {"tiny/nf4": FULL})["cells"]
    outcomes = {check["id"]: check["outcome"] for check in cell["checks"]}
    assert outcomes["weights.error"] == outcomes["outputs.divergence"] == outcomes["memory.ratio"] == "pass"


def test_another_revision_is_refused_and_named(work: Path, zoo: Zoo):
    matrix = work / "quant-verify.yml"
    other = work / "other" / "dense"
    shutil.copytree(zoo.baseline("llama"), other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rope_theta": 5e5}))
    matrix.write_text(matrix.read_text().replace("./models/dense", "./other/dense"))
    done = quant_verify("run", "--select", "outputs.divergence", cwd=work)
    assert done.code == 3, done
    words = " ".join(done.out.split())
    assert "references/dense.safetensors belongs to another revision: to folder-" in words
    assert "write it anew with quant-verify record" in words


def test_a_matrix_without_a_folder_for_references_says_what_to_add(work: Path):
    (work / "quant-verify.yml").write_text("version: 1\n" + MODELS.replace("references: ./references\n", ""))
    done = quant_verify("record", cwd=work)
    assert done.code == 2
    assert "quant-verify.yml names no folder to record into; add a line 'references: ./references' to it" in done.err


def test_a_baseline_that_does_not_load_costs_only_the_checks_of_outputs(work: Path, zoo: Zoo):
    broken = work / "broken"
    shutil.copytree(zoo.baseline("llama"), broken)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "hidden_size": 32, "num_attention_heads": 2}))
    (work / "quant-verify.yml").write_text("version: 1\n" + MODELS.replace("./models/dense", "./broken"))
    done = quant_verify("run", "--select", "outputs.*,weights.error", cwd=work)
    assert done.code == 3, done
    [cell] = json.loads((work / "quant-verify-report" / "report.json").read_text())["cells"]
    outcomes = {check["id"]: check["outcome"] for check in cell["checks"]}
    assert outcomes["outputs.divergence"] == "error"
    assert outcomes["weights.error"] == outcomes["outputs.finite"] == outcomes["outputs.modules"] == "pass"
    [message] = {check["error"]["message"] for check in cell["checks"] if check["id"] == "outputs.divergence"}
    assert message.startswith("the reference of ./broken could not be made: the baseline does not load:")
