"""Facts of a healthy two-layer model as literals, and a way to hand changed ones to a check as a worker would."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from checker.domain import Finding, Json, Limit, Measurement, Severity
from checker.facts import (
    ArtifactFacts,
    CodeFact,
    DenseParameter,
    ErrorFact,
    ExpectedTensor,
    LoadedModule,
    LoadFacts,
    MemoryFact,
    ModuleFact,
    OutputFacts,
    RoundtripFacts,
    ScaleFact,
    SkipEntry,
    Snapshot,
    StoredWeight,
    StructureFacts,
    TensorFact,
    TiedFact,
    WeightFacts,
)
from checker.registry import Limits, all_checks, resolve_limits

Q, K, V, HEAD = "layers.0.q_proj", "layers.0.k_proj", "layers.0.v_proj", "lm_head"
CONFIG = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
DECLARED = {"bits": 4, "quant_type": "nf4", "double_quantization": False, "block_size": 64, "storage": "U8"}


@dataclass(frozen=True)
class Expect:
    """What a finding must be. ``says`` all stand in the message; ``observed`` and ``limit`` are compared if set."""

    where: str
    says: tuple[str, ...]
    severity: Severity = Severity.FAIL
    observed: Json = ...
    limit: Json = ...


def judge(
    check_id: str, *facts: object, limits: Mapping[str, Limit] | None = None
) -> tuple[list[Finding], dict[str, Json]]:
    """Findings and measurements of a registered check."""
    item = next(item for item in all_checks() if item.id == check_id)
    given = iter(facts)
    arguments = [
        resolve_limits(item, {}, {f"{check_id}.{name}": bar for name, bar in (limits or {}).items()})
        if need.kind is Limits
        else next(given)
        for need in item.needs
    ]
    said = list(item.function(*arguments))
    findings = [one for one in said if isinstance(one, Finding)]
    return findings, {one.key: one.value for one in said if isinstance(one, Measurement)}


def assert_findings(findings: Iterable[Finding], expected: Iterable[Expect]) -> None:
    """The findings are these, in any order."""
    findings, expected = list(findings), list(expected)
    for one in expected:
        [found] = [
            item for item in findings if item.where == one.where and all(word in item.message for word in one.says)
        ]
        assert found.severity is one.severity
        assert one.observed is ... or found.observed == one.observed
        assert one.limit is ... or found.limit == one.limit
    assert len(findings) == len(expected), findings


def tensor(name: str, dtype: str = "BF16", shape: tuple[int, ...] = (64, 64), nbytes: int = 8192) -> TensorFact:
    return TensorFact(name=name, dtype=dtype, shape=shape, nbytes=nbytes)


def stored(module: str, **changes: Any) -> StoredWeight:
    """A packed weight with two companions, one of them a blob, and one that older writers leave out."""
    weight = f"{module}.weight"
    parts = (
        ExpectedTensor(name=weight, dtype="U8", shape=(2048, 1), nbytes=2048, companion=False),
        ExpectedTensor(name=f"{weight}.absmax", dtype="F32", shape=(64,), nbytes=256),
        ExpectedTensor(name=f"{weight}.quant_state", dtype="U8", shape=None, nbytes=None, max_bytes=1024),
        ExpectedTensor(name=f"{weight}.optional", dtype="U8", shape=(), nbytes=1, optional=True),
    )
    values = {"module": module, "weight": weight, "shape": (64, 64), "attributes": DECLARED, "expected": parts}
    return StoredWeight(**{**values, **changes})


def module(name: str, **changes: Any) -> ModuleFact:
    values = {
        "name": name,
        "weight": f"{name}.weight",
        "role": "linear",
        "shape": (64, 64),
        "dtype": "U8",
        "quantized": True,
        "wanted": True,
    }
    return ModuleFact(**{**values, **changes})


def dense(name: str, **changes: Any) -> ModuleFact:
    return module(name, **{"dtype": "BF16", "quantized": False, **changes})


HEAD_MODULE = dense(HEAD, role="head", wanted=False, reason="the output head is kept by default")
MODULES = (module(Q), module(K), module(V), HEAD_MODULE)
TENSORS = {
    item.name: item
    for name in (Q, K, V)
    for item in (
        tensor(f"{name}.weight", "U8", (2048, 1), 2048),
        tensor(f"{name}.weight.absmax", "F32", (64,), 256),
        tensor(f"{name}.weight.quant_state", "U8", (90,), 90),
    )
} | {f"{HEAD}.weight": tensor(f"{HEAD}.weight")}


def artifact(**changes: Any) -> ArtifactFacts:
    healthy = ArtifactFacts(
        flaws=(),
        config={"architectures": ["LlamaForCausalLM"], "quantization_config": CONFIG},
        config_key="quantization_config",
        quantization_config=CONFIG,
        declared_method="bitsandbytes-4bit",
        stored_method="bitsandbytes-4bit",
        known_methods=("bitsandbytes",),
        key_flaws=(),
        declared=DECLARED,
        roundtrip=CONFIG,
        tensors=TENSORS,
        weights=(stored(Q), stored(K), stored(V)),
        modules=MODULES,
        skip_entries=(SkipEntry(entry="lm_head", matches=1),),
        tied=(TiedFact(name="lm_head.weight", source="embed.weight", stored=False, quantized=False),),
        fused_groups=((Q, K, V),),
        architecture="LlamaForCausalLM",
        architecture_known=True,
        memory=MemoryFact(rows=(), predicted_bytes=100, stored_bytes=100, baseline_bytes=400, source="baseline"),
    )
    return replace(healthy, **changes)


def not_quantized(**changes: Any) -> ArtifactFacts:
    """A dense model whose config says nothing of quantization."""
    nothing = {
        "quantization_config": None,
        "config_key": "",
        "declared_method": None,
        "stored_method": None,
        "declared": {},
        "roundtrip": None,
        "weights": (),
        "skip_entries": (),
    }
    return artifact(**{**nothing, **changes})


def error(**changes: Any) -> ErrorFact:
    values = {"layer": Q, "ratio": 0.95, "nrmse": 0.09, "sqnr_db": 20.9, "gain": 0.99, "centred_gain": 1.0, "bits": 4}
    return ErrorFact(**{**values, **changes})


def code(**changes: Any) -> CodeFact:
    values = {"layer": Q, "blocks": 1000, "with_extreme": 1000, "entropy_bits": 3.7, "unused_codes": 0}
    return CodeFact(**{**values, **changes})


def scale(**changes: Any) -> ScaleFact:
    return ScaleFact(**{"layer": Q, "blocks": 64, **changes})


def weights(**changes: Any) -> WeightFacts:
    healthy = {"sampled": False, "baseline": True, "scales": (scale(),), "codes": (code(),), "errors": (error(),)}
    return WeightFacts(**{**healthy, **changes})


def load(**changes: Any) -> LoadFacts:
    healthy = {"model_class": "LlamaForCausalLM", "is_quantized": True, "quantizer": "Bnb4BitHfQuantizer"}
    return LoadFacts(**{**healthy, **changes})


def loaded(**changes: Any) -> LoadedModule:
    healthy = {
        "name": Q,
        "module_class": "Linear4bit",
        "weight_class": "Params4bit",
        "weight_dtype": "uint8",
        "quantized": True,
        "expected": True,
        "device": "cpu",
        "compute_dtype": "bfloat16",
    }
    return LoadedModule(**{**healthy, **changes})


def parameter(**changes: Any) -> DenseParameter:
    healthy = {"name": "norm.weight", "dtype": "bfloat16", "expected": "bfloat16", "device": "cpu"}
    return DenseParameter(**{**healthy, **changes})


def snapshot(**changes: Any) -> Snapshot:
    return Snapshot(**{"footprint": 1000, "true_bytes": 1100, "quantized_modules": 3, **changes})


def structure(**changes: Any) -> StructureFacts:
    healthy = StructureFacts(
        method="bitsandbytes-4bit",
        modules=(loaded(),),
        fused_experts=(),
        dense=(parameter(),),
        declared_compute_dtype="bfloat16",
        storage_dtype="uint8",
        device="cpu",
        before=snapshot(),
        after=snapshot(),
        predicted_footprint=1000,
        predicted_true_bytes=1100,
        is_quantized_after=True,
    )
    return replace(healthy, **changes)


def outputs(**changes: Any) -> OutputFacts:
    return OutputFacts(**{"positions": 64, "not_finite": 0, **changes})


def roundtrip(**changes: Any) -> RoundtripFacts:
    return RoundtripFacts(**changes)
