"""How far a quantized model's next-token distributions are from its baseline's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from checker.facts.parts import BlockFact

CHANCE = 0.7  # of the nats per token that a guess among all tokens costs


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """An estimate and its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class DivergenceFacts:
    """The same probe text under both models, position by position; the baseline's side comes from a reference.

    KL is Σ p (ln p − ln q) over the vocabulary, in nats, p being the baseline's distribution: a lower bound where the
    reference is recorded (the most likely tokens and a lump). ``noise_constant``: C of KL = C · NRMSE², measured on the
    baseline with noise in its weights, at the same positions. ``self_noise``: KL of rounding noise alone.
    """

    positions: int
    not_finite: int = 0  # of them, those whose logits are NaN or infinite
    kl: Interval
    kl_percentiles: Mapping[str, float]  # p10 … max
    kl_histogram: tuple[tuple[float, int], ...]  # (lower edge as log10, count), half decades
    top1: Interval  # share of positions with the same most likely token
    delta_p: float  # mean of q − p for the true token
    delta_p_rms: float
    perplexity: float
    baseline_perplexity: float
    perplexity_ratio: Interval  # paired
    entropy_ratio: float  # mean entropy over the baseline's
    noise_constant: float
    self_noise: float
    weight_nrmse: float | None  # that a correct quantization of these scales and codes has; None: not decoded
    module_error: float | None = None  # of quantized modules against their decoded weights; None: not measured
    activations: bool = False  # quantized as well
    bits: int | None = None  # of most weights
    parameters: int  # of the baseline
    vocabulary: int
    recorded: bool
    blocks: tuple[BlockFact, ...] = ()  # in running order
    culprit: str = ""  # the first block that departs from the baseline's, where that was looked for

    @property
    def models_text(self) -> bool:
        """Whether the baseline predicts the probe text far better than chance, so that absolute limits mean something.

        A model of random weights gives all tokens about the same probability: its most likely one is an accident.
        """
        return math.log(self.baseline_perplexity) < CHANCE * math.log(self.vocabulary)
