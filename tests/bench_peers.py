"""Two other checkers beside this one: installed as their documentation says, in an environment of their own.

- ``grit-scan PATH`` (grit-datatype) reads headers. Exit 0 clean, 1 violation, 2 disagreement, 3 warnings, 4 unreadable.
- ``modeldiffr audit BASE DERIVATIVE --fail-on-change`` (modeldiffr[hf]) runs both models on the same items. Exit 0
  within noise, 1 changed, 3 not comparable. Where many checkpoints are judged, its free generation is left out
  (``--tasks capability,divergence``), which takes most of the time.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench_processes import COMMAND, MEGABYTE, ROOT, Measured, measure, middle, progress, table

REQUIREMENTS = """\
torch==2.13.0
grit-datatype[numpy]==1.1.0
modeldiffr[hf]==0.9.3
transformers==5.23.0
bitsandbytes==0.50.2
"""
QUICK = ("--tasks", "capability,divergence")
LONGEST = 1200.0  # seconds of one audit
ROUNDS = 3
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Peers:
    """Where their programs are; None with a reason when one cannot be had."""

    folder: Path | None
    reason: str = ""

    def has(self, name: str) -> bool:
        return self.folder is not None and (self.folder / name).is_file()

    def grit(self, checkpoint: Path) -> tuple[str, ...]:
        return (str(self._program("grit-scan")), "--json", str(checkpoint))

    def audit(self, baseline: Path, checkpoint: Path, report: Path, *more: str) -> tuple[str, ...]:
        program = str(self._program("modeldiffr"))
        place = ("--out", str(report), "--device", "cpu", "--fail-on-change")
        return (program, "audit", str(baseline), str(checkpoint), *place, *more)

    def _program(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / name


def install() -> Peers:
    """Make their environment when it is not there."""
    sys.path.insert(0, str(ROOT / "tests" / "fixtures"))
    from remake import environment

    with tempfile.TemporaryDirectory() as folder:
        tool = Path(folder) / "peers"
        tool.mkdir()
        (tool / "requirements.txt").write_text(REQUIREMENTS, "utf-8")
        try:
            python = environment(tool, ROOT / ".fixtures")
        except (OSError, subprocess.CalledProcessError) as error:
            return Peers(None, f"not compared: their packages cannot be installed here ({error})")
    return Peers(python.parent)


def changes(report: Path) -> str:
    """What an audit measured, as ``metric ±delta``; only what it calls changed."""
    try:
        metrics = json.loads((report / "report.json").read_text("utf-8"))["metrics"]
    except (OSError, ValueError, KeyError):
        return ""
    return ", ".join(f"{item['name']} {item['delta']:+.2f}" for item in metrics if item["significant"])


def times(baseline: Path, checkpoint: Path, peers: Peers) -> str:
    """Times of all three on the same healthy checkpoint, in turn, as a table with ratios."""
    if peers.folder is None:
        return peers.reason + "\n"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "audit"
        check = (*COMMAND, "check", str(checkpoint), "--quiet")
        commands: dict[str, tuple[Sequence[str], int]] = {
            "quant-verify check ./model --baseline ./base": ((*check, "--baseline", str(baseline)), ROUNDS),
            "quant-verify check ./model --weights off": ((*check, "--weights", "off"), ROUNDS),
            "grit-scan": (peers.grit(checkpoint), ROUNDS),
            "modeldiffr audit --tasks capability,divergence": (
                peers.audit(baseline, checkpoint, report, *QUICK),
                ROUNDS,
            ),
            "modeldiffr audit": (peers.audit(baseline, checkpoint, report), 1),
        }
        runs: dict[str, list[Measured]] = {name: [] for name in commands}
        for number in range(ROUNDS):  # in turn, so that a busy moment of the machine hits all alike
            for name, (command, rounds) in commands.items():
                if number < rounds:
                    runs[name].append(measure(command, environment=OFFLINE, timeout=LONGEST))
                    progress(f"{name}: {runs[name][-1].seconds:.2f} s, exit {runs[name][-1].code}")
    results = {name: middle(found) for name, found in runs.items()}
    own = results["quant-verify check ./model --baseline ./base"].seconds
    looks = ("all stored numbers", "headers", "headers", "outputs", "outputs and generated text")
    rows = [
        (
            f"`{name}`",
            look,
            f"{result.seconds:.2f} s" if result.seconds < LONGEST else f"> {LONGEST:.0f} s",
            f"{result.seconds / own:.2f}",
            f"{result.largest_bytes / MEGABYTE:.0f} MB",
        )
        for (name, result), look in zip(results.items(), looks, strict=True)
    ]
    return table(("on NF4 SmolLM2-135M", "looks at", "time", "ratio", "memory"), *rows, right=3)


def version_of(peers: Peers) -> str:
    """Which versions were compared."""
    found = dict(re.findall(r"^([\w-]+)(?:\[\w+\])?==([\d.]+)$", REQUIREMENTS, re.MULTILINE))
    return peers.reason or f"grit-datatype {found['grit-datatype']}, modeldiffr {found['modeldiffr']}"
