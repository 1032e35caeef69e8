"""Distances between distributions: against textbook formulas, and intervals against what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from checker.probes.divergence import FARTHEST, histogram, mean_interval, quantile, share_interval
from checker.reference import TOP, Row

torch = pytest.importorskip("torch")

POSITIONS, WORDS = 40, 700


def logits(seed: int, spread: float = 3.0):
    return torch.randn(POSITIONS, WORDS, generator=torch.Generator().manual_seed(seed)) * spread


def row_of(theirs, *, recorded: bool) -> Row:
    """A row of a reference for a model with these logits."""
    logs = torch.log_softmax(theirs.double(), dim=-1).float()
    zeros = np.zeros(POSITIONS, np.float32)
    top = logs.topk(min(TOP, WORDS), dim=1)
    return Row(
        tokens=tuple(range(POSITIONS + 1)),
        true_log_probabilities=zeros,
        entropies=zeros,
        most_likely=logs.argmax(dim=1).int().numpy(),
        noise=zeros,
        self_noise=zeros,
        log_probabilities=(top.values if recorded else logs).numpy(),
        likely=top.indices.int().numpy() if recorded else None,
    )


def textbook_kl(theirs, ours) -> np.ndarray:
    p, q = (torch.log_softmax(values.double(), dim=-1).numpy() for values in (theirs, ours))
    return (np.exp(p) * (p - q)).sum(axis=1)


def test_kl_is_that_of_the_textbook():
    from checker.probes.divergence import distance_of

    theirs, ours = logits(1), logits(2)
    found = distance_of(ours.clone(), row_of(theirs, recorded=False))
    np.testing.assert_allclose(found.kl, textbook_kl(theirs, ours), rtol=1e-5, atol=1e-6)
    logs = torch.log_softmax(ours.double(), dim=-1).numpy()
    np.testing.assert_allclose(found.true_log_probabilities, [logs[i, i + 1] for i in range(POSITIONS)], rtol=1e-5)
    np.testing.assert_allclose(found.entropies, -(np.exp(logs) * logs).sum(axis=1), rtol=1e-5)
    assert (found.same == (theirs.argmax(1) == ours.argmax(1)).numpy()).all()


@pytest.mark.parametrize("spread", [pytest.param(3.0, id="peaked"), pytest.param(0.1, id="nearly flat")])
def test_kl_of_the_likely_tokens_and_a_lump_is_a_lower_bound(spread: float):
    from checker.probes.divergence import distance_of

    theirs = logits(1, spread)
    ours = theirs + logits(2, 0.3)
    lump = distance_of(ours.clone(), row_of(theirs, recorded=True)).kl
    whole = textbook_kl(theirs, ours)
    assert (lump <= whole + 1e-6).all()
    assert lump.mean() > (0.8 if spread > 1 else 0.25) * whole.mean()


@pytest.mark.parametrize("recorded", [True, False])
def test_a_model_is_at_no_distance_from_itself(recorded: bool):
    from checker.probes.divergence import distance_of

    found = distance_of(logits(1), row_of(logits(1), recorded=recorded))
    assert found.kl.max() < 1e-5
    assert found.same.all()


def test_a_token_that_became_impossible_is_infinitely_far():
    from checker.probes.divergence import distance_of

    ours = logits(1)
    ours[0] = -math.inf
    ours[0, 3] = 0.0
    found = distance_of(ours, row_of(logits(1), recorded=False))
    assert found.kl[0] == FARTHEST
    assert found.kl[1:].max() < 100


@pytest.mark.parametrize("recorded", [True, False])
def test_logits_that_are_no_numbers_are_as_far_as_can_be(recorded: bool):
    from checker.probes.divergence import distance_of

    ours = logits(1)
    ours[7] = math.nan
    found = distance_of(ours, row_of(logits(1), recorded=recorded))
    assert found.kl[7] == FARTHEST
    assert np.delete(found.kl, 7).max() < 1e-5
    assert found.not_finite == 1


def test_the_interval_of_a_mean_holds_it_as_often_as_it_says():
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        found = mean_interval(random.lognormal(0.0, 1.0, 256))
        hits += found.low <= math.exp(0.5) <= found.high
    assert 0.88 <= hits / 400 <= 0.99


def test_neighbours_that_are_alike_widen_the_interval():
    values = np.random.default_rng(0).normal(size=32)
    apart, alike = mean_interval(np.tile(values, 8)), mean_interval(np.repeat(values, 8))
    assert alike.high - alike.low > 1.5 * (apart.high - apart.low)


def test_too_few_positions_have_no_interval():
    found = mean_interval(np.array([1.0, 2.0, 3.0]))
    assert (found.value, found.low, found.high) == (2.0, -math.inf, math.inf)


@pytest.mark.parametrize(("freedom", "table"), [(4, 2.776), (7, 2.365), (31, 2.040), (127, 1.979), (10**6, 1.960)])
def test_students_t(freedom: int, table: float):
    assert quantile(freedom) == pytest.approx(table, rel=0.01)


@pytest.mark.parametrize(
    ("hits", "low", "high"),
    [(0, 0.0, 0.057), (32, 0.381, 0.619), (64, 0.943, 1.0)],
    ids=["none", "half", "all"],
)
def test_the_interval_of_a_share_stays_between_nothing_and_all(hits: int, low: float, high: float):
    found = share_interval(np.arange(64) < hits)
    assert (found.low, found.high) == (pytest.approx(low, abs=2e-3), pytest.approx(high, abs=2e-3))


def test_the_histogram_counts_every_position():
    values = np.array([0.0, 1e-9, 0.002, 0.02, 0.021, 0.5, 1e6])
    found = histogram(values)
    assert sum(count for _, count in found) == len(values)
    assert dict(found)[-2.0] == 2
    assert found[0][0] == -7.0
    assert found[-1][0] == 1.5
