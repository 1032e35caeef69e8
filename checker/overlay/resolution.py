"""Which packages have to be laid over besides those asked for: round by round, until every requirement is satisfied.

Only requirements of what is laid over count. What is installed was resolved when it was installed, and whether it still
works with the new packages is what the run is to find out.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.parser import BytesHeaderParser
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from checker.errors import Unavailable
from checker.matrix.packages import belongs_to_torch, canonical_name

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

ROUNDS = 10  # transformers takes four
_METADATA_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Wheel:
    """A package to be laid over: canonical name, version, and its ``Requires-Dist`` lines."""

    name: str
    version: str
    requires: tuple[str, ...] = ()
    path: Path = Path()


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolution:
    """What to lay over, by name, and the installed versions (None: not installed) on which that depends."""

    wheels: Mapping[str, Wheel]
    against: Mapping[str, str | None]


Fetch = Callable[[Mapping[str, str]], list[Wheel]]
"""Gets a wheel for each name, of a version that its specifiers allow, such as ``{"httpx": "<1,>=0.23"}``."""


@dataclass
class _Need:
    specifiers: SpecifierSet
    of: list[str] = field(default_factory=list)  # "transformers 5.17.0 needs httpx<1", for messages
    by_address: bool = False


def resolve(pins: Mapping[str, str], fetch: Fetch, installed: Callable[[str], str | None]) -> Resolution:
    """All wheels that are needed for the exact versions ``pins``, by canonical name.

    Raises:
        Unavailable: requirements that contradict each other, that need another torch, or that do not settle; also
            whatever ``fetch`` raises.
    """
    laid: dict[str, Wheel] = {}
    against: dict[str, str | None] = {}
    for _ in range(ROUNDS):
        asked = dict(_missing(pins, laid, against, installed))
        if not asked:
            return Resolution(wheels=laid, against=against)
        laid |= {wheel.name: wheel for wheel in fetch(asked)}
    raise Unavailable(
        f"what {', '.join(pins)} requires did not settle in {ROUNDS} rounds ({', '.join(sorted(laid))}); pin some of "
        "these in the matrix as well"
    )


def _missing(
    pins: Mapping[str, str],
    laid: Mapping[str, Wheel],
    against: dict[str, str | None],
    installed: Callable[[str], str | None],
) -> Iterator[tuple[str, str]]:
    """(name, specifiers) of what neither the wheels nor the installed packages satisfy; notes what it looked up."""
    yield from ((name, f"=={pin}") for name, pin in pins.items() if name not in laid)
    for name, need in _needs(laid).items():
        if name in pins and name not in laid:
            continue
        version = laid[name].version if name in laid else against.setdefault(name, installed(name))
        if version is not None and need.specifiers.contains(version, prereleases=True):
            continue
        if belongs_to_torch(name):
            has = f"{name} {version} is installed" if version else f"{name} is not installed"
            remedy = f"{name} is never laid over; run this version in an environment that has it"
            raise Unavailable(f"{' and '.join(need.of)}, but {has}, and {remedy}")
        if need.by_address:  # a package of that name on the index may be somebody else's
            raise Unavailable(f"{' and '.join(need.of)} from an address, which is not fetched; install it beside torch")
        if name in pins:
            raise Unavailable(f"{' and '.join(need.of)}, but the matrix asks for {name} {version}; change one of them")
        yield name, str(need.specifiers)


def _needs(laid: Mapping[str, Wheel]) -> dict[str, _Need]:
    """By name, everything that the wheels require here, without extras."""
    from packaging.specifiers import SpecifierSet

    needs: dict[str, _Need] = {}
    for wheel in laid.values():
        for requirement in _requirements(wheel):
            need = needs.setdefault(canonical_name(requirement.name), _Need(SpecifierSet()))
            need.specifiers &= requirement.specifier
            need.by_address |= requirement.url is not None
            need.of.append(f"{wheel.name} {wheel.version} needs {requirement.name}{requirement.specifier}")
    return needs


def _requirements(wheel: Wheel) -> Iterator[Requirement]:
    from packaging.requirements import InvalidRequirement, Requirement

    for text in wheel.requires:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            message = f"{wheel.name} {wheel.version} has a requirement that cannot be read: {text[:120]!a}"
            raise Unavailable(f"{message}; choose another version") from None
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def installed_version(name: str) -> str | None:
    """The installed version of a package, None when there is none or its metadata is damaged."""
    try:
        version: str | None = metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
    return version


def read_wheel(path: Path) -> Wheel:
    """Name, version and requirements of a wheel, from its name and its METADATA; nothing is unpacked.

    Raises:
        Unavailable: it is no wheel.
    """
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        name, version, _, _ = parse_wheel_filename(path.name)
        with zipfile.ZipFile(path) as archive:
            entries = [item for item in archive.namelist() if item.count("/") == 1]
            entry = next(item for item in entries if item.endswith(".dist-info/METADATA"))
            with archive.open(entry) as file:
                head = BytesHeaderParser().parsebytes(file.read(_METADATA_BYTES))
    except (InvalidWheelFilename, OSError, ValueError, StopIteration, zipfile.BadZipFile) as error:
        reason = str(error) or type(error).__name__
        raise Unavailable(f"{path.name[:120]!a}, which pip delivered, is no readable wheel: {reason}") from None
    requires = tuple(" ".join(str(line).split()) for line in head.get_all("Requires-Dist", []))
    return Wheel(name=str(name), version=str(version), requires=requires, path=path)
