"""outputs.modules: what it says of modules that give something else than their stored weight, and of healthy ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
from healthy_facts import Expect, K, Q, V, assert_findings, judge

from checker.domain import Limit, Severity
from checker.errors import NotApplicable, Unavailable
from checker.facts import Flaw, ModuleErrorFact, ModuleErrorFacts

HEALTHY = ModuleErrorFacts(
    activations=False,
    positions=64,
    errors=tuple(ModuleErrorFact(layer=name, error=0.0025, gain=0.9998) for name in (Q, K, V)),
)
ACTIVATIONS = replace(HEALTHY, activations=True)


def with_fault(healthy: ModuleErrorFacts, error: float, gain: float = 1.0, integer: str = "") -> ModuleErrorFacts:
    """The second module errs."""
    faulty = ModuleErrorFact(layer=K, error=error, gain=gain, integer=integer)
    return replace(healthy, errors=(healthy.errors[0], faulty, healthy.errors[2]))


def judge_modules(facts: ModuleErrorFacts, **limits: Limit):
    return judge("outputs.modules", facts, limits=limits)


@pytest.mark.parametrize("facts", [HEALTHY, ACTIVATIONS], ids=["weights only", "activations too"])
def test_healthy_modules_pass(facts: ModuleErrorFacts):
    findings, measurements = judge_modules(facts)
    assert findings == []
    assert measurements["outputs.modules"] == [{"layer": name, "error": 0.0025, "gain": 0.9998} for name in (Q, K, V)]
    assert "outputs.modules.not_compared" not in measurements


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param(with_fault(HEALTHY, 0.019, 0.981), None, id="all that 16 bits may cost"),
        pytest.param(
            with_fault(HEALTHY, 0.021),
            Expect(K, ("something else than its stored weight", "2.1%"), Severity.WARN, 0.021, 0.02),
            id="more than that",
        ),
        pytest.param(
            with_fault(HEALTHY, 0.41, 0.9), Expect(K, ("relative error 41.0%",), observed=0.41, limit=0.05), id="wrong"
        ),
        pytest.param(with_fault(HEALTHY, 1e12), Expect(K, ("relative error 1e+12",)), id="not finite"),
        pytest.param(
            with_fault(HEALTHY, 99, integer="uint8"), Expect(K, ("computes in uint8", "cut to whole")), id="integers"
        ),
        pytest.param(with_fault(ACTIVATIONS, 0.077, 1.035), None, id="rounded activations"),
        pytest.param(with_fault(ACTIVATIONS, 0.2), Expect(K, ("20.0%",), Severity.WARN, 0.2, 0.12), id="rounded badly"),
        pytest.param(with_fault(ACTIVATIONS, 1.4, 0.01), Expect(K, ("140.0%",), observed=1.4, limit=0.3), id="others"),
        pytest.param(
            with_fault(ACTIVATIONS, 0.105, 1.1),
            Expect(K, ("gives 1.1 times",), observed=1.1, limit="1 ± 0.08"),
            id="a wrong scale under rounded activations",
        ),
        pytest.param(
            with_fault(ACTIVATIONS, 0.15, 1.14), Expect(K, ("gives 1.14 times",)), id="a failure goes before a warning"
        ),
        pytest.param(
            with_fault(ACTIVATIONS, 0.065, 0.94),
            Expect(K, ("gives 0.94 times",), Severity.WARN, 0.94, "1 ± 0.05"),
            id="a scale that is a little off",
        ),
    ],
)
def test_the_layer_that_errs_is_named(facts: ModuleErrorFacts, expected: Expect | None):
    findings, measurements = judge_modules(facts)
    assert_findings(findings, [expected] if expected else [])
    assert measurements["outputs.modules"][0]["layer"] == K, "worst first"


def test_limits_can_be_moved():
    facts = with_fault(HEALTHY, 0.04)
    assert judge_modules(facts, error=Limit(warn=0.05, fail=0.06))[0] == []
    [finding] = judge_modules(facts, error=Limit(fail=0.03))[0]
    assert (finding.severity, finding.limit) == (Severity.FAIL, 0.03)


def test_modules_that_were_not_compared_are_counted():
    left_out = tuple(Flaw(where=f"experts.{number}", message="joined") for number in range(3))
    facts = replace(HEALTHY, not_compared=(*left_out, Flaw(where="head", message="it did not run")))
    findings, measurements = judge_modules(facts)
    assert findings == []
    assert measurements["outputs.modules.not_compared"] == [
        {"modules": 3, "reason": "joined"},
        {"modules": 1, "reason": "it did not run"},
    ]
    with pytest.raises(NotApplicable, match="no module can be compared: joined"):
        judge_modules(replace(facts, errors=()))
    with pytest.raises(NotApplicable, match="no weight is quantized"):
        judge_modules(replace(facts, errors=(), not_compared=()))


def test_a_model_that_does_not_run_is_not_judged():
    with pytest.raises(Unavailable, match=r"see outputs\.finite"):
        judge_modules(replace(HEALTHY, flaw="RuntimeError: no"))


def test_the_mean_error_is_quadratic():
    facts = replace(HEALTHY, errors=tuple(ModuleErrorFact(layer="x", error=error, gain=1) for error in (0.03, 0.04)))
    assert facts.root_mean_square == pytest.approx(0.05 / 2**0.5)
    assert replace(HEALTHY, errors=()).root_mean_square == 0
