"""Asking the Hub: with patience, up to a deadline, and every refusal as one sentence with its remedy.

Failures here are not the model's: whatever the network, the Hub or the disk does is ``Unavailable``.
"""

from __future__ import annotations

import contextlib
import errno
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import checker
from checker.checkpoint.network import Network
from checker.checkpoint.problem import quoted, shown
from checker.domain import ErrorKind, ModelRef
from checker.errors import Unavailable, UsageError

ATTEMPTS = 5  # that bring nothing, one after the other
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds; doubled from attempt to attempt
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # HTTP statuses that may be gone at the next attempt
TOO_MANY = 429

Result = TypeVar("Result")

_NONSENSE = (ValueError, TypeError, KeyError, AttributeError)  # of an answer that the library did not expect
_RESET = re.compile(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d+)")  # of the RateLimit header: nothing remains for t seconds


def asked(
    ref: ModelRef, question: Callable[[], Result], *, offline: bool = False, network: Network | None = None
) -> Result:
    """The Hub's answer, or its refusal as one of our errors; with ``network``, in time and after several attempts.

    Without it the library's own patience is all there is, as for a download that may take hours.
    """
    from huggingface_hub.errors import HFValidationError

    attempt = 0
    while True:
        try:
            return question() if network is None else _in_time(ref, question, network)
        except HFValidationError:
            raise UsageError(
                f"{quoted(str(ref))} is not a Hub repository; write ORG/NAME, or ./ before a folder"
            ) from None
        except _NONSENSE:
            message = "what answers is not the Hub; check HF_ENDPOINT, network and proxy"
            raise Unavailable(f"{shown(str(ref))} could not be read: {message}", ErrorKind.NETWORK) from None
        except failures() as error:
            attempt += 1
            pause = wait_after(error, attempt)
            if network is None or pause is None or attempt >= ATTEMPTS:
                raise unavailable(ref, error, offline=offline) from None
        network.pause(ref, pause, "the Hub does not answer as it should")


def _in_time(ref: ModelRef, question: Callable[[], Result], network: Network) -> Result:
    """Ask in a thread of its own, which is left to itself when the deadline comes: the library may sleep for an hour.

    Of the process it holds up nothing, being a daemon.
    """
    answers: list[Result] = []
    errors: list[Exception] = []

    expected: tuple[type[Exception], ...] = (*failures(), *_NONSENSE)

    def ask() -> None:
        try:
            answers.append(question())
        except expected as error:
            errors.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(network.left(ref))
    if errors:
        raise errors[0]
    if not answers:
        network.left(ref)
        raise RuntimeError("the request ended without an answer")
    return answers[0]


def wait_after(error: Exception, attempt: int) -> float | None:
    """Seconds to wait before the next attempt, as the server asks or doubling; None when another one is no use."""
    from huggingface_hub import errors

    causes = list(_chain(error))
    if any(isinstance(cause, (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError)) for cause in causes):
        return None  # the latter after the library's own attempts
    refusal = next((cause for cause in causes if isinstance(cause, errors.HfHubHTTPError)), None)
    if refusal is not None:
        response = refusal.response
        pause = asked_pause(response.headers)
        return None if response.status_code not in PASSING else backoff(attempt) if pause is None else pause
    return backoff(attempt) if any(isinstance(cause, _http_error()) for cause in causes) else None


def backoff(attempt: int) -> float:
    """Seconds before attempt number ``attempt`` + 1."""
    return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempt - 1)))


def asked_pause(headers: Mapping[str, str]) -> float | None:
    """Seconds that a refusal asks to wait, by Retry-After (a number or a date) or RateLimit; None when it does not."""
    import email.utils

    asks = headers.get("retry-after", "").strip()
    if asks.isdecimal():
        return float(asks[:9])
    with contextlib.suppress(ValueError):  # no date
        return max(0.0, email.utils.parsedate_to_datetime(asks).timestamp() - time.time())
    match = _RESET.search(headers.get("ratelimit", ""))
    return float(match[1][:9]) if match else None


def may_ask() -> bool:
    """Whether HF_HUB_OFFLINE leaves the network open."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE


def headers_with(token: str | None) -> dict[str, str]:
    """Headers of a request as the library sends them, with this token and no other."""
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    found: dict[str, str] = build_hf_headers(
        token=token or False, library_name="quant-verify", library_version=checker.__version__
    )
    return found


def token_to_send() -> str | None:
    """The token that the library would send: of HF_TOKEN or a login, unless that is switched off."""
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    sent: str = build_hf_headers().get("authorization", "")
    return sent.removeprefix("Bearer ") or None


def failures() -> tuple[type[Exception], ...]:
    """What the library raises when a request or a download fails."""
    from huggingface_hub import errors

    xet: type[Exception] = getattr(errors, "XetDownloadError", OSError)  # not in the first versions
    return (_http_error(), xet, OSError, RuntimeError)  # RuntimeError: a broken transfer in hf_xet


def _http_error() -> type[Exception]:
    """The HTTP library's base class; which library that is depends on the version of huggingface_hub."""
    from huggingface_hub import errors

    found: type[Exception] = errors.HfHubHTTPError.__mro__[1]
    return found


def unavailable(ref: ModelRef, error: Exception, *, offline: bool = False) -> Unavailable:
    """A failure as one sentence with its remedy."""
    from huggingface_hub import errors

    name = shown(str(ref))
    causes = list(_chain(error))
    if any(isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT) for cause in causes):
        message = "the disk is full; free some space or set HF_HOME to a larger disk"
        return Unavailable(f"{name} could not be downloaded: {message}")
    if any(isinstance(cause, errors.GatedRepoError) for cause in causes):
        message = f"accept its licence at https://huggingface.co/{shown(ref.name)} and set HF_TOKEN to a token that may"
        return Unavailable(f"{name} is gated: {message} read it", ErrorKind.GATED)
    if any(isinstance(cause, errors.RevisionNotFoundError) for cause in causes):
        return Unavailable(f"{name} has no such revision; check what follows the @", ErrorKind.GATED)
    refusal = next((cause for cause in causes if isinstance(cause, errors.HfHubHTTPError)), None)
    if refusal is not None:
        return _refused(name, refusal.response.status_code, isinstance(refusal, errors.RepositoryNotFoundError))
    forbidden = any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in causes)
    local = isinstance(error, errors.LocalEntryNotFoundError)
    if offline or forbidden or (local and len(causes) == 1):
        return not_cached(ref, "--offline" if offline else "HF_HUB_OFFLINE")
    reason = shown(str(causes[-1]).partition("\n")[0]) or type(causes[-1]).__name__
    message = f"the Hub cannot be reached ({reason}); check network and proxy, or use --offline with a filled cache"
    return Unavailable(f"{name} could not be downloaded: {message}", ErrorKind.NETWORK)


def not_cached(ref: ModelRef, switch: str | None) -> Unavailable:
    """The cache lacks files, and fetching them is forbidden by ``switch``, or failed."""
    remedy = f"run once without {switch}" if switch else "check network and proxy"
    message = f"{shown(str(ref))} is not, or not wholly, in the local cache; {remedy}, or download it before"
    return Unavailable(message, ErrorKind.NETWORK)


def _refused(name: str, status: int, unknown: bool) -> Unavailable:
    if unknown or status == 404:  # noqa: PLR2004
        message = "does not exist, or is private; check its name, or set HF_TOKEN to a token that may read it"
        return Unavailable(f"{name} {message}", ErrorKind.GATED)
    if status in (401, 403):
        message = f"may not be read (HTTP {status}); set HF_TOKEN to a valid token that may read it"
        return Unavailable(f"{name} {message}", ErrorKind.GATED)
    kind = "limits the rate of requests; set HF_TOKEN" if status == TOO_MANY else "does not answer as it should"
    message = f"the Hub {kind} (HTTP {status}), also after retries; try again later"
    return Unavailable(f"{name} could not be downloaded: {message}", ErrorKind.NETWORK)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what caused it: the library wraps the Hub's answer in errors of its own."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__
