"""Run a module that needs torch in a process of its own and take its JSON answer: this process never imports torch."""

from __future__ import annotations

import json
import subprocess
import sys

from checker.domain import Json
from checker.errors import Unavailable
from checker.process import child_environment


def ask(module: str, request: Json, *, timeout: float) -> dict[str, Json]:
    """The answer of ``python -m module`` to a JSON request.

    Raises:
        Unavailable: it crashed, took too long, or answered with an error.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", module],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=child_environment(),
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{module} did not answer within {timeout:g} s") from None
    lines = done.stdout.splitlines()
    try:
        answer = json.loads(lines[-1]) if lines else None
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise Unavailable(f"{module} ended with exit code {done.returncode}: {last}")
    if "error" in answer:
        raise Unavailable(str(answer["error"]))
    return answer
