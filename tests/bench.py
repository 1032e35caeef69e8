"""The figures of the README: ``make bench`` prints them as tables; ``--write`` puts them between the README's markers.

Times are whole processes, the median of several runs; memory is the largest resident set of any process of the run.
``--only peers`` (or own, damage, fixtures, huge, sampled, outputs, compressed) measures one part.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import bench_compressed
import bench_damage
import bench_fixtures
import bench_huge
import bench_outputs
import bench_peers
import bench_sampled
from bench_processes import MEGABYTE, ROOT, imports_torch, median, ours, progress, table

from checker.commands.demo import LAYER, cache_folder, prepare
from checker.environment import describe
from checker.probes.demo_model import swap_nibbles

README = ROOT / "README.md"
BLOOM = {
    "architectures": ["BloomForCausalLM"],
    "model_type": "bloom",
    "hidden_size": 2048,
    "n_layer": 24,
    "n_head": 16,
    "vocab_size": 250880,
    "dtype": "float16",
}


def rows(models: Path, folder: Path) -> Iterator[tuple[str, str, str]]:
    """(what, measured, bar) of every figure."""
    nf4 = healthy_copy(models, folder)
    base = str(models / "smollm2-135m")
    check = ("check", str(nf4), "--baseline", base, "--quiet")
    static = median(*check)
    assert static.code == 0, static.output
    yield "static check of NF4 SmolLM2-135M with baseline, every block", f"{static.seconds:.2f} s", "≤ 1.0 s"
    yield "its peak memory", f"{static.largest_bytes / MEGABYTE:.0f} MB", "≤ 600 MB"
    yield "torch imported by it", "yes" if imports_torch(*check) else "no", "no"
    for name, arguments in (
        ("`--help`", ("--help",)),
        ("`explain`", ("explain",)),
        ("`plan`", ("plan", str(models / "quant-verify.yml"))),
    ):
        result = median(*arguments)
        assert result.code == 0, result.output
        yield name, f"{result.seconds:.2f} s", "≤ 0.3 s"
    (folder / "config.json").write_text(json.dumps(BLOOM))
    answer = json.loads(ours("estimate", str(folder / "config.json"), "--format", "json").output)
    ratios = [answer["quantizations"][name]["ratio"] for name in ("nf4", "int8")]
    yield "`estimate` of bloom-1b7, 4-bit ratio", repr(ratios[0]), "2.109659552692574"
    yield "`estimate` of bloom-1b7, 8-bit ratio", repr(ratios[1]), "1.5400250499901118"
    demo = ours("demo", "--quiet", "--report-dir", str(folder / "report"))
    assert demo.code == 0, demo.output
    yield "demo: three cells at full depth, models made before", f"{demo.seconds:.0f} s", ""
    yield "the parent's memory during it", f"{demo.parent_bytes / MEGABYTE:.0f} MB", "≤ 150 MB"
    yield "the largest worker's memory", f"{demo.largest_bytes / MEGABYTE:.0f} MB", ""


def healthy_copy(models: Path, folder: Path) -> Path:
    """The NF4 checkpoint of the demo before it was damaged."""
    nf4 = folder / "smollm2-nf4"
    if not nf4.exists():
        shutil.copytree(models / "smollm2-135m-nf4-damaged", nf4)
        swap_nibbles(nf4, LAYER)  # twice is healthy again
    return nf4


def own(models: Path, folder: Path) -> str:
    """Times, memory and ratios of this program."""
    found = []
    for row in rows(models, folder):
        found.append(row)
        progress(" ".join(row))
    return table(("figure", "measured", "bar"), *found, right=2)


def peers(models: Path, folder: Path) -> str:
    """Times beside other checkers."""
    found = bench_peers.install()
    text = bench_peers.times(models / "smollm2-135m", healthy_copy(models, folder), found)
    return f"Beside {bench_peers.version_of(found)}, in turn on one machine:\n\n{text}"


def damage(models: Path, folder: Path) -> str:
    """Which damages of a real model each checker sees."""
    found = bench_peers.install()
    text = bench_damage.judge_all(healthy_copy(models, folder), models / "smollm2-135m", found)
    legend = f"● sees it, ○ says the same as of the healthy copy. Seen: {bench_damage.summary(text)}."
    return f"One damage in a copy of NF4 SmolLM2-135M. {legend}\n\n{text}"


def fixtures(models: Path, folder: Path) -> str:
    """Which damages of other methods' checkpoints each checker sees."""
    del models, folder
    return bench_fixtures.judge_all(bench_peers.install())


def huge(models: Path, folder: Path) -> str:
    """A verdict on the structure of a very large checkpoint."""
    del models, folder
    return bench_huge.measure_sizes()


def sampled(models: Path, folder: Path) -> str:
    """What a sample of the weights tells, and costs."""
    del folder
    return bench_sampled.deviations(models / "smollm2-135m") + "\n" + bench_sampled.growth()


def outputs(models: Path, folder: Path) -> str:
    """What is said of outputs, and what it costs."""
    return bench_outputs.measured(models, healthy_copy(models, folder), bench_peers.install())


def compressed(models: Path, folder: Path) -> str:
    """Healthy compressed-tensors checkpoints at full depth."""
    return bench_compressed.judge_all(models / "smollm2-135m", folder)[0]


PARTS: dict[str, Callable[[Path, Path], str]] = {
    part.__name__: part for part in (own, peers, damage, fixtures, huge, sampled, outputs, compressed)
}


def figures(names: list[str]) -> str:
    """The parts as markdown, headed by the machine they were measured on."""
    prepare(cache_folder(), rebuild=False)
    environment = describe()
    texts = [f"Measured on {_machine(environment.device)}, Python {environment.python}.\n"]
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            progress(f"{name}: {PARTS[name].__doc__}")
            texts.append(PARTS[name](cache_folder(), Path(folder)))
    return "\n".join(texts)


def _machine(device: str) -> str:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        match = re.search(r"^model name\s*: (.+)$", info.read_text(), re.MULTILINE)
        cpu = match[1] if match else cpu
    gpu = "" if device.startswith("cpu") else f" and one {device}"
    return f"{os.cpu_count()} cores of {cpu}{gpu}"


def main() -> None:
    """Print the tables, or write them into the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put all parts between the README's markers")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="a part; may be given again")
    arguments = parser.parse_args()
    text = figures(list(PARTS) if arguments.write else arguments.only or list(PARTS))
    if arguments.write:
        readme = README.read_text(encoding="utf-8")
        pattern = r"(<!-- figures:begin -->\n).*?(<!-- figures:end -->)"
        README.write_text(re.sub(pattern, lambda match: match[1] + text + match[2], readme, flags=re.DOTALL), "utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
