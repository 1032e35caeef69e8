"""pip as a process: wheels into a folder, wheels unpacked. Nothing that it gets is built, resolved or run."""

from __future__ import annotations

import contextlib
import importlib.machinery
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from checker.domain import ErrorKind
from checker.errors import Unavailable
from checker.overlay.resolution import Wheel, read_wheel
from checker.process import child_environment

SECONDS = 1800.0  # for one call; pip itself gives up a silent connection much earlier
LOOK_SECONDS = 0.2  # between two looks at whether the run has ended
TAIL_BYTES = 20_000
COMMON = ("--no-deps", "--no-input", "--disable-pip-version-check", "--no-color", "--only-binary", ":all:")
# These variables add to a command, let it write elsewhere, or make it choose for another interpreter.
STRAYING = re.compile(
    r"PIP_(REQUIREMENTS?|EDITABLE|TARGET|PREFIX|ROOT|USER|DEST|SRC|REPORT|LOG|NO_BINARY"
    r"|PYTHON|PYTHON_VERSION|PLATFORM|ABI|IMPLEMENTATION)"
)
UNREACHED = re.compile(
    r"Retrying \(|ConnectionError|Connection(Refused|Reset)|Read ?[Tt]imed? ?out|Max retries exceeded"
)
CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")


@dataclass
class Pip:
    """Calls of pip for one set of packages; all that it writes lies under ``folder``."""

    folder: Path
    cancelled: Callable[[], bool] = lambda: False
    _rounds: int = field(default=0, init=False)

    def fetch(self, asked: Mapping[str, str]) -> list[Wheel]:
        """A wheel for each name, of a version that its specifiers allow; without what it requires.

        Raises:
            Unavailable: pip is absent, fails, or takes too long; the run has ended.
        """
        self._rounds += 1
        target = self.folder / f"round-{self._rounds}"
        requirements = [f"{name}{specifiers}" for name, specifiers in asked.items()]
        environment = {key: value for key, value in child_environment().items() if not STRAYING.fullmatch(key)}
        arguments = ["download", *COMMON, "--progress-bar", "off", "--dest", str(target), "--", *requirements]
        self._run(arguments, environment, " ".join(requirements))
        wheels = {wheel.name: wheel for wheel in map(read_wheel, sorted(target.glob("*.whl")))}
        if absent := [name for name in asked if name not in wheels]:
            raise Unavailable(f"pip delivered no wheel of {', '.join(absent)}; see its configuration (pip config list)")
        return [wheels[name] for name in asked]

    def unpack(self, wheels: Sequence[Path], target: Path) -> None:
        """Install wheels into a folder of their own, uncompiled: what a worker never imports costs no time.

        Raises:
            Unavailable: as ``fetch``.
        """
        environment = {key: value for key, value in child_environment().items() if not key.startswith("PIP_")}
        environment["PIP_CONFIG_FILE"] = os.devnull
        arguments = ["install", *COMMON, "--no-index", "--no-compile", "--no-warn-script-location"]
        names = " ".join(path.name for path in wheels)
        self._run([*arguments, "--target", str(target), "--", *map(str, wheels)], environment, names)

    def _run(self, arguments: Sequence[str], environment: Mapping[str, str], what: str) -> None:
        if importlib.machinery.PathFinder.find_spec("pip") is None:  # asking all finders would wake setuptools
            raise Unavailable(
                "laying libraries over needs pip, which this Python lacks; install it (python -m ensurepip, or uv pip "
                "install pip)"
            )
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "pip", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )
            try:
                ended = self._wait(process)
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
            said = log.read().decode("utf-8", errors="backslashreplace")
        if not ended:
            raise Unavailable(f"pip took longer than {SECONDS:g} s for {what}; try again, or install from a mirror")
        if process.returncode:
            raise _failure(said, what)

    def _wait(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether pip ended by itself in time."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            if self.cancelled():
                raise Unavailable("the run ended before the libraries were installed")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=LOOK_SECONDS)
                return True
        return False


def _failure(said: str, what: str) -> Unavailable:
    """The failure as one sentence with its last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    last = CREDENTIALS.sub("***@", (errors or lines or ["nothing"])[-1].removeprefix("ERROR:").strip())[:300]
    if UNREACHED.search(said):
        remedy = "is the package index reachable, and are PIP_INDEX_URL and the proxy right?"
        return Unavailable(f"{what} could not be fetched; pip says: {last}; {remedy}", ErrorKind.NETWORK)
    remedy = "only wheels are used, so the version must be published as one for this Python and platform"
    return Unavailable(f"{what} could not be installed; pip says: {last}; {remedy}")
