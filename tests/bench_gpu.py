"""The suite on a CUDA GPU beside the least that any check must do: ``python tests/bench_gpu.py [--layers 32]``.

A Llama of 8 billion random weights is made, quantized to NF4 and saved. The bare script imports the libraries, loads
the checkpoint with ``from_pretrained`` and runs one forward; the suite is timed as a whole process, with its reference
in the cache, and per check.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench_processes import COMMAND, MEGABYTE, Measured, measure, middle, progress, table

ROUNDS = 3
MAKE = """
import sys, torch, transformers
from pathlib import Path
folder, layers = Path(sys.argv[1]), int(sys.argv[2])
config = transformers.LlamaConfig(
    hidden_size=4096, intermediate_size=14336, num_hidden_layers=layers, num_attention_heads=32, num_key_value_heads=8,
    vocab_size=128256, max_position_embeddings=8192, tie_word_embeddings=False, dtype="bfloat16",
)
torch.set_default_dtype(torch.bfloat16)
with torch.device("cuda"):
    model = transformers.LlamaForCausalLM(config)
torch.set_default_dtype(torch.float32)
model.save_pretrained(folder / "base")
del model
torch.cuda.empty_cache()
options = transformers.BitsAndBytesConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16, bnb_4bit_use_double_quant=True
)
model = transformers.LlamaForCausalLM.from_pretrained(
    folder / "base", quantization_config=options, dtype="auto", device_map={"": 0}
)
model.save_pretrained(folder / "nf4")
"""
BARE = """
import sys, time
begin = time.perf_counter()
import torch, transformers
import bitsandbytes
print("import", time.perf_counter() - begin)
begin = time.perf_counter()
model = transformers.LlamaForCausalLM.from_pretrained(sys.argv[1], dtype="auto", device_map={"": 0})
torch.cuda.synchronize()
load = time.perf_counter() - begin
print("load", load)
begin = time.perf_counter()
with torch.no_grad():
    model(torch.arange(64, device="cuda")[None])
torch.cuda.synchronize()
print("forward", time.perf_counter() - begin)
if len(sys.argv) > 2:
    begin = time.perf_counter()
    try:
        model.save_pretrained(sys.argv[2])
    except NotImplementedError:
        model.save_pretrained(sys.argv[2], save_original_format=False)
    print("save", time.perf_counter() - begin)
    del model
    torch.cuda.empty_cache()
    begin = time.perf_counter()
    model = transformers.LlamaForCausalLM.from_pretrained(sys.argv[2], dtype="auto", device_map={"": 0})
    torch.cuda.synchronize()
    print("load again", time.perf_counter() - begin)
"""


def steps(result: Measured) -> dict[str, float]:
    """What a script said of its own parts."""
    if result.code:
        sys.exit(f"{result.output}\n{result.errors[-3000:]}")
    words = (line.rpartition(" ") for line in result.output.splitlines() if line[-1:].isdigit())
    return {name: float(value) for name, _, value in words if name}


def suite(folder: Path, report: Path, *options: str) -> Measured:
    """One run of the suite over the checkpoint."""
    command = (*COMMAND, "check", str(folder / "nf4"), "--baseline", str(folder / "base"), "--depth", "full", "--quiet")
    result = measure((*command, "--report-dir", str(report), *options))
    if result.code:
        sys.exit(f"{result.output}\n{result.errors[-3000:]}")
    return result


def checks(report: Path) -> dict[str, float]:
    """Seconds of each check that took any."""
    [cell] = json.loads((report / "report.json").read_text())["cells"]
    return {item["id"]: item["seconds"] for item in cell["checks"] if item["seconds"] > 0.05}


def rows(folder: Path) -> Iterator[tuple[str, str, str]]:
    """(what, measured, bar)."""
    report = folder / "report"
    os.environ["QUANT_VERIFY_CACHE"] = str(folder / "cache")
    first = suite(folder, report, "--ignore", "roundtrip.checkpoint")
    yield "first run, which makes the reference", f"{first.seconds:.1f} s", ""
    bare_runs, own_runs = [], []
    for number in range(ROUNDS):  # in turn
        bare_runs.append(measure((sys.executable, "-c", BARE, str(folder / "nf4"))))
        own_runs.append(suite(folder, report, "--ignore", "roundtrip.checkpoint"))
        progress(f"round {number + 1}: bare {bare_runs[-1].seconds:.1f} s, suite {own_runs[-1].seconds:.1f} s")
    parts = steps(bare_runs[-1])
    bare, own = middle(bare_runs), middle(own_runs)
    yield "bare script: " + ", ".join(f"{k} {v:.1f} s" for k, v in parts.items()), f"{bare.seconds:.1f} s", ""
    yield "the whole suite but roundtrip.checkpoint", f"{own.seconds:.1f} s", ""
    yield "ratio", f"{own.seconds / bare.seconds:.2f}", "≤ 1.5"
    spent = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in checks(report).items())
    yield f"of which {spent}", "", ""
    memory = f"{own.private_bytes / MEGABYTE:.0f} and {bare.private_bytes / MEGABYTE:.0f} MB"
    yield "memory of the largest process without mapped files, suite and bare script", memory, ""
    again = steps(measure((sys.executable, "-c", BARE, str(folder / "nf4"), str(folder / "again"))))
    once = again["save"] + again["load again"]
    whole = suite(folder, report)
    added = checks(report)
    cost = whole.seconds - own.seconds
    yield "one save and one load", f"{again['save']:.1f} + {again['load again']:.1f} s", ""
    yield "the whole suite", f"{whole.seconds:.1f} s", ""
    yield "what roundtrip.checkpoint adds", f"{cost:.1f} s", ""
    yield "ratio", f"{cost / once:.2f}", "≤ 1.2"
    yield "of which " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in added.items()), "", ""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--folder", type=Path, help="kept afterwards; by default a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "nf4").exists():
            made = measure((sys.executable, "-c", MAKE, str(folder), str(arguments.layers)))
            if made.code:
                sys.exit(made.errors[-3000:])
        sys.stdout.write(table(("on one GPU", "measured", "bar"), *rows(folder), right=2))


if __name__ == "__main__":
    main()
