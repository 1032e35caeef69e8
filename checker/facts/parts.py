"""Facts from single parts of a model that runs: its quantized modules one by one, and its blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from checker.facts.static import Flaw


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleErrorFact:
    """The output y of one quantized module against ŷ = x·Ŵᵀ + b, on its own input x and Ŵ decoded from the file.

    ``error`` is ‖y−ŷ‖/‖ŷ‖ over some positions and output rows, ``gain`` ⟨y,ŷ⟩/⟨ŷ,ŷ⟩: 1 for whatever rounds without
    bias, also of activations.
    """

    layer: str
    error: float
    gain: float
    integer: str = ""  # the type of its input or output where that holds no fractions: activations were cut to integers


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleErrorFacts:
    """Every quantized module of one forward pass against its weight decoded from the file."""

    activations: bool  # whether the modules quantize them as well, which is an error of its own
    positions: int = 0  # compared of each module, at most
    errors: tuple[ModuleErrorFact, ...] = ()  # in running order
    not_compared: tuple[Flaw, ...] = ()  # ``where`` is the module as stored, ``message`` why
    flaw: str = ""  # why the forward pass failed; the rest is then empty

    @property
    def mean_square(self) -> float:
        """Mean of the squared relative errors, for what divergence they explain; 0 when nothing was compared."""
        return sum(fact.error**2 for fact in self.errors) / max(len(self.errors), 1)

    @property
    def root_mean_square(self) -> float:
        """Root mean square of the relative errors."""
        return math.sqrt(self.mean_square)


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockFact:
    """One repeated block of a model, in running order.

    ``drift``: how far the residual stream after it is from the baseline's, relative; it accumulates. ``error``: how far
    this block's own change of the stream is from that of the baseline's block on the same input; None: not measured.
    """

    block: str
    drift: float | None = None
    error: float | None = None
