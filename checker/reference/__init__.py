"""The reference file: all that the checks need of a baseline, so that no cell has to load it, or even to have it.

A safetensors file (design §3). The tensor ``summary`` holds JSON: what the reference is of, the baseline's config and
tensor headers, its texts. The others, R being the number of a row of probe tokens and L its scored positions:

- ``tokens.R`` I32 [L + 1]: position i is scored by the distribution after tokens 0 … i, the true token being i + 1.
- ``log_probabilities.R`` F32 [L, vocabulary], in a reference of the cache; or, in a recorded one,
  ``likely.R`` I32 [L, 256] and ``likely_log_probabilities.R`` F32 [L, 256], the most likely tokens, best first. The
  rest is one lump, so that a divergence read from it is a lower bound (data-processing inequality).
- ``true_log_probabilities.R``, ``entropies.R`` F32 [L]; ``most_likely.R`` I32 [L].
- ``noise.R`` F32 [L]: divergence from itself of the baseline with relative noise ``noise_nrmse`` in its linear weights.
  The noise constant is C = mean(noise) / noise_nrmse² (linearity: arXiv 2411.17525), taken over just those positions
  that are compared. ``self_noise.R``: the same for rounding noise in every layer's output.
- ``hidden.B`` U16 [positions, hidden], the bits of bfloat16: the residual stream after block B.
- ``sample.N`` U8: the bytes of some whole rows of a baseline tensor, for weights.error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from checker.domain import Json
from checker.facts.divergence import CHANCE
from checker.facts.texts import Continuation

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Integers = npt.NDArray[np.int32]

SCHEMA = "quant-verify/reference/1"
TOP = 256  # tokens kept of each recorded position
ROW_LENGTHS = (64, 192, 256, 256, 256)  # scored positions of each row of the probe text
NOISE = 0.05  # relative, in the baseline's weights: between the errors of 8-bit (1 %) and 4-bit (10 %) quantization
LEAST_POSITIONS = 16  # of the first row; fewer have no interval worth the name
STAGES = (1, 2, 5)  # rows after which a verdict is tried: 64, 256 and 1,024 positions


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """What a reference is of. One that differs in any of these belongs to something else."""

    baseline: str  # as a matrix spells it
    revision: str  # the commit, or a digest of the folder's headers and samples of its data
    tokenizer: str  # digest, "" when the baseline has none
    prompts: str  # digest of probe text and prompts


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Whole rows of one baseline tensor: ``rows`` of them from ``first`` on."""

    name: str
    first: int
    rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The JSON part of a reference."""

    schema: Literal["quant-verify/reference/1"] = "quant-verify/reference/1"
    identity: Identity
    dtype: str  # in which the baseline ran
    device: str
    versions: Mapping[str, str] = field(default_factory=dict)
    full: bool  # all log-probabilities, or the most likely ones and a lump
    vocabulary: int
    rows: int
    noise_nrmse: float
    parameters: int  # of the model, ties counted once
    config: Mapping[str, Json] = field(default_factory=dict)
    tensors: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)  # name: (dtype, shape)
    norms: Mapping[str, float] = field(default_factory=dict)  # ‖W‖ of every sampled tensor
    samples: tuple[Sample, ...] = ()
    blocks: tuple[str, ...] = ()
    block_positions: tuple[int, ...] = ()
    continuations: tuple[Continuation, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of the probe text with what the baseline makes of it; shapes in the module's docstring."""

    tokens: tuple[int, ...]
    true_log_probabilities: Floats
    entropies: Floats
    most_likely: Integers
    noise: Floats
    self_noise: Floats
    log_probabilities: Floats  # of all tokens, or of the likely ones
    likely: Integers | None  # None: of all

    @property
    def positions(self) -> int:
        """Scored positions."""
        return len(self.tokens) - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A reference file that was read: rows and samples are views of the mapped file."""

    path: Path
    summary: Summary
    rows: tuple[Row, ...]
    hidden: Mapping[str, Floats] = field(default_factory=dict)  # by block, [positions, hidden]
    samples: Mapping[str, npt.NDArray[np.uint8]] = field(default_factory=dict, repr=False)

    @property
    def models_text(self) -> bool:
        """Whether the baseline predicts the probe text far better than chance."""
        losses = [float(-row.true_log_probabilities.mean()) for row in self.rows]
        return sum(losses) / len(losses) < CHANCE * math.log(self.summary.vocabulary)

    @property
    def recorded(self) -> bool:
        """Whether only the most likely tokens are kept."""
        return not self.summary.full


def read_reference(path: Path) -> Reference:
    """Open a reference file.

    Raises:
        Unavailable: it cannot be read, is no reference, or is damaged; names the file and what to do.
    """
    from checker.reference.read import read

    return read(path)
