"""Coverage-guided fuzz of everything that reads a foreign checkpoint: header, index, quantization state, config.

``make fuzz MINUTES=60`` runs it in an environment of its own (``.fixtures/fuzz``; atheris has wheels for Python 3.11 to
3.13, choose one with ``make fuzz PYTHON=python3.12``). What it has learnt stays in ``.fixtures/fuzz-corpus``. A crash
is written beside it as ``crash-…``, a hang of ten seconds as ``timeout-…``; to see one again:
``.fixtures/fuzz/bin/python tests/fuzz/fuzz_checkpoint.py .fixtures/crash-…``.

The first byte of an input says what it is: H a safetensors file, I an index, S a quantization state, C a config.json,
Q a quantization_config for every method.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "checkpoint")]

with atheris.instrument_imports(include=["checker"]):
    import numpy as np
    import safetensors
    from models import WEIGHTS, Damaged, judge_files, write_tensors
    from properties import ask, assert_judged
    from raw_files import INDEX, container, library_refusal, packed, sharded

    from checker.checkpoint import open_checkpoint, read_header
    from checker.checkpoint.strict_json import Malformed, parse
    from checker.domain import Severity
    from checker.probes import weights
    from checker.registry import all_methods

    METHODS = all_methods()  # imported here, or what they do would not count as covered
    assert weights

LAYER = "model.layers.0.mlp.up_proj.weight"
STATE = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [64, 64]}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "dtype": "bfloat16",
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
}


def layer(state: bytes) -> Damaged:
    """A checkpoint of one layer, quantized to 4 bits."""
    made = Damaged(tensors={}, config=CONFIG, metadata={"format": "pt"})
    made.put(LAYER, "U8", [2048, 1], bytes(range(256)) * 8)
    made.put(f"{LAYER}.absmax", "F32", [64], np.ones(64, "<f4").tobytes())
    made.put(f"{LAYER}.quant_map", "F32", [16], np.linspace(-1, 1, 16, dtype="<f4").tobytes())
    made.put(f"{LAYER}.quant_state.bitsandbytes__nf4", "U8", [len(state)], state)
    made.put("model.norm.weight", "BF16", [64], bytes(128))
    return made


class Target:
    """One input, judged in a folder that is used again."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "one.safetensors"
        self.sharded = sharded(folder / "sharded")
        self.layer = folder / "layer"
        self.layer.mkdir()
        self.kinds: dict[int, Callable[[bytes], None]] = {
            ord("H"): self.header,
            ord("I"): self.index,
            ord("S"): self.state,
            ord("C"): self.config,
            ord("Q"): self.quantization_config,
        }

    def __call__(self, data: bytes) -> None:
        kind = self.kinds.get(data[0]) if data else None
        if kind is not None:
            kind(data[1:])

    def header(self, raw: bytes) -> None:
        """What is accepted here, the safetensors library accepts."""
        self.file.write_bytes(raw)
        if not any(problem.severity is Severity.FAIL for problem in read_header(self.file).problems):
            refusal = library_refusal(raw, self.file)
            assert refusal is None, f"accepted, but the library says: {refusal}"

    def index(self, raw: bytes) -> None:
        """What is accepted here, leads a plain reader of the index to the same tensors."""
        (self.sharded / INDEX).write_bytes(raw)
        checkpoint = open_checkpoint(self.sharded)
        if any(problem.severity is Severity.FAIL for problem in checkpoint.problems):
            return
        for name, shard in json.loads(raw)["weight_map"].items():
            path = self.sharded / shard
            assert path.resolve().parent == self.sharded.resolve(), shard
            with safetensors.safe_open(path, "np") as opened:
                assert name in opened.keys()  # noqa: SIM118 - it is no mapping

    def state(self, raw: bytes) -> None:
        """A checkpoint with any quantization state gets a verdict."""
        self.judge(layer(raw), json.dumps(CONFIG).encode())

    def config(self, raw: bytes) -> None:
        """A checkpoint with any config gets a verdict."""
        self.judge(layer(json.dumps(STATE).encode()), raw)

    def judge(self, checkpoint: Damaged, config: bytes) -> None:
        write_tensors(self.layer / WEIGHTS, checkpoint.tensors, checkpoint.metadata)
        (self.layer / "config.json").write_bytes(config)
        assert_judged(judge_files(self.layer), self.layer)

    def quantization_config(self, raw: bytes) -> None:
        """Any JSON object can be put to every method."""
        try:
            value = parse(raw, finite=False)
        except Malformed:
            return
        if isinstance(value, dict):
            for method in METHODS:
                ask(method, value)


def seeds() -> dict[str, bytes]:
    """Sound inputs of every kind to begin with."""
    header = packed({"a.weight": ("F16", [2, 3]), "b.weight": ("F4", [4]), "c.bias": ("I64", []), "d": ("BF16", [0])})
    index = {"metadata": {"total_size": 12}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}
    found = {
        "header": b"H" + container({"__metadata__": {"format": "pt"}, **header}, bytes(22)),
        "index": b"I" + json.dumps(index).encode(),
        "state": b"S" + json.dumps(STATE).encode(),
        "config": b"C" + json.dumps(CONFIG).encode(),
    }
    for path in (TESTS / "fixtures" / "checkpoints").glob("*/*/config.json"):
        config = json.loads(path.read_bytes())
        name = f"{path.parent.parent.name}-{path.parent.name}"
        found[f"config-{name}"] = b"C" + json.dumps(config).encode()
        found[f"method-{name}"] = b"Q" + json.dumps(config.get("quantization_config", {})).encode()
    return found


def main() -> None:
    """Run libFuzzer; its options may follow."""
    corpus = [Path(argument) for argument in sys.argv[1:] if Path(argument).is_dir()]
    for folder in corpus:
        for name, raw in seeds().items():
            (folder / f"seed-{name}").write_bytes(raw)
    memory = Path("/dev/shm")  # a file system without a disk, where there is one
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        atheris.Setup(sys.argv, Target(Path(folder)))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
