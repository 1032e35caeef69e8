"""Tiny random models, their quantizations by the real libraries, and a way to damage a copy of one.

Sizes obey the CPU kernels of bitsandbytes (out divisible by 32, in by 64), so that every model here also runs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from checker.domain import Cell, CheckResult, Depth, Json, Limit, ModelRef, Outcome, Settings
from checker.protocol import Finished, Job, ReferenceJob
from checker.reference import Identity
from checker.reference.identity import folder_revision, prompts_digest, tokenizer_digest
from checker.registry import all_checks
from checker.worker import judge

WEIGHTS = "model.safetensors"
STATIC = tuple(item.id for item in all_checks() if item.depth is Depth.STATIC and item.opt_in is None)

FOUR = {"quant_method": "bitsandbytes", "load_in_4bit": True}
NF4 = {**FOUR, "bnb_4bit_quant_type": "nf4"}
VARIANTS: Mapping[str, Mapping[str, Json]] = {
    "nf4": NF4,
    "nf4-double": {**NF4, "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": "bfloat16"},
    "nf4-bf16-storage": {**NF4, "bnb_4bit_quant_storage": "bfloat16"},
    "fp4": {**FOUR, "bnb_4bit_quant_type": "fp4"},
    "int8": {"quant_method": "bitsandbytes", "load_in_8bit": True},
}
_LLAMA = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 160,
    "max_position_embeddings": 64,
}
_T5 = {"d_model": 64, "d_ff": 128, "d_kv": 16, "num_heads": 4, "num_layers": 2, "vocab_size": 160}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "head_dim": 16}
MODELS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama": ("Llama", {**_LLAMA, "tie_word_embeddings": False}),
    "llama-tied": ("Llama", {**_LLAMA, "tie_word_embeddings": True}),
    "gpt2": ("GPT2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 160, "n_positions": 64}),
    "bloom": ("Bloom", {"hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 160}),
    "opt": (
        "OPT",
        {
            "hidden_size": 64,
            "ffn_dim": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "vocab_size": 160,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": 64,
        },
    ),
    "t5": ("T5", _T5),
    "switch": (
        "SwitchTransformers",
        {**_T5, "num_decoder_layers": 2, "num_experts": 32, "num_sparse_encoder_layers": 1},
    ),
    "qwen3-moe": ("Qwen3Moe", {**_LLAMA, **_EXPERTS, "tie_word_embeddings": False}),
}
FUSED_EXPERTS = ("qwen3-moe",)  # a mixture whose experts are one parameter, which bitsandbytes leaves in 16 bit
_SUFFIX = {"GPT2": "LMHeadModel", "T5": "ForConditionalGeneration", "SwitchTransformers": "ForConditionalGeneration"}


def save_baseline(name: str, folder: Path) -> Path:
    """A model of random weights in bfloat16."""
    import torch
    import transformers

    family, options = MODELS[name]
    torch.manual_seed(sum(map(ord, name)))
    config = getattr(transformers, f"{family}Config")(**options)
    model = getattr(transformers, family + _SUFFIX.get(family, "ForCausalLM"))(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


def save_quantized(baseline: Path, folder: Path, quantization: Mapping[str, Json]) -> Path:
    """The baseline quantized at load time and saved, as a publisher does it."""
    import transformers

    config = json.loads((baseline / "config.json").read_text())
    model = getattr(transformers, config["architectures"][0]).from_pretrained(
        baseline,
        dtype="auto",
        device_map={"": "cpu"},
        quantization_config=transformers.BitsAndBytesConfig.from_dict(dict(quantization)),
    )
    model.save_pretrained(folder)
    return folder


class Zoo:
    """Baselines and their quantizations, each made once, when first asked for. Never write into them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def baseline(self, name: str) -> Path:
        folder = self.root / name / "baseline"
        return folder if folder.exists() else save_baseline(name, folder)

    def quantized(self, name: str, variant: str) -> Path:
        folder = self.root / name / variant
        return folder if folder.exists() else save_quantized(self.baseline(name), folder, VARIANTS[variant])

    def reference(self, name: str, *, full: bool = True) -> Path:
        """What the checks of outputs need of a baseline, as the cache keeps it or as it is recorded."""
        path = self.root / name / ("cached.safetensors" if full else "recorded.safetensors")
        return path if path.exists() else save_reference(self.baseline(name), path, full=full)


def save_reference(baseline: Path, path: Path, *, full: bool = True, device: str = "cpu") -> Path:
    """The reference of a baseline, made as a worker does it."""
    from checker.probes.generation import DEFAULT_PROMPTS
    from checker.probes.reference import make_reference

    identity = Identity(
        baseline=baseline.name,
        revision=folder_revision(baseline),
        tokenizer=tokenizer_digest(baseline),
        prompts=prompts_digest(DEFAULT_PROMPTS),
    )
    job = ReferenceJob(
        baseline=str(baseline), identity=identity, prompts=DEFAULT_PROMPTS, target=str(path), full=full, device=device
    )
    make_reference(job, lambda _: None)
    return path


@dataclass
class Stored:
    """One tensor of a file: what its header says, and its bytes."""

    dtype: str
    shape: list[int]
    data: bytearray

    def view(self, dtype: str) -> npt.NDArray[Any]:
        """The bytes as a flat numpy array; writing to it changes the tensor."""
        return np.frombuffer(self.data, dtype)


@dataclass
class Damaged:
    """A checkpoint's tensors and config, taken apart to be changed."""

    tensors: dict[str, Stored]
    config: dict[str, Json]
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def quantization(self) -> dict[str, Json]:
        found: dict[str, Json] = self.config["quantization_config"]
        return found

    def u8(self, name: str) -> npt.NDArray[Any]:
        return self.tensors[name].view("u1")

    def f32(self, name: str) -> npt.NDArray[Any]:
        return self.tensors[name].view("<f4")

    def put(self, name: str, dtype: str, shape: list[int], data: bytes) -> None:
        self.tensors[name] = Stored(dtype=dtype, shape=shape, data=bytearray(data))

    def state(self, weight: str) -> dict[str, Json]:
        """The quantization state's JSON."""
        found: dict[str, Json] = json.loads(bytes(self.tensors[self.state_name(weight)].data))
        return found

    def set_state(self, weight: str, state: object) -> None:
        """Write the quantization state anew: an object as JSON, or raw bytes."""
        raw = state if isinstance(state, bytes) else json.dumps(state).encode()
        self.put(self.state_name(weight), "U8", [len(raw)], raw)

    def state_name(self, weight: str) -> str:
        return next(name for name in self.tensors if name.startswith(f"{weight}.quant_state."))

    def parts(self, weight: str) -> list[str]:
        """The companions of a packed weight."""
        module = weight.removesuffix(".weight")
        own = (f"{module}.SCB", f"{module}.weight_format")
        return [name for name in self.tensors if name.startswith(f"{weight}.") or name in own]


def read_tensors(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """All of a safetensors file, with its metadata."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    data = memoryview(raw)[8 + length :]
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = Stored(dtype=entry["dtype"], shape=entry["shape"], data=bytearray(data[begin:end]))
    return tensors, metadata


def write_tensors(path: Path, tensors: Mapping[str, Stored], metadata: Mapping[str, str]) -> None:
    """A sound safetensors file of these tensors."""
    header: dict[str, Json] = {"__metadata__": dict(metadata)} if metadata else {}
    reached = 0
    for name, tensor in tensors.items():
        end = reached + len(tensor.data)
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [reached, end]}
        reached = end
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + b"".join(tensor.data for tensor in tensors.values()))


def read_checkpoint(folder: Path) -> Damaged:
    tensors, metadata = read_tensors(folder / WEIGHTS)
    return Damaged(tensors=tensors, config=json.loads((folder / "config.json").read_text()), metadata=metadata)


@contextmanager
def damage(healthy: Path, target: Path) -> Iterator[Damaged]:
    """A copy of a checkpoint in ``target``, written with whatever the body of the ``with`` did to it."""
    shutil.copytree(healthy, target)
    damaged = read_checkpoint(healthy)
    yield damaged
    write_tensors(target / WEIGHTS, damaged.tensors, damaged.metadata)
    (target / "config.json").write_text(json.dumps(damaged.config))


@dataclass(frozen=True)
class Judged:
    """What the checks said about one checkpoint."""

    results: Mapping[str, CheckResult]
    measurements: Mapping[str, Json]

    def ids(self, outcome: Outcome) -> set[str]:
        return {name for name, result in self.results.items() if result.outcome is outcome}

    def text(self) -> str:
        """Everything that is not a pass, for the message of a failed assertion."""
        lines = []
        for name, result in self.results.items():
            lines += [f"{name} {item.severity} {item.where}: {item.message}" for item in result.findings]
            lines += (
                [f"{name} {result.error.kind}: {result.error.message}{result.error.detail}"] if result.error else []
            )
        return "\n".join(lines)


def judge_files(
    folder: Path,
    baseline: Path | None = None,
    *,
    weights: str = "full",
    checks: tuple[str, ...] = STATIC,
    limits: Mapping[str, Limit] | None = None,
) -> Judged:
    """Run the static checks over a checkpoint, as a worker does."""
    settings = Settings(depth=Depth.STATIC, weights=weights, limits=limits or {})  # type: ignore[arg-type]
    ref = ModelRef(kind="folder", name=str(folder))
    origin = ModelRef(kind="folder", name=str(baseline)) if baseline is not None else None
    job = Job(
        cell=Cell(id="test/cell", baseline=origin, checkpoint=ref, settings=settings),
        checks=checks,
        baseline=str(baseline) if baseline is not None else None,
        checkpoint=str(folder),
        scratch=str(folder.parent),
    )
    events: list[Any] = []
    send: Callable[[Any], None] = events.append
    judge(job, send)
    finished = [event for event in events if isinstance(event, Finished)]
    measurements: dict[str, Json] = {}
    for event in finished:
        measurements |= event.measurements
    return Judged(results={event.result.id: event.result for event in finished}, measurements=measurements)
