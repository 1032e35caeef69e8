"""What a read of the Hub may cost: a token, a deadline for everything, and which repository at which commit.

Plain data without any library, so that it can travel to a worker in its job.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from checker.domain import ErrorKind, ModelRef
from checker.errors import Unavailable, UsageError

SECONDS = 300.0  # for all reading of one cell from the Hub, waiting and trying again included
VARIABLE = "QUANT_VERIFY_NETWORK_TIMEOUT"


@dataclass(frozen=True, kw_only=True, slots=True)
class Repository:
    """A Hub repository at one commit: every file with its size, as the Hub lists them."""

    ref: ModelRef  # as the user wrote it, for messages
    commit: str
    sizes: Mapping[str, int]  # bytes by path, "/" between folders


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """Leave to use the network. ``until`` is ``time.monotonic()``, one clock for parent and worker of a machine."""

    seconds: float
    until: float
    token: str | None = field(default=None, repr=False)

    def left(self, ref: ModelRef) -> float:
        """Seconds left for reading ``ref``.

        Raises:
            Unavailable: none.
        """
        left = self.until - time.monotonic()
        if left <= 0:
            message = f"{ref} could not be read from the Hub within {self.seconds:g} s; try again, set {VARIABLE} to"
            raise Unavailable(f"{message} more seconds, or download it before", ErrorKind.TIMEOUT)
        return left

    def pause(self, ref: ModelRef, seconds: float, reason: str) -> None:
        """Wait before another attempt.

        Raises:
            Unavailable: at once, when the wait would outlast the deadline.
        """
        left = self.left(ref)
        if seconds >= left:
            message = f"{ref} could not be read: {reason}, and asks to wait {seconds:.0f} s, longer than the"
            remedy = f"{left:.0f} s left; try again later, set HF_TOKEN, or set {VARIABLE} to more seconds"
            raise Unavailable(f"{message} {remedy}", ErrorKind.TIMEOUT)
        time.sleep(seconds)


def open_network(token: str | None = None) -> Network:
    """The allowance of one cell, counted from now.

    Raises:
        UsageError: the environment variable holds no number of seconds.
    """
    text = os.environ.get(VARIABLE) or str(SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"{VARIABLE} must be a number of seconds above 0, not {text[:40]!a}")
    return Network(seconds=seconds, until=time.monotonic() + seconds, token=token)
