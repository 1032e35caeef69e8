"""What the probes find out, as plain frozen values: all that a check may read, and what its tests write as literals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorFact:
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
    not tell. ``attributes`` are the facts that the config must agree with: bits, quant_type, block_size, …
    """

    module: str
    weight: str  # name of the packed tensor
    shape: tuple[int, ...] | None
    attributes: Mapping[str, Json]
    expected: tuple[ExpectedTensor, ...]
    flaws: tuple[Flaw, ...] = ()


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


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadFacts:
    """What loading the checkpoint with transformers said."""

    flaw: str = ""  # why it did not load; the rest is then empty
    exception: str = ""
    model_class: str = ""
    missing_keys: tuple[str, ...] = ()
    unexpected_keys: tuple[str, ...] = ()
    mismatched_keys: tuple[str, ...] = ()
    is_quantized: bool = False
    quantizer: str | None = None  # class name of model.hf_quantizer
    config_roundtrip: tuple[Flaw, ...] = ()  # what the library's config class loses or changes


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModule:
    """One module of the loaded model that is, or should be, quantized."""

    name: str
    module_class: str
    weight_class: str
    weight_dtype: str
    quantized: bool
    expected: bool  # by the model built on the meta device and the skip rules
    device: str
    compute_dtype: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseParameter:
    """A parameter that is not quantized, with the dtype it has and the dtype it should have."""

    name: str
    dtype: str
    expected: str
    device: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """Memory and quantized-module count at one moment. Bytes; ``footprint`` is ``get_memory_footprint()``."""

    footprint: int
    true_bytes: int
    quantized_modules: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StructureFacts:
    """The loaded model as it stands in memory, before and after a first forward."""

    method: str
    modules: tuple[LoadedModule, ...]
    fused_experts: tuple[str, ...]  # 3-D expert parameters left dense
    dense: tuple[DenseParameter, ...]
    declared_compute_dtype: str | None
    storage_dtype: str | None  # weight dtype that the method keeps in memory
    device: str  # asked for
    before: Snapshot
    after: Snapshot | None  # None when the forward did not run
    forward_flaw: str = ""  # why it did not
    predicted_footprint: int = 0
    predicted_true_bytes: int = 0
    is_quantized_after: bool | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedText:
    """What the model continued a prompt with, and the beginnings that the matrix accepts."""

    prompt: str
    text: str
    accepted: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputFacts:
    """What the model computes."""

    flaw: str = ""  # why the forward pass failed; the rest is then empty
    positions: int = 0
    not_finite: int = 0  # logits that are NaN or infinite
    first_not_finite: str = ""  # the first module whose output is not finite
    texts: tuple[GeneratedText, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundtripFacts:
    """Saved before any forward, loaded again: what differs."""

    flaw: str = ""  # why saving or reloading failed
    missing: tuple[str, ...] = ()  # entries of the state dictionary that are gone
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()  # entries whose bytes, dtype or shape differ
    logit_difference: float = 0.0  # largest absolute difference
    logits_equal: bool = True
    note: str = ""  # an upstream limitation worked around


ORDER: tuple[type, ...] = (ArtifactFacts, WeightFacts, LoadFacts, StructureFacts, OutputFacts, RoundtripFacts)
"""Cheapest first: the order in which facts are gathered, and so in which checks run."""
