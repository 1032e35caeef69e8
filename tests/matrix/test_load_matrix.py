"""The whole way from a path to a matrix."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checker.domain import Cell, Depth, Limit, Location, ModelRef, Prompt, Settings, Waiver
from checker.errors import MatrixError, Mistake
from checker.matrix import Vocabulary, load_matrix

VOCABULARY = Vocabulary(
    check_ids=("layers.coverage", "outputs.divergence"),
    limit_names=("outputs.divergence.top1",),
    check_quantization=lambda _config: [],
)
EXAMPLE = """\
version: 1
quantizations:                       # named once; each value is a quantization_config as it stands in config.json
  nf4: {quant_method: bitsandbytes, load_in_4bit: true, bnb_4bit_quant_type: nf4, bnb_4bit_use_double_quant: true, bnb_4bit_compute_dtype: bfloat16}
  int8: {quant_method: bitsandbytes, load_in_8bit: true}
defaults: {quantizations: [nf4, int8], depth: full, timeout: 1800}
models:
  - HuggingFaceTB/SmolLM2-135M-Instruct@12fd25f…      # a string is {baseline: …}; @ gives the revision; a commit is best
  - baseline: meta-llama/Llama-3.1-70B
    name: llama-70b
    quantizations: [nf4]                               # made here, at load time
    checkpoints: {w4a16: ./models/llama-w4a16}         # already quantized, named or a list; globs in quotes
    prompts:
      - {text: "The capital of France is", chat: false, max_new_tokens: 10, accept: {"*": ["Paris"]}}
  - {name: published, checkpoints: ["./models/*", org/model-awq@3f1c2ab]}   # no baseline: what needs one is skipped
overrides:                                             # later wins; one that matches nothing is an error
  - {cells: "llama-70b/*", gpus: 2, timeout: 7200, runs-on: [self-hosted, h100]}
  - {cells: "*/int8", limits: {outputs.divergence.top1: {fail: 0.9}}, require: [outputs.divergence]}
exclude: ["gpt2/int8"]
waivers:                                               # a known finding, with a reason and an end
  - {cells: "llama-70b/nf4", check: layers.coverage, where: "*.experts.*", reason: "transformers#123", until: 2026-12-31}
references: ./references                               # where record writes and cells look; record never edits this file
"""  # noqa: E501
NF4 = {
    "quant_method": "bitsandbytes",
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16",
}
INT8 = {"quant_method": "bitsandbytes", "load_in_8bit": True}


@pytest.fixture
def folder(tmp_path, monkeypatch, checkpoint_folder):
    monkeypatch.chdir(tmp_path)
    checkpoint_folder("ci/models/awq-model")
    checkpoint_folder("ci/models/llama-w4a16")
    Path("ci/quant-verify.yml").write_text(EXAMPLE, encoding="utf-8")
    return Path("ci")


def test_the_example_of_the_documentation(folder):
    matrix = load_matrix(folder / "quant-verify.yml", VOCABULARY)
    small = ModelRef(kind="hub", name="HuggingFaceTB/SmolLM2-135M-Instruct", revision="12fd25f…")
    large = ModelRef(kind="hub", name="meta-llama/Llama-3.1-70B")
    w4a16 = ModelRef(kind="folder", name="./ci/models/llama-w4a16")
    usual = Settings(depth=Depth.FULL, timeout=1800)
    strict = Settings(
        timeout=1800, limits={"outputs.divergence.top1": Limit(fail=0.9)}, require=("outputs.divergence",)
    )
    paris = Prompt(text="The capital of France is", max_new_tokens=10, accept={"*": ("Paris",)})
    big = Settings(timeout=7200, gpus=2, runs_on=("self-hosted", "h100"), prompts=(paris,))

    def line(number):
        return Location(file="ci/quant-verify.yml", line=number)

    assert matrix.cells == (
        Cell(id="SmolLM2-135M-Instruct/nf4", baseline=small, quantization=NF4, settings=usual, origin=line(7)),
        Cell(id="SmolLM2-135M-Instruct/int8", baseline=small, quantization=INT8, settings=strict, origin=line(7)),
        Cell(id="llama-70b/nf4", baseline=large, quantization=NF4, settings=big, origin=line(10)),
        Cell(id="llama-70b/w4a16", baseline=large, checkpoint=w4a16, settings=big, origin=line(11)),
        Cell(
            id="published/awq-model",
            checkpoint=ModelRef(kind="folder", name="./ci/models/awq-model"),
            settings=usual,
            origin=line(14),
        ),
        Cell(id="published/llama-w4a16", checkpoint=w4a16, settings=usual, origin=line(14)),
        Cell(
            id="published/model-awq",
            checkpoint=ModelRef(kind="hub", name="org/model-awq", revision="3f1c2ab"),
            settings=usual,
            origin=line(14),
        ),
    )
    assert matrix.waivers == (
        Waiver(
            cells="llama-70b/nf4",
            check="layers.coverage",
            where="*.experts.*",
            reason="transformers#123",
            until=dt.date(2026, 12, 31),
            location=line(20),
        ),
    )
    assert (matrix.path, matrix.references) == ("ci/quant-verify.yml", Path("ci/references"))
    assert matrix.sha256 == hashlib.sha256(EXAMPLE.encode()).hexdigest()


def test_an_expired_waiver_is_kept(load):
    head = "version: 1\nmodels: [{name: x, checkpoints: [o/m]}]\n"
    text = head + "waivers: [{cells: '*', check: '*', reason: r, until: 1999-01-01}]"
    (waiver,) = load(text).waivers
    assert (waiver.until.year, waiver.where) == (1999, "*")


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "~"], ids=["empty", "comment", "marker", "null"])
def test_an_empty_file(text, mistakes):
    assert mistakes(text) == ["quant-verify.yml is empty; 'quant-verify init' writes a first matrix"]


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("no.yml", "there is no matrix file no.yml; name another, or let 'quant-verify init' write a first one"),
        (".", "the matrix file . cannot be read: Is a directory"),
        ("a\n::error::b", r"there is no matrix file a\n::error::b"),
        ("a\0b", r"the matrix file a\x00b cannot be read"),
    ],
    ids=["missing", "a folder", "a name that is a workflow command", "a name with a nul"],
)
def test_a_file_that_cannot_be_read(path, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MatrixError) as caught:
        load_matrix(path, VOCABULARY)
    assert str(caught.value).startswith(sentence)


def test_an_endless_file_is_not_read_to_its_end():
    with pytest.raises(MatrixError, match="larger than"):
        load_matrix("/dev/zero", VOCABULARY)


LINES = st.lists(st.sampled_from([*EXAMPLE.splitlines(), "  - &a [*a]", "  <<: no", "x: {y: 1:30}", "\t"]), max_size=25)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200) | LINES.map(lambda lines: "\n".join(lines).encode()))
def test_any_file_loads_or_is_refused_in_printable_sentences(data, tmp_path):
    path = tmp_path / "m.yml"
    path.write_bytes(data)
    try:
        load_matrix(path, VOCABULARY)
        mistakes = [Mistake("none")]
    except MatrixError as error:
        mistakes = error.mistakes
    assert mistakes
    assert all(mistake.message.isprintable() for mistake in mistakes)


def test_importing_and_loading_is_light(folder):
    """Neither torch nor numpy, and what reads YAML only once it is needed."""
    code = (
        "import sys, checker.matrix, checker.matrix.select\n"
        "assert not {'yaml', 'pydantic'} & {*sys.modules}\n"
        "checker.matrix.load_matrix(sys.argv[1], checker.matrix.Vocabulary(check_ids=['layers.coverage', "
        "'outputs.divergence'], limit_names=['outputs.divergence.top1'], check_quantization=lambda config: []))\n"
        "assert not {'torch', 'numpy', 'transformers', 'checker.methods', 'checker.checks'} & {*sys.modules}\n"
    )
    root = Path(sys.modules["checker"].__file__).parents[1]
    subprocess.run(
        [sys.executable, "-c", code, "ci/quant-verify.yml"],
        check=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
