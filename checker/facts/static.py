"""Facts from files: config, tensor headers, and the numbers in the tensors. No torch is needed to gather them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from checker.domain import Json, Severity


@dataclass(frozen=True, kw_only=True, slots=True)
class Flaw:
    """Something wrong with a file, a key or a tensor as such; ``where`` names it. A check adds nothing but its id."""

    message: str
    where: str = ""
    severity: Severity = Severity.FAIL
    observed: Json = None
    expected: Json = None
    hint: str = ""


class TensorFact(NamedTuple):  # there are ninety thousand of them in a large mixture
    """One stored tensor: dtype as in the safetensors header (``BF16``), shape, size in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectedTensor:
    """What a layout says one tensor must look like. ``nbytes`` None: any size up to ``max_bytes`` (a JSON blob)."""

    name: str
    dtype: str
    shape: tuple[int, ...] | None
    nbytes: int | None
    max_bytes: int = 0
    companion: bool = True  # False for the packed weight itself
    optional: bool = False  # older writers leave it out


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredWeight:
    """One quantized weight as a method reads it from headers and quantization state.

    ``shape`` is the dense shape, [out, in] as stored (Conv1D weights are stored transposed), None when the state does
    not tell. ``attributes`` are the facts that the config must agree with: bits, quant_type, block_size, …; they come
    from headers and state, not from the config. ``grid`` is the matrix that is decoded, (0, 0) for all leading
    dimensions of ``shape`` × the last one; ``grain`` says at which rows and columns a part of it may begin and end
    (columns 0: only whole rows).
    """

    module: str
    weight: str  # name of the packed tensor
    shape: tuple[int, ...] | None
    attributes: Mapping[str, Json]
    expected: tuple[ExpectedTensor, ...]
    flaws: tuple[Flaw, ...] = ()
    dense: str = ""  # name of the dense tensor it was made from; "": that of the packed one
    dense_parts: tuple[str, ...] = ()  # where there is none of that name: those whose rows, in turn, are its rows
    grid: tuple[int, int] = (0, 0)
    grain: tuple[int, int] = (1, 0)
    incomparable: str = ""  # why its values cannot be compared with the baseline's (rotated, …)

    def __post_init__(self) -> None:
        """Fill in what follows from the other fields."""
        if not self.dense:
            object.__setattr__(self, "dense", self.weight)
        if self.grid == (0, 0) and self.shape:
            object.__setattr__(self, "grid", (math.prod(self.shape[:-1]), self.shape[-1]))


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleFact:
    """One matrix-like weight of the model, quantized or not: what it is, what is stored, what the config asks for."""

    name: str  # module name, without ".weight"
    weight: str  # tensor name
    role: str  # linear, expert, head, embedding, router, vision, other
    shape: tuple[int, ...] | None  # dense shape, None when unknown
    dtype: str
    quantized: bool  # as stored
    wanted: bool | None  # as declared; None: the config and the architecture leave it open
    reason: str = ""  # why it is wanted dense: "listed in llm_int8_skip_modules", "output head", …
    declared: Mapping[str, Json] = field(default_factory=dict)  # what the config says of this module's layout


@dataclass(frozen=True, kw_only=True, slots=True)
class SkipEntry:
    """One entry of the config's skip list and how many modules it keeps dense."""

    entry: str
    matches: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TiedFact:
    """A tensor that shares its data with another one; ``stored`` when the file nevertheless holds it."""

    name: str
    source: str
    stored: bool
    quantized: bool
    allowed: bool = False  # the method applies a quantized embedding as the head


@dataclass(frozen=True, kw_only=True, slots=True)
class ByteRow:
    """Predicted and stored bytes of one tensor; None on the side where there is no such tensor."""

    name: str
    predicted: int | None
    stored: int | None
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryFact:
    """The bytes of every tensor, predicted from the dense shapes and the declared method, and as stored."""

    rows: tuple[ByteRow, ...]  # only those that differ
    predicted_bytes: int
    stored_bytes: int
    baseline_bytes: int | None  # None without a baseline
    source: str  # where the dense shapes come from: "baseline" or "checkpoint"


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactFacts:
    """What ``config.json`` and the tensor headers say; gathered without torch (depth static)."""

    flaws: tuple[Flaw, ...]  # of the files themselves
    config: Mapping[str, Json] | None
    config_key: str  # "quantization_config", "text_config.quantization_config", or "" when there is none
    quantization_config: Mapping[str, Json] | None
    declared_method: str | None  # method id, None when no known method is declared
    stored_method: str | None  # method id recognised from the headers, None when nothing is packed
    known_methods: tuple[str, ...]  # the quant_method values that quant-verify knows
    key_flaws: tuple[Flaw, ...]
    declared: Mapping[str, Json]  # attributes as the config declares them
    roundtrip: Mapping[str, Json] | None  # quantization_config after dict → JSON → dict
    tensors: Mapping[str, TensorFact]
    weights: tuple[StoredWeight, ...]
    modules: tuple[ModuleFact, ...]
    skip_entries: tuple[SkipEntry, ...]
    tied: tuple[TiedFact, ...]
    fused_groups: tuple[tuple[str, ...], ...]  # modules that run times fuse: q/k/v, gate/up
    architecture: str
    architecture_known: bool
    stored_dense: str = ""  # why the declared method need not have packed anything
    memory: MemoryFact | None  # None when neither a baseline nor stored shapes allow a prediction


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleFact:
    """The scales of one quantized weight, all of them, after nested scales are resolved."""

    layer: str
    blocks: int
    not_finite: int = 0
    negative: int = 0
    zero: int = 0
    zero_with_data: int = 0  # zero scales of blocks whose codes do not all decode to zero
    negative_allowed: bool = False
    constant: bool = False  # more than one block and every scale the same
    flaw: str = ""  # a contradiction in what the scales are made of


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeFact:
    """The codes of one quantized weight: code book, extreme codes, entropy."""

    layer: str
    blocks: int  # examined
    with_extreme: int  # of them, blocks that hold an extreme code (zero blocks count as such)
    entropy_bits: float
    unused_codes: int
    single: bool = False  # every examined code is the same
    code_book_flaw: str = ""  # how the stored code book differs from the canonical one


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorFact:
    """Decoded weight Ŵ against the baseline's W, over the examined blocks.

    ``ratio`` is R = Σ(Ŵ−W)² / P with P the squared error predicted from scales and codes; ``gain`` is ⟨Ŵ,W⟩/⟨Ŵ,Ŵ⟩;
    ``centred_gain`` is gain·(1 + P/‖Ŵ‖²), 1 for a healthy quantization of any width.
    """

    layer: str
    ratio: float
    nrmse: float
    sqnr_db: float
    gain: float
    centred_gain: float
    bits: int
    fitted_gains: bool = False  # of rows and columns, which calibration rescales
    values: int = 0  # examined; a few hundred scatter by several per cent. 0: enough not to matter
    flaw: str = ""  # why no comparison was possible: missing in the baseline, another shape


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightFacts:
    """Numbers from the stored tensors (numpy, no torch)."""

    sampled: bool
    baseline: bool
    scales: tuple[ScaleFact, ...]
    codes: tuple[CodeFact, ...]
    errors: tuple[ErrorFact, ...]
    undecodable: tuple[Flaw, ...] = ()  # weights that could not be decoded, with the reason
    examined: int = 0  # of ``total`` weights
    total: int = 0
    incomparable: str = ""  # why values are not compared with the baseline's, if none can be
