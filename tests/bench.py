"""The figures of the README: ``make bench`` prints them as a table; ``--write`` puts it between the README's markers.

Times are whole processes, the median of several runs; memory is the largest resident set of any process of the run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from checker.commands.demo import LAYER, cache_folder, prepare
from checker.environment import describe
from checker.probes.demo_model import swap_nibbles

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
COMMAND = [sys.executable, str(ROOT / "entrypoint.py")]
RUNS = 5
MEGABYTE = 1e6
BLOOM = {
    "architectures": ["BloomForCausalLM"],
    "model_type": "bloom",
    "hidden_size": 2048,
    "n_layer": 24,
    "n_head": 16,
    "vocab_size": 250880,
    "dtype": "float16",
}


@dataclass
class Measured:
    """One process tree that has ended."""

    code: int
    seconds: float
    parent_bytes: int = 0
    largest_bytes: int = 0
    modules: set[str] = field(default_factory=set)
    output: str = ""


def measure(*arguments: str) -> Measured:
    """Run the command once, watching the memory of it and of its workers."""
    begin = time.perf_counter()
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    peaks: dict[int, int] = {}
    watcher = threading.Thread(target=_watch, args=(process, peaks))
    watcher.start()
    output, _ = process.communicate()
    seconds = time.perf_counter() - begin
    watcher.join()
    return Measured(
        code=process.returncode,
        seconds=seconds,
        parent_bytes=peaks.get(process.pid, 0),
        largest_bytes=max(peaks.values(), default=0),
        output=output,
    )


def _watch(process: subprocess.Popen[str], peaks: dict[int, int]) -> None:
    parent = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            for one in (parent, *parent.children(recursive=True)):
                peaks[one.pid] = max(peaks.get(one.pid, 0), one.memory_info().rss)
        except psutil.Error:
            pass
        time.sleep(0.002)


def median(*arguments: str, runs: int = RUNS) -> Measured:
    """The run of median time; its memory is the largest of all runs."""
    results = sorted((measure(*arguments) for _ in range(runs)), key=lambda result: result.seconds)
    middle = results[len(results) // 2]
    middle.seconds = statistics.median(result.seconds for result in results)
    middle.largest_bytes = max(result.largest_bytes for result in results)
    middle.parent_bytes = max(result.parent_bytes for result in results)
    return middle


def imports_torch(*arguments: str) -> bool:
    """Whether any process of a run imports torch: every interpreter lists its imports, workers included."""
    environment = os.environ | {"PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, env=environment, check=False)
    return re.search(r"\|\s+torch$", done.stderr, re.MULTILINE) is not None


def rows(models: Path, folder: Path) -> Iterator[tuple[str, str, str]]:
    """(what, measured, bar) of every figure."""
    nf4 = folder / "smollm2-nf4"
    shutil.copytree(models / "smollm2-135m-nf4-damaged", nf4)
    swap_nibbles(nf4, LAYER)  # twice is healthy again
    base = str(models / "smollm2-135m")
    check = ("check", str(nf4), "--baseline", base, "--quiet")
    static = median(*check)
    assert static.code == 0, static.output
    yield "static check of NF4 SmolLM2-135M with baseline, every block", f"{static.seconds:.2f} s", "≤ 1.5 s"
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
    answer = json.loads(measure("estimate", str(folder / "config.json"), "--format", "json").output)
    ratios = [answer["quantizations"][name]["ratio"] for name in ("nf4", "int8")]
    yield "`estimate` of bloom-1b7, 4-bit ratio", repr(ratios[0]), "2.109659552692574"
    yield "`estimate` of bloom-1b7, 8-bit ratio", repr(ratios[1]), "1.5400250499901118"
    demo = measure("demo", "--quiet", "--report-dir", str(folder / "report"))
    assert demo.code == 0, demo.output
    yield "demo: three cells at full depth, models made before", f"{demo.seconds:.0f} s", ""
    yield "the parent's memory during it", f"{demo.parent_bytes / MEGABYTE:.0f} MB", "≤ 150 MB"
    yield "the largest worker's memory", f"{demo.largest_bytes / MEGABYTE:.0f} MB", ""


def table() -> str:
    """The figures as a markdown table, headed by the machine they were measured on."""
    prepare(cache_folder(), rebuild=False)
    environment = describe()
    lines = [f"Measured on {_machine(environment.device)}, Python {environment.python}.", ""]
    lines += ["| figure | measured | bar |", "|---|--:|--:|"]
    with tempfile.TemporaryDirectory() as folder:
        for what, measured, bar in rows(cache_folder(), Path(folder)):
            lines.append(f"| {what} | {measured} | {bar} |")
            sys.stderr.write(f"{what}: {measured} {bar}\n")
    return "\n".join(lines) + "\n"


def _machine(device: str) -> str:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        match = re.search(r"^model name\s*: (.+)$", info.read_text(), re.MULTILINE)
        cpu = match[1] if match else cpu
    gpu = "" if device.startswith("cpu") else f" and one {device}"
    return f"{os.cpu_count()} cores of {cpu}{gpu}"


def main() -> None:
    """Print the table, or write it into the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table between the README's markers")
    text = table()
    if parser.parse_args().write:
        readme = README.read_text(encoding="utf-8")
        pattern = r"(<!-- figures:begin -->\n).*?(<!-- figures:end -->)"
        README.write_text(re.sub(pattern, lambda match: match[1] + text + match[2], readme, flags=re.DOTALL), "utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
