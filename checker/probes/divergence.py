"""The distance between two models' next-token distributions, from one's logits and the other's reference.

Formulas as in llama.cpp's ``perplexity --kl-divergence`` (tools/perplexity/perplexity.cpp), without its cut at 16 nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from checker.facts import BlockFact, DivergenceFacts, Interval
from checker.probes.thrift import at_once
from checker.reference import Reference, Row

FARTHEST = 1000.0  # nats; stands for infinity, which a token that became impossible costs, and for NaN
BATCH = 8  # positions; neighbours are alike, so that the spread of a mean is taken from the means of batches
Z = 1.959964  # of the normal distribution, 95 % two-sided
SMALLEST_LUMP = 1e-5  # probability
LEAST_POWER, MOST_POWER = -7.0, 1.5  # of ten: the histogram's ends

PERCENTILES = {"p10": 10, "p50": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100}

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainedError:
    """What a quantization is known to cost: relative errors of weights and of modules; None where not measured."""

    weights: float | None = None
    modules: float | None = None
    activations: bool = False  # quantized as well
    bits: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RowDistance:
    """What one row of the probe text says, position by position; arrays of [positions]."""

    kl: Doubles
    same: npt.NDArray[np.bool_]  # the most likely token is the baseline's
    true_log_probabilities: Doubles
    entropies: Doubles
    not_finite: int = 0  # positions whose logits are NaN or infinite


def distance_of(logits: Any, row: Row) -> RowDistance:
    """Compare logits [positions or more, vocabulary] (float32, any device) with a row of a reference.

    A few positions at a time: what is computed on the way takes several times the memory of the logits themselves.
    """
    step = at_once(logits)
    return joined([_distance(logits, row, slice(at, at + step)) for at in range(0, row.positions, step)])


def _distance(logits: Any, row: Row, part: slice) -> RowDistance:
    """The same of some positions; ``part`` may reach beyond the last."""
    import torch

    part = slice(part.start, min(part.stop, row.positions))
    logs = log_softmax(logits[part].clone())
    tokens = torch.tensor(row.tokens[1:][part], device=logs.device)
    true = logs.gather(1, tokens[:, None])[:, 0]
    theirs = torch.tensor(row.log_probabilities[part], device=logs.device)  # a copy: the file is mapped read-only
    if row.likely is None:
        kl = _weighted(theirs, theirs - logs)
    else:
        kl = lumped(theirs, logs.gather(1, torch.tensor(row.likely[part], device=logs.device).long()))
    return RowDistance(
        kl=np.nan_to_num(_double(kl), nan=FARTHEST).clip(0.0, FARTHEST),  # NaN: the model's logits are no numbers
        same=logs.argmax(dim=1).cpu().numpy() == row.most_likely[part],
        true_log_probabilities=_double(true),
        entropies=_double(-_weighted(logs, logs)),
        not_finite=int((~logits[part].isfinite().all(dim=1)).sum()),
    )


def log_softmax(logits: Any) -> Any:
    """Ln of the probabilities, in place: a row of a large vocabulary is not held twice."""
    logits -= logits.logsumexp(dim=-1, keepdim=True)
    return logits


def _weighted(log_probabilities: Any, values: Any) -> Any:
    """Σ p · values over the vocabulary; what has no probability counts as nothing, whatever its value."""
    import torch

    p = log_probabilities.exp()
    return torch.where(p > 0, p * values, 0.0).sum(dim=-1)


def lumped(theirs: Any, ours: Any) -> Any:
    """KL over the tokens kept and one lump of all others, [positions, kept] → [positions].

    Either lump is what is left of one, which float32 logarithms tell to ``SMALLEST_LUMP``: less counts as that little,
    and as nothing on the baseline's side, so that the sum stays a lower bound.
    """
    import torch

    theirs, ours = theirs.double(), ours.double()
    p = theirs.exp()
    p_rest = 1 - p.sum(dim=-1)
    q_rest = (1 - ours.exp().sum(dim=-1)).clamp(min=SMALLEST_LUMP)
    rest = torch.where(p_rest > SMALLEST_LUMP, p_rest * (p_rest.clamp(min=SMALLEST_LUMP).log() - q_rest.log()), 0.0)
    return torch.where(p > 0, p * (theirs - ours), 0.0).sum(dim=-1) + rest


def _double(values: Any) -> Doubles:
    found: Doubles = values.double().cpu().numpy()
    return found


def mean_interval(values: Doubles) -> Interval:
    """The mean with its 95 % interval, from the means of batches of neighbours (Student's t)."""
    count = len(values) // BATCH
    mean = float(values.mean())
    if count < 2 or not math.isfinite(mean):  # noqa: PLR2004 - one batch has no spread
        return Interval(value=mean, low=-math.inf if math.isfinite(mean) else mean, high=math.inf)
    means = values[: count * BATCH].reshape(count, BATCH).mean(axis=1)
    half = quantile(count - 1) * float(means.std(ddof=1)) / math.sqrt(count)
    return Interval(value=mean, low=mean - half, high=mean + half)


def share_interval(hits: npt.NDArray[np.bool_]) -> Interval:
    """A share with Wilson's 95 % interval, which stays within 0 … 1."""
    n, share = len(hits), float(hits.mean())
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return Interval(value=share, low=max(0.0, centre - half), high=min(1.0, centre + half))


def quantile(freedom: int) -> float:
    """Student's t at 97.5 %, by Cornish and Fisher's expansion; within 1 % from 4 degrees of freedom on."""
    first = (Z**3 + Z) / 4
    second = (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96
    third = (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / 384
    return Z + first / freedom + second / freedom**2 + third / freedom**3


def histogram(values: Doubles) -> tuple[tuple[float, int], ...]:
    """Counts by half decades, empty ends left out; what is beyond counts in the outermost."""
    powers = np.log10(np.maximum(values, 10.0**LEAST_POWER))
    bins = np.clip(np.floor(powers * 2) / 2, LEAST_POWER, MOST_POWER)
    low, high = float(bins.min()), float(bins.max())
    edges = np.arange(low, high + 0.25, 0.5)
    return tuple((float(edge), int(np.count_nonzero(bins == edge))) for edge in edges)


def joined(rows: Sequence[RowDistance]) -> RowDistance:
    """The rows one after the other."""
    return RowDistance(
        kl=np.concatenate([row.kl for row in rows]),
        same=np.concatenate([row.same for row in rows]),
        true_log_probabilities=np.concatenate([row.true_log_probabilities for row in rows]),
        entropies=np.concatenate([row.entropies for row in rows]),
        not_finite=sum(row.not_finite for row in rows),
    )


def summarise(
    parts: Sequence[RowDistance],
    reference: Reference,
    *,
    error: ExplainedError,
    blocks: tuple[BlockFact, ...] = (),
) -> DivergenceFacts:
    """The facts of the first rows of a reference, as many as were compared."""
    found, rows = joined(parts), reference.rows[: len(parts)]
    true = np.concatenate([row.true_log_probabilities for row in rows]).astype(np.float64)
    delta = np.exp(found.true_log_probabilities) - np.exp(true)
    losses = mean_interval(true - found.true_log_probabilities)
    noise = np.concatenate([row.noise for row in rows]).astype(np.float64)
    entropies = float(np.concatenate([row.entropies for row in rows]).mean())
    return DivergenceFacts(
        positions=len(found.kl),
        not_finite=found.not_finite,
        kl=mean_interval(found.kl),
        kl_percentiles={name: float(np.percentile(found.kl, share)) for name, share in PERCENTILES.items()},
        kl_histogram=histogram(found.kl),
        top1=share_interval(found.same),
        delta_p=float(delta.mean()),
        delta_p_rms=math.sqrt(float(np.square(delta).mean())),
        perplexity=_exp(-float(found.true_log_probabilities.mean())),
        baseline_perplexity=_exp(-float(true.mean())),
        perplexity_ratio=Interval(value=_exp(losses.value), low=_exp(losses.low), high=_exp(losses.high)),
        entropy_ratio=float(found.entropies.mean()) / entropies if entropies else 1.0,
        noise_constant=float(noise.mean()) / reference.summary.noise_nrmse**2,
        self_noise=float(np.concatenate([row.self_noise for row in rows]).mean()),
        weight_nrmse=error.weights,
        module_error=error.modules,
        activations=error.activations,
        bits=error.bits,
        parameters=reference.summary.parameters,
        vocabulary=reference.summary.vocabulary,
        recorded=reference.recorded,
        blocks=blocks,
    )


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))  # the largest that a float can hold
