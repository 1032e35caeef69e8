"""outputs.divergence: what is said of the distance between two models' distributions."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from healthy_facts import Expect, assert_findings, judge

from checker.checks.divergence import absolute_limits, expected_kl, is_settled
from checker.domain import Limit, Severity
from checker.facts import BlockFact, DivergenceFacts, Interval
from checker.registry import all_checks, resolve_limits

WARN = Severity.WARN
CHECK = next(item for item in all_checks() if item.id == "outputs.divergence")


def around(value: float, half: float = 0.0) -> Interval:
    return Interval(value=value, low=value - half, high=value + half)


HEALTHY = DivergenceFacts(  # NF4 of a model of 135 million parameters
    positions=256,
    kl=around(0.21, 0.04),
    kl_percentiles={"p50": 0.14, "max": 2.0},
    kl_histogram=((-1.0, 200), (-0.5, 56)),
    top1=around(0.75, 0.05),
    delta_p=-0.01,
    delta_p_rms=0.12,
    perplexity=21.0,
    baseline_perplexity=17.0,
    perplexity_ratio=around(1.24, 0.1),
    entropy_ratio=1.1,
    noise_constant=32.0,
    self_noise=0.0006,
    weight_nrmse=0.0935,
    module_error=0.003,
    activations=False,
    bits=4,
    parameters=135_000_000,
    vocabulary=49_152,
    recorded=False,
)
EIGHT = replace(  # LLM.int8 of the same model
    HEALTHY,
    kl=around(0.0184, 0.002), top1=around(0.97, 0.02), perplexity=17.1, perplexity_ratio=around(1.01, 0.01),
    weight_nrmse=0.0083, module_error=0.0258, activations=True, bits=8,
)  # fmt: skip
RANDOM = replace(  # tiny, of random weights: it predicts nothing
    HEALTHY, kl=around(2e-4, 1e-4), top1=around(0.3, 0.1), perplexity=159.0, baseline_perplexity=160.0,
    perplexity_ratio=around(1.0, 0.01), noise_constant=0.02, self_noise=1e-6, parameters=100_000, vocabulary=160,
)  # fmt: skip
LARGE = replace(HEALTHY, parameters=8_000_000_000, kl=around(0.07, 0.01), top1=around(0.9, 0.03), noise_constant=10.0,
                perplexity=6.7, baseline_perplexity=6.23, perplexity_ratio=around(1.07, 0.02))  # fmt: skip
LEAST = Interval(value=0.2, low=-math.inf, high=math.inf)  # of too few positions


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param(HEALTHY, id="nf4 of a small model"),
        pytest.param(EIGHT, id="int8 whose activations are quantized as well"),
        pytest.param(RANDOM, id="random weights, where the most likely token is an accident"),
        pytest.param(LARGE, id="4 bits of 8 billion parameters"),
        pytest.param(replace(HEALTHY, kl=around(1.0, 0.75)), id="far, but not surely"),
        pytest.param(replace(HEALTHY, kl=LEAST), id="too few positions for an interval"),
        pytest.param(replace(HEALTHY, weight_nrmse=None), id="weights that cannot be decoded"),
        pytest.param(
            replace(HEALTHY, noise_constant=0.0, self_noise=0.0, kl=around(0.0)), id="a model without linears"
        ),
        pytest.param(replace(HEALTHY, bits=None), id="bits unknown"),
        pytest.param(replace(HEALTHY, kl=around(1e-6), perplexity_ratio=around(0.98)), id="better than expected"),
    ],
)
def test_a_healthy_model_passes(facts: DivergenceFacts):
    assert judge("outputs.divergence", facts)[0] == []


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param(
            replace(HEALTHY, kl=around(12.8, 0.5), top1=around(0.01), perplexity=1e6, perplexity_ratio=around(6e4)),
            [Expect("", ("45.7 times", "12.8 nats over 256 positions", "expected 0.28"), limit=4.0)],
            id="scales shifted in every layer: one finding says it",
        ),
        pytest.param(
            replace(HEALTHY, not_finite=1, kl=LEAST),
            [Expect("", ("NaN or infinite at 1 of 256 positions",), observed=1, limit=0)],
            id="one position without numbers, which no average shows",
        ),
        pytest.param(
            replace(HEALTHY, kl=around(0.7, 0.05)), [Expect("", ("2.5 times",), WARN, limit=2.0)], id="a little too far"
        ),
        pytest.param(
            replace(HEALTHY, kl=around(2.0, 0.1), culprit="model.layers.7"),
            [Expect("model.layers.7", ("model.layers.7 is the first block to depart",))],
            id="the block where it breaks",
        ),
        pytest.param(
            replace(HEALTHY, weight_nrmse=1.41, kl=around(21.5, 1.0)),
            [Expect("", ("times as far",))],
            id="weights that are wrong by themselves explain nothing",
        ),
        pytest.param(
            replace(HEALTHY, weight_nrmse=None, kl=around(2.0, 0.2)),
            [Expect("", ("far from the baseline's: KL 2 nats",), observed=2.0, limit=1.5)],
            id="without the weights the absolute limit holds",
        ),
        pytest.param(
            replace(EIGHT, activations=False),
            [Expect("", ("times as far",), limit=4.0)],
            id="8 bits whose activations are said not to be quantized",
        ),
        pytest.param(
            replace(EIGHT, module_error=0.9, kl=around(3.0, 0.1)),
            [Expect("", ("times as far",))],
            id="modules that compute nonsense explain nothing",
        ),
        pytest.param(
            replace(LARGE, top1=around(0.5, 0.05)),
            [Expect("", ("the baseline's at 50% of 256 positions only",), observed=0.5, limit=0.6)],
            id="another most likely token at every second position",
        ),
        pytest.param(
            replace(LARGE, perplexity=12.0, perplexity_ratio=around(1.9, 0.1)),
            [Expect("", ("1.9 times as perplexing", "12 against 6.23"), observed=1.9, limit=1.5)],
            id="perplexity",
        ),
    ],
)
def test_what_is_too_far_is_said(facts: DivergenceFacts, expected: list[Expect]):
    assert_findings(judge("outputs.divergence", facts)[0], expected)


def test_limits_of_the_matrix_take_the_place_of_those_by_size():
    own = {"top1": Limit(fail=0.9), "kl": Limit(warn=0.1)}
    findings = judge("outputs.divergence", HEALTHY, limits=own)[0]
    assert_findings(findings, [Expect("", ("KL",), WARN, limit=0.1), Expect("", ("75%",), limit=0.9)])
    resolved = absolute_limits(HEALTHY, resolve_limits(CHECK, {}, {"outputs.divergence.kl": Limit(fail=9.0)}))
    assert resolved["kl"] == Limit(warn=0.8, fail=9.0)


@pytest.mark.parametrize(
    ("bits", "parameters", "fail"),
    [(8, 1e8, 0.2), (4, 1e8, 1.5), (4, 2e9, 0.9), (4, 7e10, 0.4), (5, 7e10, 0.4), (2, 1e8, 6)],
)
def test_absolute_limits_depend_on_bits_and_size(bits: int, parameters: float, fail: float):
    facts = replace(HEALTHY, bits=bits, parameters=int(parameters))
    assert absolute_limits(facts, resolve_limits(CHECK, {}, {}))["kl"].fail == fail


def test_what_a_quantization_explains():
    assert expected_kl(HEALTHY) == pytest.approx(32 * 0.0935**2 + 0.0006)
    assert expected_kl(EIGHT) == pytest.approx(32 * (0.0083**2 + 0.0258**2) + 0.0006)
    assert expected_kl(replace(HEALTHY, weight_nrmse=None)) is None


@pytest.mark.parametrize(
    ("changes", "settled"),
    [
        pytest.param({}, True, id="clear of every limit"),
        pytest.param({"kl": around(0.6, 0.3)}, False, id="KL over its warning"),
        pytest.param({"top1": around(0.5, 0.1)}, False, id="agreement over a limit"),
        pytest.param({"kl": around(20, 3), "top1": around(0.0, 0.05)}, True, id="broken beyond doubt"),
        pytest.param({"kl": LEAST}, False, id="no interval yet"),
        pytest.param({"kl": LEAST, "not_finite": 1}, True, id="a position without numbers"),
        pytest.param({"perplexity_ratio": around(1.6, 0.5)}, True, id="perplexity does not ask for more positions"),
    ],
)
def test_when_more_positions_are_needed(changes: dict[str, Interval], settled: bool):
    assert is_settled(replace(HEALTHY, **changes), resolve_limits(CHECK, {}, {})) is settled


def test_figures_are_reported():
    blocks = (BlockFact(block="model.layers.0", drift=0.04), BlockFact(block="model.layers.1", drift=0.06, error=0.1))
    measured = judge("outputs.divergence", replace(HEALTHY, blocks=blocks, recorded=True))[1]
    figures = measured["outputs.divergence"]
    assert figures["reference"] == "recorded"
    assert figures["kl"] == {"value": 0.21, "low": pytest.approx(0.17), "high": pytest.approx(0.25)}
    assert figures["excess"] == pytest.approx(0.21 / figures["expected_kl"])
    assert figures["top1"]["value"] == 0.75
    assert measured["outputs.blocks"] == [
        {"block": "model.layers.0", "drift": 0.04, "error": None},
        {"block": "model.layers.1", "drift": 0.06, "error": 0.1},
    ]
