"""Facts from a model: built without weights, loaded, run, saved and loaded again."""

from __future__ import annotations

from dataclasses import dataclass

from checker.facts.static import Flaw


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchitectureFacts:
    """The tensors of the model built on the meta device against those of the file; names of what differs."""

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[Flaw, ...] = ()  # observed and expected are dense shapes


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
    fused_experts: tuple[str, ...]  # 3-D expert parameters held dense
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
    unpacked_experts: tuple[str, ...] = ()  # of the fused ones, those that the file packs
    stored_dense: str = ""  # why the file packs nothing, by its method


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputFacts:
    """What the model computes."""

    flaw: str = ""  # why the forward pass failed; the rest is then empty
    positions: int = 0
    not_finite: int = 0  # logits that are NaN or infinite
    first_not_finite: str = ""  # the first module whose output is not finite
    head_finite: bool = True  # what the model's own output head gives in its own dtype


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
