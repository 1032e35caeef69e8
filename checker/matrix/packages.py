"""Names and versions of packages as the axis ``libraries`` may hold them: PEP 503 names, exact PEP 440 versions.

What stands there ends up as an argument of pip and in a cell's id. So nothing passes but a name and one version: no
URL, no option, no range, no extra.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_NAME_LENGTH = 64
_VERSION_LENGTH = 40
_LABEL = re.compile(r"[a-z0-9._+-]{1,128}")
_OF_TORCH = re.compile(r"torch|triton|pytorch-triton.*|nvidia-.*")
_TORCH_REASON = "belongs to the torch installation, whose compiled parts fit one another only"


def canonical_name(name: str) -> str:
    """The one spelling of a package's name (PEP 503): lower case, with single hyphens."""
    return re.sub(r"[-_.]+", "-", name).lower()


def canonical(libraries: Mapping[str, str]) -> dict[str, str]:
    """Names and versions as they are spelt in ids and given to pip; only of what is not wrong."""
    from packaging.version import Version

    return {canonical_name(name): str(Version(version)) for name, version in libraries.items()}


def label(libraries: Mapping[str, str]) -> str:
    """What follows the ``@`` in the id of a cell with these (canonical) packages."""
    return "+".join(f"{name}-{version}" for name, version in libraries.items())


def described(libraries: Mapping[str, str]) -> str:
    """The packages as a sentence names them: ``bitsandbytes 0.49.2, accelerate 1.14.0``."""
    return ", ".join(f"{name} {version}" for name, version in libraries.items())


def belongs_to_torch(name: str) -> bool:
    """Whether a package (its canonical name) is torch or comes with it, and so is never laid over."""
    return _OF_TORCH.fullmatch(name) is not None


def wrong_package(name: str) -> str | None:
    """Why a package cannot be laid over others by this name."""
    if not _NAME.fullmatch(name) or len(name) > _NAME_LENGTH:
        return (
            f"{name[: 2 * _NAME_LENGTH]!a} is no name of a package; write {{package: version}}, such as "
            "{bitsandbytes: 0.49.2}, without URL, option, extra or range"
        )
    if belongs_to_torch(canonical_name(name)):
        return f"{name} {_TORCH_REASON}; run the matrix in another environment instead"
    if canonical_name(name) == "quant-verify":
        return f"{name} is what judges, so it cannot be laid over; install that version and run the matrix with it"
    return None


def wrong_version(version: str) -> str | None:
    """Why this is not one exact version."""
    from packaging.version import InvalidVersion, Version

    try:
        if not version.isascii() or version != version.strip() or len(version) > _VERSION_LENGTH:
            raise InvalidVersion(version)
        Version(version)
    except InvalidVersion:
        return (
            f"{version[: 2 * _VERSION_LENGTH]!a} is no exact version; write {{package: version}} with one version "
            "as the package index lists it, such as {bitsandbytes: 0.49.2}"
        )
    return None


def wrong_label(libraries: Mapping[str, str]) -> str | None:
    """Why these packages (canonical) cannot become part of a cell's id."""
    text = label(libraries)
    if not text or _LABEL.fullmatch(text):
        return None
    return f"{text[:160]!a} cannot be part of a cell id, which holds up to 128 letters, digits and . _ + -"
