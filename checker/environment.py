"""Versions and GPUs of this machine, found without importing torch."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

from checker.domain import Environment

PACKAGES = (
    "torch", "transformers", "accelerate", "bitsandbytes", "safetensors", "huggingface_hub", "tokenizers", "numpy",
    "ml_dtypes",
)  # fmt: skip
SMI_SECONDS = 10


def package_versions() -> dict[str, str]:
    """Installed versions of the packages on which a verdict depends."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


@cache
def gpus() -> tuple[tuple[str, str, str], ...]:
    """(index, name, driver version) of every NVIDIA GPU that nvidia-smi lists; none when there is no nvidia-smi."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    command = [program, "--query-gpu=index,name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SMI_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):  # a driver that hangs: doctor says more
        return ()
    rows = [[part.strip() for part in line.split(",")] for line in done.stdout.splitlines()]
    return tuple((row[0], row[1], row[2]) for row in rows if len(row) == len(("index", "name", "driver")))


def visible_gpus() -> tuple[str, ...]:
    """Names for CUDA_VISIBLE_DEVICES of the GPUs that this process may use."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return tuple(name.strip() for name in allowed.split(",") if name.strip() not in ("", "-1"))
    return tuple(index for index, _, _ in gpus())


def describe() -> Environment:
    """The environment as a report shows it."""
    found = gpus() if visible_gpus() else ()
    return Environment(
        python=platform.python_version(),
        packages=package_versions(),
        device=", ".join(dict.fromkeys(name for _, name, _ in found)) or f"cpu ({platform.machine()})",
        driver=found[0][2] if found else None,
    )


def cache_base() -> Path:
    """Where what can be made again is kept: QUANT_VERIFY_CACHE, XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get("QUANT_VERIFY_CACHE") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "quant-verify"
