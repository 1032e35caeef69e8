"""Healthy compressed-tensors checkpoints of a real model at full depth: made by llm-compressor, judged, and tabled.

llm-compressor has an environment of its own (``make fixtures TOOL=llm-compressor`` makes the same one); they are judged
in one that lays compressed-tensors over the packages of this interpreter, one for each version. ``python
tests/bench_compressed.py`` prints the table; exit 1 when one that these versions load is not passed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from bench_peers import OFFLINE
from bench_processes import ROOT, measure, progress, table
from models import damage

VERSIONS = ("0.20.0", "0.17.1")
NEEDED = "loguru==0.7.3"  # by compressed-tensors, beyond what this program's own extras bring
DOES_NOT_LOAD = {("w4a16-asym", "0.20.0")}  # zero points are allocated unpacked since 0.18
LOADS_ZERO_POINTS = "0.17.1"
FAULT = "zero points off by one"  # in every layer, to be told by outputs.divergence alone
FEWEST = 64  # positions
MAKER = """\
import json, sys, warnings
warnings.simplefilter("ignore")
import loguru, torch, transformers
loguru.logger.remove()
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier
baseline, folder, quantization = sys.argv[1:]
model = transformers.AutoModelForCausalLM.from_pretrained(baseline, dtype=torch.bfloat16)
oneshot(model=model, recipe=[QuantizationModifier(ignore=["lm_head"], **json.loads(quantization))])
model.save_pretrained(folder)
transformers.AutoTokenizer.from_pretrained(baseline).save_pretrained(folder)
"""


def _weights(**arguments: Any) -> dict[str, Any]:
    weights = {"type": "int", "symmetric": True, "dynamic": False, **arguments}
    return {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}


VARIANTS: Mapping[str, dict[str, Any]] = {  # groups of 64: SmolLM2's 576 columns are no multiple of 128
    "w8a8": {"scheme": "W8A8", "targets": ["Linear"]},
    "fp8": {"scheme": "FP8_DYNAMIC", "targets": ["Linear"]},
    "w4a16": _weights(num_bits=4, strategy="group", group_size=64),
    "w4a16-asym": _weights(num_bits=4, strategy="group", group_size=64, symmetric=False),
    "w8a16": _weights(num_bits=8, strategy="channel"),
}
HEAD = ("checkpoint", "compressed-tensors", "verdict", "fails or warns", "R", "unpacked to", "KL", "expected", "time")


def checkpoints(baseline: Path, folder: Path) -> dict[str, Path]:
    """Every variant of the baseline; those that are already in the folder are kept.

    Raises:
        OSError, CalledProcessError: llm-compressor cannot be had here.
    """
    sys.path.insert(0, str(ROOT / "tests" / "fixtures"))
    from remake import TOOLS, environment

    python = environment(TOOLS / "llm-compressor", ROOT / ".fixtures")
    found = {name: folder / name for name in VARIANTS}
    for name, target in found.items():
        if not (target / "config.json").is_file():
            progress(f"making {name}")
            command = [python, "-c", MAKER, str(baseline), str(target), json.dumps(VARIANTS[name])]
            subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return found


def interpreter(version: str) -> Path:
    """A Python with the packages of this one and a version of compressed-tensors.

    Raises:
        OSError, CalledProcessError: it cannot be had here.
    """
    folder = ROOT / ".fixtures" / f"compressed-tensors-{version}"
    python = folder / "bin" / "python"
    done = folder / "installed"
    if not done.is_file():
        venv.create(folder, with_pip=False, clear=True)
        [packages] = folder.glob("lib/python*/site-packages")
        (packages / "beneath.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
        wanted = [f"compressed-tensors=={version}", NEEDED]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages), *wanted]
        subprocess.run(pip, check=True)
        done.touch()
    return python


def off_by_one(healthy: Path, target: Path) -> None:
    """A copy whose every zero point, eight of four bits in a word, is one more (15 stays)."""
    with damage(healthy, target) as file:
        for name, tensor in file.tensors.items():
            if name.endswith(".weight_zero_point"):
                words = tensor.view("<u4")
                points = [(words >> np.uint32(shift)) & np.uint32(15) for shift in range(0, 32, 4)]
                raised = [np.minimum(point + 1, 15).astype(np.uint32) for point in points]
                words[:] = sum(point << np.uint32(4 * place) for place, point in enumerate(raised))


def judge(python: Path, checkpoint: Path, baseline: Path, report: Path, *options: str) -> tuple[dict[str, Any], float]:
    """The cell of the report, and the seconds that it took."""
    place = ("--baseline", str(baseline), "--depth", "full", "--report-dir", str(report), "--device", "cpu", "--quiet")
    result = measure(
        (str(python), str(ROOT / "entrypoint.py"), "check", str(checkpoint), *place, *options), environment=OFFLINE
    )
    [cell] = json.loads((report / "report.json").read_text("utf-8"))["cells"]
    return cell, result.seconds


def row(name: str, version: str, cell: Mapping[str, Any], seconds: float) -> tuple[str, ...]:
    """One line of the table."""
    measured = cell["measurements"]
    noticed = [item["id"] for item in cell["checks"] if item["outcome"] in ("fail", "warn")]
    ratios = [item["R"] for item in measured.get("weights", [])]
    memory = measured.get("memory.footprint", {})
    after = memory.get("true_bytes_after_forward")
    divergence = measured.get("outputs.divergence", {})
    expected = divergence.get("expected_kl")
    return (
        name,
        version,
        cell["outcome"],
        ", ".join(noticed),
        f"{max(ratios):.3f}" if ratios else "",
        f"{after / memory['true_bytes']:.2f}×" if after else "",
        f"{divergence['kl']['value']:.4f}" if "kl" in divergence else "",
        f"{expected:.4f}" if expected is not None else "",
        f"{seconds:.1f} s",
    )


def is_right(name: str, version: str, cell: Mapping[str, Any]) -> bool:
    """Passed, the one warning of a sound file at most; or failed by the one check that must fail it."""
    failed = {item["id"] for item in cell["checks"] if item["outcome"] == "fail"}
    if (name, version) in DOES_NOT_LOAD:
        return failed == {"loading.keys"}
    if name == FAULT:
        return failed == {"outputs.divergence"} and cell["measurements"]["outputs.divergence"]["positions"] == FEWEST
    return cell["outcome"] in ("pass", "warn")


def judge_all(baseline: Path, folder: Path) -> tuple[str, bool]:
    """The table, and whether all verdicts are right; one sentence where the packages cannot be had."""
    try:
        found = checkpoints(baseline, folder)
        pythons = {version: interpreter(version) for version in VERSIONS}
    except (OSError, subprocess.CalledProcessError) as error:
        return f"compressed-tensors was not measured: its packages cannot be had here ({error})\n", True
    rows, right = [], True
    for name, version, cell, seconds in _cells(found, pythons, baseline, folder):
        rows.append(row(name, version, cell, seconds))
        right &= is_right(name, version, cell)
        progress(" ".join(rows[-1]))
    return table(HEAD, *rows, right=5), right


def _cells(
    found: Mapping[str, Path], pythons: Mapping[str, Path], baseline: Path, folder: Path
) -> Iterator[tuple[str, str, dict[str, Any], float]]:
    for name, checkpoint in found.items():
        for version, python in pythons.items():
            yield name, version, *judge(python, checkpoint, baseline, folder / f"report-{name}-{version}")
    off_by_one(found["w4a16-asym"], folder / "off-by-one")
    alone = ("--select", "outputs.divergence")
    python = pythons[LOADS_ZERO_POINTS]
    yield FAULT, LOADS_ZERO_POINTS, *judge(python, folder / "off-by-one", baseline, folder / "report-fault", *alone)


def main() -> int:
    """Print the table."""
    from checker.commands.demo import cache_folder, prepare

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--baseline", type=Path, help="another model than the demo's")
    parser.add_argument("--keep", type=Path, help="make the checkpoints here, and keep them")
    arguments = parser.parse_args()
    if arguments.baseline is None:
        prepare(cache_folder(), rebuild=False)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        baseline = (arguments.baseline or cache_folder() / "smollm2-135m").resolve()
        text, right = judge_all(baseline, folder.resolve())
    sys.stdout.write(text)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
