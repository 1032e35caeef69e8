"""What may stand where, and the sentence for everything that may not."""

# ruff: noqa: E501 - the tables hold one case a line
from __future__ import annotations

import json
from pathlib import Path

import pytest

import checker
from checker.matrix.document import json_schema

HEAD = "version: 1\nquantizations:\n  nf4: {quant_method: bitsandbytes}\n"
MODEL = HEAD + "models:\n  - baseline: org/m\n    quantizations: [nf4]\n"  # six lines

REFUSED = {
    "no version": ("models: [{name: a, checkpoints: [o/m]}]", "1: version: is missing; write 'version: 1'"),
    "version 2": ("version: 2\nmodels: [a/b]", "1: version: must be 1, the only version of this format, not 2"),
    "version as text": ("version: '1'\nmodels: [a/b]", "1: version: must be 1"),
    "no models": ("version: 1", "1: models: is missing; list at least one model"),
    "empty models": ("version: 1\nmodels: []", "2: models: must not be empty"),
    "models is a mapping": ("version: 1\nmodels: {a: b}", "2: models: must be a list"),
    "a list at the top": ("- a", "1: a matrix is a mapping"),
    "text at the top": ("hello", "1: a matrix is a mapping"),
    "misspelt key at the top": (MODEL + "waiver: []", "7: waiver: unknown key (did you mean 'waivers'?)"),
    "setting at the top": (MODEL + "depth: full", "7: depth: may stand in defaults, in a model or in an override"),
    "misspelt key in defaults": (MODEL + "defaults: {dept: full}", "7: defaults.dept: unknown key (did you mean 'depth'?)"),
    "misspelt key in a model": (MODEL + "    checkpoint: [o/m]", "7: models.checkpoint: unknown key (did you mean 'checkpoints'?)"),
    "underscore for dash": (MODEL + "    runs_on: x", "7: models.runs_on: unknown key (did you mean 'runs-on'?)"),
    "nothing near": (MODEL + "    xyzzy: 1", "7: models.xyzzy: unknown key; valid here: baseline, checkpoints, depth, device"),
    "baseline in defaults": (MODEL + "defaults: {baseline: a/b}", "7: defaults.baseline: may stand in a model only"),
    "name in an override": (MODEL + "overrides: [{cells: '*', name: x}]", "7: overrides.name: may stand in a model only"),
    "misspelt key in a limit": (MODEL + "    limits: {weights.error.R: {fial: 1}}", "limits.weights.error.R.fial: unknown key (did you mean 'fail'?)"),
    "misspelt key in a prompt": (MODEL + "    prompts: [{text: x, max_tokens: 3}]", "prompts.max_tokens: unknown key (did you mean 'max_new_tokens'?)"),
    "misspelt key in a waiver": (MODEL + "waivers: [{cels: x}]", "7: waivers.cels: unknown key (did you mean 'cells'?)"),
    "misspelt depth": (MODEL + "    depth: ful", "7: models.depth: must be 'static', 'load' or 'full', not 'ful' (did you mean 'full'?)"),
    "timeout of zero": (MODEL + "    timeout: 0", "models.timeout: must be above 0, not 0"),
    "timeout as text": (MODEL + "    timeout: 1h", "models.timeout: must be a number, not '1h'"),
    "endless timeout": (MODEL + "    timeout: .inf", "models.timeout: must be a finite number, not inf"),
    "timeout true": (MODEL + "    timeout: true", "models.timeout: must be a number, not true"),
    "negative gpus": (MODEL + "    gpus: -1", "models.gpus: must be at least 0, not -1"),
    "half a gpu": (MODEL + "    gpus: 1.5", "models.gpus: must be a whole number, not 1.5"),
    "other device": (MODEL + "    device: tpu", "models.device: must be auto, cpu, cuda or cuda:N, not 'tpu'"),
    "truth value as text": (MODEL + "    trust_remote_code: 'true'", "models.trust_remote_code: must be true or false, not 'true'"),
    "truth value as no": (MODEL + "    trust_remote_code: no", "7: no is a truth value"),
    "name as a number": (HEAD + "models: [{name: 7, checkpoints: [o/m]}]", "models.name: must be text, not 7; put it in quotes"),
    "model as a number": (HEAD + "models: [7]", "4: models: must be a mapping, not 7"),
    "quantization as text": ("version: 1\nquantizations: {nf4: bitsandbytes}\nmodels: [a/b]", "2: quantizations.nf4: must be a mapping, not 'bitsandbytes'"),
    "checkpoints as a number": (HEAD + "models: [{name: x, checkpoints: 3}]", "models.checkpoints: must be a list of references or a mapping"),
    "checkpoints of numbers": (HEAD + "models: [{name: x, checkpoints: {a: 3}}]", "models.checkpoints: must be a list of references"),
    "empty text": (MODEL + "exclude: ['']", "7: exclude: must not be empty"),
    "blank reason": (MODEL + "waivers: [{cells: '*', check: '*', reason: ' ', until: 2026-12-31}]", "7: waivers.reason: must not be blank"),
    "no reason": (MODEL + "waivers: [{cells: '*', check: '*', until: 2026-12-31}]", "7: waivers.reason: is missing; say why"),
    "no end": (MODEL + "waivers: [{cells: '*', check: '*', reason: x}]", "7: waivers.until: is missing; give the day"),
    "end is no day": (MODEL + "waivers: [{cells: '*', check: '*', reason: x, until: soon}]", "7: waivers.until: must be a day like 2026-12-31, not 'soon'"),
    "end is a number": (MODEL + "waivers: [{cells: '*', check: '*', reason: x, until: 20261231}]", "must be a day like 2026-12-31, not 20261231"),
    "override without cells": (MODEL + "overrides: [{depth: load}]", "7: overrides.cells: is missing"),
    "accepts everything": (MODEL + "    prompts: [{text: x, accept: {'*': ['']}}]", "prompts.accept.*: must not be empty"),
    "no tokens": (MODEL + "    prompts: [{text: x, max_new_tokens: 0}]", "prompts.max_new_tokens: must be at least 1, not 0"),
    "limit is not a number": (MODEL + "    limits: {weights.error.R: {fail: .nan}}", "7: models.limits.weights.error.R.fail: must be"),
    "limit is infinite": (MODEL + "    limits: {weights.error.R: {fail: .inf}}", "must be a finite number, not inf"),
    "limit is negative": (MODEL + "    limits: {weights.error.R: {fail: -0.1}}", "must be at least 0, not -0.1"),
    "limit is text": (MODEL + "    limits: {weights.error.R: {fail: high}}", "must be a number, not 'high'"),
    "limit is a bare number": (MODEL + "    limits: {weights.error.R: 2}", "limits.weights.error.R: must be a mapping, not 2"),
    "limit says nothing": (MODEL + "    limits: {weights.error.R: {}}", "give warn, fail, or both"),
    "limit is null": (MODEL + "    limits: {weights.error.R: {fail: null}}", "give warn, fail, or both"),
    "section left empty": (MODEL + "overrides:", "7: overrides: must be a list, not null"),
    "date in a prompt": (MODEL + "    prompts: [{text: 2026-01-01}]", "must be text, not 2026-01-01; put it in quotes"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_with_line_key_and_remedy(text, sentence, mistakes):
    found = mistakes(text)
    assert any(sentence in line for line in found), found
    assert all(line.startswith("quant-verify.yml:") for line in found)


ACCEPTED = {
    "text for a list": "    runs-on: gpu\n    require: weights.error\n",
    "no time limit": "    timeout: null\n",
    "whole number for a float": "    timeout: 7\n",
    "quoted day": "waivers: [{cells: '*', check: '*', reason: x, until: '2026-12-31'}]\n",
    "device with an index": "    device: cuda:1\n",
    "one accepted text": "    prompts: [{text: x, accept: {cuda: Paris}}]\n",
    "limit of zero": "    limits: {weights.error.R: {warn: 0}}\n",
    "no optional section": "",
}


@pytest.mark.parametrize("more", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepted(more, load):
    assert [cell.id for cell in load(MODEL + more).cells] == ["m/nf4"]


def test_mistakes_of_form_and_of_meaning_are_told_together(mistakes):
    found = mistakes(
        HEAD
        + """\
defaults: {dept: full, timeout: no}
models:
  - {baseline: org/a, quantizations: [nf5]}
  - {baseline: org/b, depth: ful, quantizations: [nf4]}
  - {baseline: 7}
overrides:
  - {cells: "b/nf4", select: [weights.eror]}
"""
    )
    assert [line.split(":")[1] for line in found] == ["4", "4", "6", "7", "8", "10"]


def test_one_mistake_causes_no_second_one(mistakes):
    text = (
        HEAD + "models:\n  - {baseline: org/a, quantizatoins: [nf4]}\noverrides:\n  - {cells: 'a/nf4', depth: load}\n"
    )
    assert len(mistakes(text)) == 1


def test_the_mistakes_have_an_end(mistakes):
    found = mistakes(HEAD + "models:\n" + "  - {xyzzy: 1, depth: ful}\n" * 1500)
    assert len(found) == 101
    assert found[-1].endswith("more mistakes")


def test_published_schema_is_current():
    path = Path(checker.__file__).parent / "data" / "matrix.schema.json"
    assert json.loads(path.read_text()) == json_schema(), "run: python -m checker.matrix.document > " + path.name


def test_schema_offers_editors_the_real_keys():
    schema = json_schema()
    model = schema["$defs"]["ModelEntry"]["anyOf"][1]
    assert "runs-on" in model["properties"]
    assert model["additionalProperties"] is False
    assert schema["required"] == ["version", "models"]
