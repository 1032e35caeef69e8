"""The options of ``run`` and ``check`` as one value, and the reading of what stands in them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from checker.domain import Depth, Severity
from checker.errors import UsageError

SHARD = re.compile(r"([1-9]\d*)/([1-9]\d*)")
DEVICE = re.compile(r"auto|cpu|cuda|cuda:\d+")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunArguments:
    """What ``run`` and ``check`` were told, command line over environment; None and empty mean: not said."""

    depth: str | None = None
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    shard: str | None = None
    device: str | None = None
    jobs: str = "auto"
    timeout: float | None = None
    offline: bool = False
    trust_remote_code: bool = False
    weights: str | None = None
    architecture: bool = False
    require_pinned: bool = False
    report_dir: str | None = None
    fail_on: str = "fail"
    annotations: str = "auto"
    format: str = "text"
    quiet: bool = False
    verbose: bool = False

    def forced(self) -> dict[str, object]:
        """The settings that the command line or the environment puts above the matrix.

        Raises:
            UsageError: a device that is none.
        """
        if self.device is not None and not DEVICE.fullmatch(self.device):
            raise UsageError(f"--device {self.device!r} is none of auto, cpu, cuda, cuda:N")
        said: dict[str, object] = {
            "depth": Depth(self.depth) if self.depth else None,
            "select": split(self.select) or None,
            "ignore": split(self.ignore) or None,
            "device": self.device,
            "timeout": self.timeout,
            "weights": self.weights,
            "architecture": self.architecture or None,
            "trust_remote_code": self.trust_remote_code or None,
        }
        return {key: value for key, value in said.items() if value is not None}

    @property
    def severity(self) -> Severity:
        """From which severity on a finding fails the run."""
        return Severity(self.fail_on)

    @property
    def partial(self) -> bool:
        """Whether less is judged than the matrix says, so that it cannot be told what in the matrix is of no use."""
        return any((self.shard, self.only, self.depth, self.select, self.ignore, self.weights))

    def shard_numbers(self) -> tuple[int, int] | None:
        """(index, count) of ``--shard I/N``.

        Raises:
            UsageError: not of that form, or I above N.
        """
        if self.shard is None:
            return None
        match = SHARD.fullmatch(self.shard)
        if match is None or int(match[1]) > int(match[2]):
            raise UsageError(f"--shard {self.shard!r} is not of the form I/N with 1 ≤ I ≤ N, such as 2/5")
        return int(match[1]), int(match[2])

    def annotate(self, environment: Mapping[str, str] = os.environ) -> bool:
        """Whether to write workflow commands; a shard leaves them to ``merge``."""
        if self.annotations == "auto":
            return environment.get("GITHUB_ACTIONS") == "true" and self.shard is None
        return self.annotations == "always"

    def folder(self) -> Path | None:
        """The report folder, if reports are wanted."""
        return Path(self.report_dir) if self.report_dir else None


def split(values: Iterable[str]) -> tuple[str, ...]:
    """Comma lists of a repeatable option, flattened."""
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


def worker_count(jobs: str, gpus: Sequence[str]) -> int:
    """How many cells run at a time: ``auto`` is one for each GPU, and one on a machine without.

    Raises:
        UsageError: neither ``auto`` nor a number of 1 or more.
    """
    if jobs == "auto":
        return max(1, len(gpus))
    if not jobs.isdecimal() or int(jobs) < 1:
        raise UsageError(f"--jobs {jobs!r} is neither auto nor a number of 1 or more")
    return int(jobs)
