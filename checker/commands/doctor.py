"""``doctor``: what this machine can do, with a remedy for what it cannot."""

from __future__ import annotations

import os
import sys

from checker.commands.child import ask
from checker.domain import ExitCode
from checker.environment import describe
from checker.errors import Unavailable

SECONDS = 180


def examine(device: str) -> ExitCode:
    """Print device, versions and the result of a real kernel of each kind; 3 when something does not work."""
    environment = describe()
    lines = [f"python           {environment.python}", f"device           {environment.device}"]
    if environment.driver:
        lines.append(f"driver           {environment.driver}")
    lines += [f"{name:<16} {version}" for name, version in environment.packages.items()]
    sys.stdout.write("\n".join(lines) + "\n\n")
    if "torch" not in environment.packages:
        in_image = os.environ.get("QUANT_VERIFY_IN_IMAGE") == "1"
        remedy = "take the image without -static" if in_image else "pip install 'quant-verify[torch]'"
        sys.stdout.write(f"depth static   works\ndepth load     does not work: torch is not installed; {remedy}\n")
        return ExitCode.UNVERIFIED
    try:
        answer = ask("checker.probes.health", {"device": device}, timeout=SECONDS)
    except Unavailable as error:
        sys.stdout.write(f"kernels        do not work: {error}\n")
        return ExitCode.UNVERIFIED
    if "gpu" in answer:
        memory = f"{answer['free_bytes'] / 2**30:.1f} of {answer['total_bytes'] / 2**30:.1f} GiB free"
        sys.stdout.write(f"on             {answer['gpu']}, capability {answer['capability']}, {memory}\n")
    else:
        sys.stdout.write(f"on             {answer['device']}, {answer['threads']} threads\n")
    for kernel in answer["kernels"]:
        verdict = "works" if kernel["works"] else "DOES NOT WORK"
        remedy = f"\n{'':<21}{kernel['remedy']}" if kernel["remedy"] else ""
        sys.stdout.write(f"{kernel['name']:<20} {verdict}: {kernel['says']}{remedy}\n")
    return ExitCode.PASSED if all(kernel["works"] for kernel in answer["kernels"]) else ExitCode.UNVERIFIED
