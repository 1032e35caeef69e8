"""From documents to cells: ids, origins, precedence, overrides, exclusions."""

# ruff: noqa: E501 - the tables hold one case a line
from __future__ import annotations

import pytest

from checker.domain import Depth, Limit, Location, ModelRef, Prompt

NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True}
HEAD = """\
version: 1
quantizations:
  nf4: {quant_method: bitsandbytes, load_in_4bit: true}
  int8: {quant_method: bitsandbytes, load_in_8bit: true}
"""


def ids(matrix):
    return [cell.id for cell in matrix.cells]


def settings(matrix):
    return {cell.id: cell.settings for cell in matrix.cells}


CELLS = {
    "text is a baseline": ("defaults: {quantizations: [nf4]}\nmodels: [org/m@v1]", ["m/nf4"]),
    "name replaces the last part": ("models: [{baseline: org/m, name: x, quantizations: [nf4]}]", ["x/nf4"]),
    "folder": ("models: [{baseline: ./models/m/, quantizations: nf4}]", ["m/nf4"]),
    "own quantizations replace": (
        "defaults: {quantizations: [nf4]}\nmodels: [{baseline: o/m, quantizations: [int8]}]",
        ["m/int8"],
    ),
    "defaults hold beside checkpoints": (
        "defaults: {quantizations: [nf4]}\nmodels: [{baseline: o/m, checkpoints: {w: o/w}}]",
        ["m/nf4", "m/w"],
    ),
    "an empty list turns them off": (
        "defaults: {quantizations: [nf4]}\nmodels: [{baseline: o/m, quantizations: [], checkpoints: {w: o/w}}]",
        ["m/w"],
    ),
    "no baseline, no quantizations": (
        "defaults: {quantizations: [nf4]}\nmodels: [{name: p, checkpoints: [o/a@1, o/b]}]",
        ["p/a", "p/b"],
    ),
    "one checkpoint as text": ("models: [{name: p, checkpoints: o/a}]", ["p/a"]),
    "excluded": ("models: [{baseline: o/m, quantizations: [nf4, int8]}]\nexclude: '*/int8'", ["m/nf4"]),
    "all excluded": ("models: [{baseline: o/m, quantizations: [nf4]}]\nexclude: '*'", []),
    "excluded long ago": ("models: [{baseline: o/m, quantizations: [nf4]}]\nexclude: [gpt2-large/int8]", ["m/nf4"]),
    "override of an excluded cell": (
        "models: [{baseline: o/m, quantizations: [nf4, int8]}]\nexclude: [m/int8]\noverrides: [{cells: m/int8, depth: load}]",
        ["m/nf4"],
    ),
    "override adds a quantization": (
        "models: [{baseline: o/m, quantizations: [nf4]}, {baseline: o/n, quantizations: [nf4]}]\noverrides: [{cells: 'm/*', quantizations: [nf4, int8]}]",
        ["m/nf4", "m/int8", "n/nf4"],
    ),
    "override passes over a model without baseline": (
        "models: [{baseline: o/m, quantizations: [nf4]}, {name: p, checkpoints: [o/a]}]\noverrides: [{cells: '*', quantizations: [int8]}]",
        ["m/int8", "p/a"],
    ),
    "override takes one away": (
        "defaults: {quantizations: [nf4, int8]}\nmodels: [o/m, o/n]\noverrides: [{cells: 'n/*', quantizations: [nf4]}]",
        ["m/nf4", "m/int8", "n/nf4"],
    ),
}


@pytest.mark.parametrize(("text", "expected"), CELLS.values(), ids=CELLS.keys())
def test_cells(text, expected, load):
    assert ids(load(HEAD + text)) == expected


REFUSED = {
    "unknown quantization": ("models: [{baseline: o/m, quantizations: [nf5]}]", "5: models.quantizations: no quantization is called 'nf5' (did you mean 'nf4'?)"),
    "unknown quantization in defaults": ("defaults: {quantizations: [gptq]}\nmodels: [o/m]", "5: defaults.quantizations: no quantization is called 'gptq'; the top-level"),
    "unknown quantization in an override": ("models: [{baseline: o/m, quantizations: [nf4]}]\noverrides: [{cells: '*', quantizations: [int]}]", "6: overrides.quantizations: no quantization is called 'int'"),
    "twice the same": ("models: [{baseline: o/m, quantizations: [nf4, nf4]}]", "'nf4' is listed twice"),
    "neither baseline nor checkpoints": ("models: [{name: x}]", "5: models: nothing to check here"),
    "nothing at all": ("models: [{}]", "5: models: a model needs a baseline, or a name and checkpoints"),
    "baseline alone": ("models: [o/m]", "5: models: nothing to check here: give the model quantizations or checkpoints"),
    "no name": ("models: [{checkpoints: [o/m]}]", "5: models: a model without a baseline needs a name"),
    "quantization without baseline": ("models: [{name: x, quantizations: [nf4], checkpoints: [o/m]}]", "models.quantizations: a quantization is made of a baseline"),
    "name with a comma": ("models: [{name: 'a,b', checkpoints: [o/m]}]", "models.name: 'a,b' cannot be part of a cell id"),
    "checkpoint name with a slash": ("models: [{name: a, checkpoints: {b/c: o/m}}]", "'b/c' cannot be part of a cell id"),
    "baseline without a usable name": ("models: [{baseline: './a b', quantizations: [nf4]}]", "'a b' cannot be part of a cell id, which is made of letters, digits and . _ + -; give the model one"),
    "bad baseline": ("models: [{baseline: o/../m, quantizations: [nf4]}]", "5: models.baseline: 'o/../m' is not a Hub id"),
    "bad checkpoint": ("models:\n - name: x\n   checkpoints:\n    - o/m\n    - a//b", "9: models.checkpoints: 'a//b' is not a Hub id"),
    "glob without a match": ("models: [{name: x, checkpoints: ['./none/*']}]", "models.checkpoints: './none/*' matches no folder"),
    "equal ids": ("defaults: {quantizations: [nf4]}\nmodels:\n  - a/m\n  - b/m", "8: the cell id 'm/nf4' stands twice, on lines 7 and 8"),
    "equal ids of kinds": ("models:\n  - {baseline: o/m, quantizations: [nf4], checkpoints: {nf4: o/x}}", "'m/nf4' stands twice"),
    "override of nothing": ("models: [{baseline: o/m, quantizations: [nf4]}]\noverrides: [{cells: m/nf5, depth: load}]", "6: overrides.cells: 'm/nf5' matches no cell (did you mean 'm/nf4'?)"),
    "misspelt exclusion": ("models: [{baseline: o/m, quantizations: [nf4]}]\nexclude: [m/nf5]", "6: exclude: 'm/nf5' matches no cell (did you mean 'm/nf4'?)"),
    "waiver of nothing": ("models: [{baseline: o/m, quantizations: [nf4]}]\nwaivers: [{cells: x/y, check: '*', reason: r, until: 2020-01-01}]", "6: waivers.cells: 'x/y' matches no cell"),
    "waiver of an unknown check": ("models: [{baseline: o/m, quantizations: [nf4]}]\nwaivers: [{cells: '*', check: layer.coverage, reason: r, until: 2020-01-01}]", "6: waivers.check: no check is called 'layer.coverage' (did you mean 'layers.coverage'?)"),
    "unknown limit": ("models: [{baseline: o/m, quantizations: [nf4], limits: {weights.error.r: {fail: 1}}}]", "no such limit (did you mean 'weights.error.R'?)"),
    "unknown required check": ("models: [{baseline: o/m, quantizations: [nf4], require: [zzz]}]", "models.require: no check is called 'zzz'; 'quant-verify explain' lists them"),
    "unknown ignored check": ("defaults: {ignore: ['weigths.*']}\nmodels: [{baseline: o/m, quantizations: [nf4]}]", "5: defaults.ignore: no check is called 'weigths.*'"),
    "too many cells": ("defaults: {quantizations: [nf4, int8]}\nmodels: [" + "".join(f"o/m{n}, " for n in range(2001)) + "]", "holds 2001 entries, more than 2000"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(text, sentence, mistakes):
    found = mistakes(HEAD + text)
    assert any(sentence in line for line in found), found
    assert len(found) == 1


def test_the_product_of_models_and_quantizations_has_a_limit(mistakes):
    quantizations = "".join(f"  q{n}: {{quant_method: x}}\n" for n in range(6))
    models = "".join(f"  - o/m{n}\n" for n in range(2000))
    text = (
        f"version: 1\nquantizations:\n{quantizations}defaults: {{quantizations: [q0, q1, q2, q3, q4, q5]}}\nmodels:\n"
    )
    assert "12,000 cells are more than 10,000" in mistakes(text + models)[0]


@pytest.mark.parametrize(
    ("quantization", "sentence"),
    [
        ("{quant_method: x, load_in_4bits: true}", "3: quantizations.q.load_in_4bits: unknown key"),
        ("{bits: 4}", "3: quantizations.q: has no quant_method"),
        ("{quant_method: x, date: 2026-01-01}", "3: quantizations.q.date: a date has no place"),
        ("{quant_method: x, list: [1, .inf]}", "3: quantizations.q.list: must be a finite number, not inf"),
        ("{quant_method: x, bits: 010}", "3: 010 is octal"),
    ],
    ids=["unknown key", "as a whole", "date", "infinity", "octal"],
)
def test_quantizations_are_checked_where_they_are_named(quantization, sentence, mistakes):
    (found,) = mistakes(f"version: 1\nquantizations:\n  q: {quantization}\nmodels: [{{name: x, checkpoints: [o/m]}}]")
    assert sentence in found


def test_a_quantization_needs_a_name_for_ids(mistakes):
    (found,) = mistakes(
        "version: 1\nquantizations: {'a/b': {quant_method: x}}\nmodels: [{name: x, checkpoints: [o/m]}]"
    )
    assert found.startswith("quant-verify.yml:2: quantizations.a/b: 'a/b' cannot be part of a cell id")


def test_a_broken_quantization_is_not_also_unknown(mistakes):
    (found,) = mistakes("version: 1\nquantizations: {q: 3}\nmodels: [{baseline: o/m, quantizations: [q]}]")
    assert "quantizations.q: must be a mapping" in found


def test_a_named_glob_stands_for_one_checkpoint(checkpoint_folder, load, mistakes):
    checkpoint_folder("models/a")
    text = HEAD + "models: [{name: x, checkpoints: {w: './models/*'}}]"
    (cell,) = load(text).cells
    assert (cell.id, cell.checkpoint) == ("x/w", ModelRef(kind="folder", name="./models/a"))
    checkpoint_folder("models/b")
    assert "one name cannot stand for the 2 checkpoints" in mistakes(text)[0]


def test_a_found_folder_with_an_unusable_name(checkpoint_folder, mistakes):
    checkpoint_folder("models/a b")
    assert "'a b' cannot be part of a cell id" in mistakes(HEAD + "models: [{name: x, checkpoints: ['./models/*']}]")[0]


def test_origins_are_as_exact_as_the_file(load):
    matrix = load(
        HEAD
        + """\
defaults: {quantizations: [int8]}
models:
  - baseline: o/m
    quantizations:
      - nf4
      - int8
    checkpoints:
      w4:
        o/w4
  - o/n
  - {name: p, checkpoints: [o/x, o/y]}
"""
    )
    places = {cell.id: cell.origin for cell in matrix.cells}
    lines = {"m/nf4": 9, "m/int8": 10, "m/w4": 12, "n/int8": 14, "p/x": 15, "p/y": 15}
    assert places == {cell: Location(file="quant-verify.yml", line=line) for cell, line in lines.items()}


PRECEDENCE = (
    HEAD
    + """\
defaults:
  depth: static
  timeout: 10
  gpus: 3
  require: [memory.ratio]
  limits: {weights.error.R: {warn: 1, fail: 2}, outputs.divergence.kl: {fail: 1}}
  quantizations: [nf4, int8]
models:
  - baseline: o/m
    timeout: 20
    gpus: 4
    limits: {weights.error.R: {fail: 3}}
overrides:
  - {cells: "m/*", gpus: 5, require: [weights.error], prompts: [{text: Hi, accept: {"*": [You]}}]}
  - {cells: "*nf4", gpus: 6, device: cpu, limits: {weights.error.R: {warn: 0}}}
"""
)


def test_precedence(load):
    found = settings(load(PRECEDENCE))
    nf4, int8 = found["m/nf4"], found["m/int8"]
    assert (nf4.depth, nf4.timeout, nf4.gpus, nf4.device, nf4.require) == (
        Depth.STATIC, 20, 6, "cpu", ("weights.error",),
    )  # fmt: skip
    assert (int8.gpus, int8.device) == (5, "auto")
    assert nf4.limits == {"weights.error.R": Limit(warn=0, fail=3), "outputs.divergence.kl": Limit(fail=1)}
    assert int8.limits["weights.error.R"] == Limit(warn=1, fail=3)
    assert nf4.prompts == (Prompt(text="Hi", accept={"*": ("You",)}),)


def test_the_command_line_wins(load):
    found = settings(load(PRECEDENCE, depth=Depth.LOAD, timeout=99.0, device="cuda:0", select=("memory.*",)))
    assert {(item.depth, item.timeout, item.device, item.select) for item in found.values()} == {
        (Depth.LOAD, 99.0, "cuda:0", ("memory.*",))
    }


@pytest.mark.parametrize(
    ("matrix", "command_line", "allowed"),
    [("true", True, True), ("true", False, False), ("false", True, False)],
    ids=["both", "matrix only", "command line only"],
)
def test_remote_code_needs_both(matrix, command_line, allowed, load):
    text = f"{HEAD}models: [{{baseline: o/m, quantizations: [nf4], trust_remote_code: {matrix}}}]"
    assert settings(load(text, trust_remote_code=command_line))["m/nf4"].trust_remote_code is allowed
    assert settings(load(text))["m/nf4"].trust_remote_code is False


def test_a_cell_is_complete(load):
    (cell,) = load(HEAD + "models: [{baseline: o/m@abc, quantizations: [nf4]}]").cells
    assert cell.baseline == ModelRef(kind="hub", name="o/m", revision="abc")
    assert cell.quantization == NF4
    assert cell.checkpoint is None
