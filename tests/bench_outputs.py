"""Does it still behave: healthy quantizations of a real model, faults in all their layers, and what a verdict costs.

Beside it ``modeldiffr audit BASE QUANT --suite quick --tasks divergence``, which compares the outputs of both models.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from bench_peers import LONGEST, OFFLINE, Peers, changes
from bench_processes import COMMAND, MEGABYTE, ROOT, Measured, measure, middle, progress, table
from models import Damaged, damage

from checker.reference import read_reference
from checker.reference.write import write_reference

ROUNDS = 5
VARIANTS = ("nf4", "fp4", "int8")
HUB, COMMIT = "HuggingFaceTB/SmolLM2-135M-Instruct", "12fd25f77366fa6b3b4b768ec3050bf629380bac"
DIVERGENCE = ("--suite", "quick", "--tasks", "divergence")
MATRIX = """\
version: 1
defaults: {depth: full, device: cpu}
references: ./references
models:
"""
QUANTIZE = """
import sys, json
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
from models import VARIANTS, save_quantized
import shutil
save_quantized(Path(sys.argv[2]), Path(sys.argv[3]), VARIANTS[sys.argv[4]])
for file in Path(sys.argv[2]).glob("tokenizer*"):
    shutil.copyfile(file, Path(sys.argv[3]) / file.name)
"""
LOAD = """
import sys, transformers
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto", device_map={"": "cpu"})
"""
FORWARD = (
    LOAD
    + """
import torch
with torch.no_grad():
    model(torch.arange(64)[None])
"""
)
RATIO = """
import sys, json
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
from checker.probes.divergence import distance_of
from checker.probes.forward import run_row
from checker.probes.load import load_model
from checker.reference import read_reference
full, recorded = (read_reference(Path(path)) for path in sys.argv[3:5])
model = load_model(Path(sys.argv[2]), "cpu").model
whole, lumped = [], []
for one, other in zip(full.rows, recorded.rows, strict=True):
    logits, _ = run_row(model, one.tokens[:-1])
    whole += list(distance_of(logits, one).kl)
    lumped += list(distance_of(logits, other).kl)
    if len(whole) >= 512:
        break
print(json.dumps([len(whole), sum(lumped) / sum(whole), max(low - high for low, high in zip(lumped, whole))]))
"""


class Bench:
    """A folder with a real model, its healthy quantizations and its references."""

    def __init__(self, folder: Path, baseline: Path, nf4: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        (folder / "smollm2").symlink_to(baseline)
        (folder / "nf4").symlink_to(nf4)
        for variant in VARIANTS[1:]:
            progress(f"quantizing to {variant}")
            command = [sys.executable, "-c", QUANTIZE, str(ROOT), str(baseline), str(folder / variant), variant]
            subprocess.run(command, check=True, capture_output=True)

    def matrix(self, name: str, checkpoints: dict[str, str], *, baseline: bool = True) -> Path:
        """A matrix over checkpoints of the model."""
        entry = {"baseline": "./smollm2", "name": "smollm2"} if baseline else {"name": "smollm2"}
        path = self.folder / f"{name}.yml"
        path.write_text(MATRIX + f"  - {json.dumps({**entry, 'checkpoints': checkpoints})}\n")
        return path

    def pinned(self, name: str, checkpoints: dict[str, str]) -> Path:
        """The same with the baseline pinned on the Hub: only its recorded reference is on this machine."""
        made = read_reference(self.folder / "references" / "smollm2.safetensors")
        identity = replace(made.summary.identity, baseline=HUB, revision=COMMIT)
        target = self.folder / "references" / f"{HUB.replace('/', '--')}.safetensors"
        write_reference(target, replace(made.summary, identity=identity), made.rows, made.hidden, made.samples)
        path = self.matrix(name, checkpoints)
        path.write_text(path.read_text().replace("./smollm2", f"{HUB}@{COMMIT}"))
        return path

    def run(self, matrix: Path, *options: str, watch: bool = True) -> tuple[Measured, dict[str, Any]]:
        """One run, with what its report says of each cell."""
        report = self.folder / f"report-{matrix.stem}"
        command = (*COMMAND, "run", str(matrix), "--quiet", "--report-dir", str(report), *options)
        result = measure(command, environment={**OFFLINE, "QUANT_VERIFY_CACHE": str(self.cache)}, watch=watch)
        try:
            cells = json.loads((report / "report.json").read_text())["cells"]
        except OSError:
            sys.exit(result.errors[-3000:])
        return result, {cell["id"]: cell for cell in cells}


def healthy(bench: Bench) -> Iterator[str]:
    """Recording, then the verdicts on healthy quantizations at full depth."""
    matrix = bench.matrix("healthy", {name: f"./{name}" for name in VARIANTS})
    recorded = measure((*COMMAND, "record", str(matrix), "--quiet"), environment=OFFLINE)
    if recorded.code:
        sys.exit(recorded.errors[-3000:] + recorded.output[-3000:])
    [file] = (bench.folder / "references").glob("*.safetensors")
    size = file.stat().st_size / MEGABYTE
    yield f"`record` took {recorded.seconds:.0f} s; the reference is {size:.1f} MB (≤ 10 MB).\n\n"
    _, cells = bench.run(matrix)
    head = ("healthy", "verdict", "positions", "KL, nats", "expected", "times", "same token", "modules off by")
    yield table(head, *(_row(name, cell) for name, cell in cells.items()), right=6) + "\n"


def _row(name: str, cell: dict[str, Any]) -> tuple[str, ...]:
    found = cell["measurements"]["outputs.divergence"]
    kl, top1 = found["kl"], found["top1"]
    return (
        name,
        cell["outcome"],
        str(found["positions"]),
        f"{kl['value']:.3f} ({kl['low']:.3f} to {kl['high']:.3f})",
        f"{found['expected_kl']:.3f}" if found["expected_kl"] else "",
        f"{found['excess']:.2f}" if found["excess"] else "",
        f"{top1['value']:.0%}",
        f"{found['module_error']:.2%}" if found["module_error"] is not None else "",
    )


def _packed(file: Damaged) -> list[str]:
    return [name.partition(".quant_state.")[0] for name in file.tensors if ".quant_state." in name]


def nibbles(file: Damaged) -> None:
    """Nibbles swapped."""
    for weight in _packed(file):
        codes = file.u8(weight)
        codes[:] = (codes << 4) | (codes >> 4)


def scales(file: Damaged) -> None:
    """Scales shifted by one block."""
    for weight in _packed(file):
        absmax = file.u8(f"{weight}.absmax")
        absmax[:] = np.roll(absmax, 1)


def offset(file: Damaged) -> None:
    """Offset of the nested scales lost."""
    for weight in _packed(file):
        file.set_state(weight, {**file.state(weight), "nested_offset": 0.0})


def off_by_one(file: Damaged) -> None:
    """Every code off by one."""
    for weight in _packed(file):
        codes = file.u8(weight)
        codes[:] = (np.minimum((codes >> 4) + 1, 15) << 4) | np.minimum((codes & 15) + 1, 15)


def broken(bench: Bench) -> Iterator[str]:
    """Faults in every layer, judged by outputs.divergence alone."""
    faults: tuple[Callable[[Damaged], None], ...] = (nibbles, scales, offset, off_by_one)
    for fault in faults:
        with damage((bench.folder / "nf4").resolve(), bench.folder / fault.__name__) as file:
            fault(file)
    matrix = bench.matrix("broken", {fault.__name__: f"./{fault.__name__}" for fault in faults})
    _, cells = bench.run(matrix, "--select", "outputs.divergence")
    rows = []
    for fault in faults:
        cell = cells[f"smollm2/{fault.__name__}"]
        rows.append((str(fault.__doc__).rstrip("."), *_row("", cell)[1:7]))
    head = (
        "in every layer, `--select outputs.divergence`",
        "verdict",
        "positions",
        "KL, nats",
        "expected",
        "times",
        "same token",
    )
    yield table(head, *rows, right=5) + "\n"


def race(bench: Bench, peers: Peers) -> Iterator[str]:
    """Time of one cell at full depth with its recorded reference, beside an audit of outputs alone; and its memory."""
    matrix = bench.pinned("race", {"nf4": "./nf4"})
    own: list[Measured] = []
    theirs: list[Measured] = []
    report = bench.folder / "audit"
    bench.run(matrix, "--offline", watch=False)  # not counted: it fills the caches
    for number in range(ROUNDS):
        own.append(bench.run(matrix, "--offline", watch=False)[0])
        if peers.folder is not None:
            command = peers.audit(bench.folder / "smollm2", bench.folder / "nf4", report, *DIVERGENCE)
            theirs.append(measure(command, environment=OFFLINE, timeout=LONGEST, watch=False))
        progress(f"round {number + 1}: {own[-1].seconds:.2f} s, {theirs[-1].seconds if theirs else 0:.2f} s")
    mine = middle(own)
    rows = [("quant-verify run, every check at full depth", f"{mine.seconds:.2f} s", "", str(mine.code), "passes")]
    if theirs:
        their = middle(theirs)
        ratio = mine.seconds / their.seconds
        said = changes(report) or "no change"
        rows.append(
            (
                f"`modeldiffr audit {' '.join(DIVERGENCE)}`",
                f"{their.seconds:.2f} s",
                f"{ratio:.2f}",
                str(their.code),
                said,
            )
        )
    yield table(("on healthy NF4", "time", "ours over it (≤ 0.7)", "exit code", "says"), *rows, right=3) + "\n"
    private = [memory / MEGABYTE for memory in _memory(bench, matrix)]
    yield (
        f"Memory of the largest process, without mapped files: {private[0]:.0f} MB. A script that only loads the "
        f"checkpoint: {private[1]:.0f} MB, ratio {private[0] / private[1]:.2f} (≤ 1.2); one that also runs 64 tokens: "
        f"{private[2]:.0f} MB, ratio {private[0] / private[2]:.2f}.\n\n"
    )


def _memory(bench: Bench, matrix: Path) -> Iterator[float]:
    """Bytes of our largest process, of a script that loads the checkpoint, and of one that also runs it; medians."""
    yield statistics.median(bench.run(matrix, "--offline")[0].private_bytes for _ in range(ROUNDS))
    for script in (LOAD, FORWARD):
        command = (sys.executable, "-c", script, str(bench.folder / "nf4"))
        yield statistics.median(measure(command).private_bytes for _ in range(ROUNDS))


def lower_bound(bench: Bench) -> str:
    """KL from the recorded reference over that from all log-probabilities."""
    bench.run(bench.matrix("cached", {"nf4": "./nf4"}), "--select", "outputs.divergence")
    shutil.move(bench.folder / "references", bench.folder / "recorded")
    bench.run(bench.matrix("cached", {"nf4": "./nf4"}), "--select", "outputs.divergence")
    [full] = (bench.cache / "quant-verify" / "references").glob("*.safetensors")
    recorded = bench.folder / "recorded" / "smollm2.safetensors"
    ratios = []
    for name in VARIANTS:
        command = [sys.executable, "-c", RATIO, str(ROOT), str(bench.folder / name), str(full), str(recorded)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **OFFLINE})
        count, ratio, _ = json.loads(done.stdout.splitlines()[-1])
        ratios.append(f"{name} {ratio:.3f}")
    what = f"KL from the recorded reference over that from all log-probabilities, {count} positions"
    return f"{what}: {', '.join(ratios)} (0.8 to 1).\n"


def measured(models: Path, nf4: Path, peers: Peers) -> str:
    """All of it as markdown."""
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(Path(temporary), models / "smollm2-135m", nf4)
        parts = [*healthy(bench), *broken(bench), *race(bench, peers), lower_bound(bench)]
    return "".join(parts)
