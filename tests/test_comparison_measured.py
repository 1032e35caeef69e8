"""Figures of two runs: how far one may go before it is told, and before it is worse."""

from __future__ import annotations

import math

import pytest
from comparison_parts import measured

WORSE, CHANGED, BETTER = "worse", "changed", "better"


def estimate(value, half=0.04):
    return {"value": value, "low": value - half, "high": value + half}


def divergence(**figures):
    return {"outputs.divergence": {"reference": "cached", "self_noise": 0.0006, **figures}}


def layers(**ratios):
    return {"weights": [{"layer": name, "R": ratio} for name, ratio in ratios.items()]}


def errors(*values, **extra):
    return {"weights": [{"layer": f"l{number}", "nrmse": value, **extra} for number, value in enumerate(values)]}


def table(key, **figures):
    return {key: figures}


def seen(old, new):
    return [(item.id, item.where, item.direction) for item in measured(old, new).figures]


KL, TOP1, PERPLEXITY = "outputs.divergence.kl", "outputs.divergence.top1", "outputs.divergence.perplexity_ratio"


@pytest.mark.parametrize(
    ("old", "new", "direction"),
    [
        pytest.param(0.21, 0.21, None, id="the same"),
        pytest.param(0.21, 0.245, None, id="within the error of the difference"),
        pytest.param(0.21, 0.26, CHANGED, id="beyond it, intervals still touch"),
        pytest.param(0.21, 0.30, WORSE, id="intervals are apart, upwards"),
        pytest.param(0.30, 0.21, BETTER, id="intervals are apart, downwards"),
    ],
)
def test_a_figure_with_an_interval(old, new, direction):
    expected = [] if direction is None else [direction]
    for name, path in (("kl", KL), ("perplexity_ratio", PERPLEXITY)):
        found = measured(divergence(**{name: estimate(old)}), divergence(**{name: estimate(new)})).figures
        assert [(item.id, item.direction) for item in found] == [(path, item) for item in expected]
    other_way = {WORSE: BETTER, BETTER: WORSE}
    found = seen(divergence(top1=estimate(old)), divergence(top1=estimate(new)))
    assert found == [(TOP1, "", other_way.get(item, item)) for item in expected]


def test_a_change_keeps_its_intervals():
    (found,) = measured(divergence(kl=estimate(0.2)), divergence(kl=estimate(0.4))).figures
    assert (found.old_interval.value, found.new_interval.high) == (0.2, 0.4 + 0.04)


def test_what_rounding_alone_does_to_the_same_weights_is_no_change():
    old, new = divergence(kl=estimate(0.0001, 0.00001)), divergence(kl=estimate(0.0006, 0.00001))
    assert seen(old, new) == []
    old["outputs.divergence"]["self_noise"] = 0.0
    assert seen(old, new) == []
    new["outputs.divergence"]["self_noise"] = 0.0
    assert seen(old, new) == [(KL, "", WORSE)]


@pytest.mark.parametrize(
    ("old_reference", "new_reference", "old", "new", "expected"),
    [
        pytest.param("recorded", "cached", 0.21, 0.30, [], id="a lower bound may have meant as much"),
        pytest.param("recorded", "cached", 0.21, 0.50, [(KL, "", WORSE)], id="but not twice as much"),
        pytest.param("cached", "recorded", 0.30, 0.21, [], id="a lower bound is lower"),
        pytest.param("recorded", "recorded", 0.21, 0.30, [(KL, "", WORSE)], id="two lower bounds compare"),
    ],
)
def test_a_recorded_reference_beside_a_full_one(old_reference, new_reference, old, new, expected):
    before, now = divergence(kl=estimate(old)), divergence(kl=estimate(new))
    before["outputs.divergence"]["reference"] = old_reference
    now["outputs.divergence"]["reference"] = new_reference
    assert seen(before, now) == expected


def test_a_divergence_that_became_infinite():
    endless = {"value": "Infinity", "low": 0.3, "high": "Infinity"}
    assert seen(divergence(kl=estimate(0.1)), divergence(kl=endless)) == [(KL, "", WORSE)]
    assert seen(divergence(kl=endless), divergence(kl=endless)) == []


@pytest.mark.parametrize(
    ("old", "new", "direction"),
    [
        pytest.param(0.967, 0.967, None, id="the same file"),
        pytest.param(0.967, 0.976, None, id="less than 1 %"),
        pytest.param(0.967, 0.98, CHANGED, id="more than 1 %"),
        pytest.param(0.967, 1.07, WORSE, id="more than 10 %"),
        pytest.param(0.967, "Infinity", WORSE, id="beyond all bounds"),
        pytest.param("Infinity", "Infinity", None, id="still beyond all bounds"),
        pytest.param("Infinity", 1.0, BETTER, id="back from there"),
        pytest.param(210.0, 0.967, BETTER, id="mended"),
        pytest.param(0.967, 0.5, CHANGED, id="closer than its codes explain is no better"),
        pytest.param("NaN", 0.967, None, id="what is no number is left to the checks"),
    ],
)
def test_the_error_of_a_layer(old, new, direction):
    assert seen(layers(a=old), layers(a=new)) == ([] if direction is None else [("weights.R", "a", direction)])


def test_the_worst_layer_comes_first():
    old = layers(a=1.0, b=1.0, c=1.0, d=2.0)
    new = layers(a=1.2, b=3.0, c=1.05, d=1.0)
    assert [(item.where, item.direction) for item in measured(old, new).figures] == [
        ("b", WORSE),
        ("a", WORSE),
        ("c", CHANGED),
        ("d", BETTER),
    ]


def test_samples_scatter():
    old, new = layers(a=0.95, b=0.95), layers(a=0.98, b=1.01)
    assert [where for _, where, _ in seen(old, new)] == ["b", "a"]
    new["weights"][0]["sampled"] = True
    assert [where for _, where, _ in seen(old, new)] == ["b"]


def test_a_coarser_quantization_shows_in_the_error_of_all_weights():
    assert seen(errors(0.09, 0.1), errors(0.12, 0.13)) == [("weights.nrmse", "", WORSE)]
    (found,) = measured(errors(0.3, 0.4), errors(0.4, 0.4)).figures
    assert found.old == pytest.approx(math.sqrt(0.125))
    assert seen(errors(0.1, 0.1), errors(0.1005, 0.1)) == []
    assert seen(errors(0.1), errors(0.1015)) == [("weights.nrmse", "", CHANGED)]
    assert seen(errors(0.1), errors(0.115)) == [("weights.nrmse", "", WORSE)]
    assert seen(errors(0.1, sampled=True), errors(0.104)) == []


def test_a_layer_less_is_told():
    assert seen(errors(0.1, 0.1), errors(0.1)) == [("weights.layers", "", CHANGED)]


@pytest.mark.parametrize(
    ("old", "new", "direction"),
    [(1_000_000, 1_000_000, None), (1_000_000, 1_000_012, CHANGED), (1_000_000, 1_002_000, WORSE), (9, 8, BETTER)],
)
def test_stored_bytes_are_exact(old, new, direction):
    old, new = (table("memory.ratio", stored_bytes=count) for count in (old, new))
    assert seen(old, new) == ([] if direction is None else [("memory.ratio.stored_bytes", "", direction)])


def test_bytes_in_memory():
    old = table("memory.footprint", footprint=5, true_bytes=1000, true_bytes_after_forward=1000)
    new = table("memory.footprint", footprint=6, true_bytes=1002, true_bytes_after_forward=1012)
    assert seen(old, new) == [
        ("memory.footprint.true_bytes", "", WORSE),
        ("memory.footprint.true_bytes_after_forward", "", CHANGED),  # some processors prepare the weights
    ]


def test_what_depends_on_the_machine_is_told_and_not_judged():
    old, new = table("outputs.likelihood", nll=1.2), table("outputs.likelihood", nll=5.0)
    assert seen(old, new) == [("outputs.likelihood.nll", "", CHANGED)]
    assert seen(old, table("outputs.likelihood", nll=1.219)) == []
    old, new = ({"outputs.modules": [{"layer": "a", "error": error}]} for error in (0.002, 0.5))
    assert seen(old, new) == [("outputs.modules.error", "a", CHANGED)]
    assert seen(old, {"outputs.modules": [{"layer": "a", "error": 0.0039}]}) == []


ODD = (None, True, "x", 7, math.nan, [], {}, [None], [[]], [{}], [{"layer": 3, "R": 1.0}], {"value": 1}, 10**400)
WHOLE = {
    **divergence(kl=estimate(0.2), top1=estimate(0.7), perplexity_ratio=estimate(1.2)),
    "weights": [{"layer": "a", "R": 1.0, "nrmse": 0.1}],
    "memory.ratio": {"stored_bytes": 10},
    "memory.footprint": {"true_bytes": 10},
    "outputs.likelihood": {"nll": 1.0},
    "outputs.modules": [{"layer": "a", "error": 0.1}],
    "texts": [{"prompt": "p", "text": "t"}],
    "libraries": {"bitsandbytes": "1"},
}


@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize("key", WHOLE)
def test_measurements_of_any_shape_are_survived(key, odd):
    assert not measured(WHOLE, {**WHOLE, key: odd}).figures
    assert not measured({**WHOLE, key: odd}, WHOLE).figures
    inner = WHOLE[key][0] if isinstance(WHOLE[key], list) else WHOLE[key]
    for name in inner:
        part = {**inner, name: odd}
        found = measured(WHOLE, {**WHOLE, key: [part] if isinstance(WHOLE[key], list) else part})
        assert {item.id for item in found.figures} <= {f"{key}.{name}"}  # an odd number may be one


@pytest.mark.parametrize(
    "crooked",
    [
        {"value": 0.9, "low": 0.1, "high": 0.2},
        {"value": 0.9, "low": 0.8},
        {"value": 0.9, "high": 1.0},
        {"low": 0.8, "high": 1.0},
        0.9,
    ],
)
def test_an_interval_in_no_order_is_none(crooked):
    assert seen(divergence(kl=estimate(0.1)), divergence(kl=crooked)) == []
