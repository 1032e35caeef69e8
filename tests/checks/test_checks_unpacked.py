"""Methods that transformers unpacks: what it does to a sound file is a note or a warning, what is lost a failure."""

from __future__ import annotations

import pytest
from healthy_facts import Expect, assert_findings, judge, load, snapshot, structure

from checker.domain import Limit, Severity

WARN, FAIL = Severity.WARN, Severity.FAIL
EXPERTS = "model.layers.0.mlp.experts.down_proj"
BY_DESIGN = {"growth": Limit(fail=33.0)}


@pytest.mark.parametrize(
    ("after", "limits", "expected"),
    [
        pytest.param(1150, BY_DESIGN, [], id="within both bars"),
        pytest.param(2400, BY_DESIGN, [], id="by design"),
        pytest.param(
            40_000, BY_DESIGN, [Expect("", ("to 40,000 bytes",), FAIL, limit=33.0)], id="beyond any unpacking"
        ),
        pytest.param(2400, {"growth": Limit(fail=1.1)}, [Expect("", ("grows",), FAIL, limit=1.1)], id="unexpected"),
        pytest.param(2400, {"growth": Limit(warn=3.0, fail=33.0)}, [], id="allowed by the matrix"),
    ],
)
def test_growth_at_the_first_forward(after, limits, expected):
    facts = structure(after=snapshot(true_bytes=after))
    assert_findings(judge("memory.footprint", facts, limits=limits)[0], expected)


@pytest.mark.parametrize(("after", "noted"), [(1150, False), (2400, True)])
def test_what_is_unpacked_by_design_is_noted(after, noted):
    measured = judge("memory.footprint", structure(after=snapshot(true_bytes=after)), limits=BY_DESIGN)[1]
    assert ("unpacks these weights at the first forward: 2.2 times" in str(measured.get("notes"))) is noted


@pytest.mark.parametrize(
    ("unpacked", "severity", "hint"),
    [
        pytest.param((EXPERTS,), WARN, "other run times keep them packed", id="packed in the file"),
        pytest.param((), FAIL, "passes over experts", id="dense in the file"),
    ],
)
def test_experts_that_are_dense_in_memory(unpacked, severity, hint):
    [finding] = judge("layers.classes", structure(fused_experts=(EXPERTS,), unpacked_experts=unpacked))[0]
    assert (finding.where, finding.severity) == (EXPERTS, severity)
    assert hint in finding.hint


def test_a_file_that_packs_nothing_by_its_method_need_have_no_quantized_module():
    none = snapshot(quantized_modules=0)
    facts = {"modules": (), "before": none, "after": none}
    assert judge("loading.quantized", load(), structure(**facts, stored_dense="only the cache is quantized"))[0] == []
    assert len(judge("loading.quantized", load(), structure(**facts))[0]) == 1


def test_a_model_that_was_dense_all_along_is_not_said_to_have_lost_its_modules():
    none = snapshot(quantized_modules=0)
    facts = structure(before=none, after=none, is_quantized_after=False)
    messages = [finding.message for finding in judge("loading.quantized", load(is_quantized=False), facts)[0]]
    assert len(messages) == 2
    assert not any("after one forward" in message for message in messages)
