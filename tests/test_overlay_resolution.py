"""Which wheels have to come along: rounds, markers, what is never laid over, and contradictions."""

# ruff: noqa: E501 - the table holds one case a line
from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from wheels import write_wheel

from checker.errors import Unavailable
from checker.overlay.resolution import ROUNDS, Resolution, Wheel, installed_version, read_wheel, resolve

BASE = {"torch": "2.13.0+cpu", "hub": "2.4.0", "old": "1.0", "dev": "3.0.dev1", "numpy": "2.4.6"}


class Index:
    """Wheels by name, newest first; remembers what was asked of it in each round."""

    def __init__(self, *wheels: Wheel) -> None:
        self.wheels, self.rounds = wheels, []

    def fetch(self, asked):
        from packaging.specifiers import SpecifierSet

        self.rounds.append(dict(asked))
        found = []
        for name, text in asked.items():
            fits = (item for item in self.wheels if item.name == name and SpecifierSet(text).contains(item.version))
            found.append(next(fits))
        return found


def wheel(name: str, version: str, *requires: str) -> Wheel:
    return Wheel(name=name, version=version, requires=requires)


def resolved(index: Index, **pins: str) -> Resolution:
    return resolve(pins, index.fetch, BASE.get)


def versions(resolution: Resolution) -> dict[str, str]:
    return {name: item.version for name, item in resolution.wheels.items()}


ENOUGH = {
    "no requirement": (),
    "installed and in range": ("hub>=2", "numpy<3,>=2"),
    "a pre-release that is installed counts": ("dev>=2",),
    "a marker of another platform": ("gone>=1; sys_platform == 'nowhere'",),
    "an extra that nobody asked for": ("gone>=1; extra == 'all'",),
    "an extra of what is installed": ("hub[cli]>=2",),
    "torch that fits, local version and all": ("torch<3,>=2.4",),
    "spelt differently": ("HUB>=2",),
    "an address of what is installed": ("hub @ https://example.org/hub.whl",),
}


@pytest.mark.parametrize("requires", ENOUGH.values(), ids=ENOUGH.keys())
def test_what_is_installed_is_enough(requires):
    index = Index(wheel("a", "1", *requires))
    assert versions(resolved(index, a="1")) == {"a": "1"}
    assert index.rounds == [{"a": "==1"}]


def test_unsatisfied_requirements_follow_round_by_round():
    index = Index(
        wheel("a", "1", "hub<2", "numpy"), wheel("hub", "1.9", "x>=1"), wheel("x", "1.5", "y"), wheel("y", "7")
    )
    resolution = resolved(index, a="1")
    assert versions(resolution) == {"a": "1", "hub": "1.9", "x": "1.5", "y": "7"}
    assert index.rounds == [{"a": "==1"}, {"hub": "<2"}, {"x": ">=1"}, {"y": ""}]
    assert resolution.against == {"hub": "2.4.0", "numpy": "2.4.6", "x": None, "y": None}


def test_all_requirements_on_one_package_count_together():
    index = Index(wheel("a", "1", "x>=1", "b"), wheel("b", "1", "x<3"), wheel("x", "4"), wheel("x", "2"))
    assert versions(resolved(index, a="1")) == {"a": "1", "b": "1", "x": "2"}
    assert index.rounds[-1] == {"x": "<3,>=1"}


def test_a_pinned_package_satisfies_the_others():
    index = Index(wheel("a", "1", "hub<2"), wheel("hub", "1.2"), wheel("hub", "1.9"))
    assert versions(resolved(index, a="1", hub="1.2")) == {"a": "1", "hub": "1.2"}
    assert len(index.rounds) == 1


REFUSED = {
    "another torch": (("torch>=3",), "a 1 needs torch>=3, but torch 2.13.0+cpu is installed, and torch is never laid over; run this version in an environment"),
    "no triton": (("triton>=3",), "a 1 needs triton>=3, but triton is not installed"),
    "no cuda library": (("nvidia-cublas-cu12",), "but nvidia-cublas-cu12 is not installed"),
    "against a pin": (("pinned<2",), "a 1 needs pinned<2, but the matrix asks for pinned 2; change one of them"),
    "an address": (("gone @ https://example.org/gone.whl",), "a 1 needs gone from an address, which is not fetched"),
    "an unreadable requirement": (("gone (>=1",), "a 1 has a requirement that cannot be read: 'gone (>=1'; choose another"),
}  # fmt: skip


@pytest.mark.parametrize(("requires", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_contradictions_are_told(requires, sentence):
    with pytest.raises(Unavailable) as caught:
        resolved(Index(wheel("a", "1", *requires), wheel("pinned", "2")), a="1", pinned="2")
    assert sentence in str(caught.value)


def test_a_chain_without_end_is_cut():
    chain = [wheel(f"p{number}", "1", f"p{number + 1}") for number in range(ROUNDS + 5)]
    with pytest.raises(Unavailable, match=f"p0 requires did not settle in {ROUNDS} rounds"):
        resolved(Index(*chain), p0="1")


def test_a_wheel_is_read_without_unpacking(tmp_path: Path):
    path = write_wheel(tmp_path, "Some_Toy", "1.0", requires=["dep>=2", "other; extra == 'x'"])
    assert read_wheel(path) == Wheel(
        name="some-toy", version="1.0", requires=("dep>=2", "other; extra == 'x'"), path=path
    )


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _without_metadata(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/y/a.dist-info/METADATA", "")


@pytest.mark.parametrize(
    ("name", "write"),
    [("a-1-py3-none-any.whl", _empty), ("a.whl", _empty), ("a-1-py3-none-any.whl", _without_metadata)],
    ids=["no archive", "no name of a wheel", "no metadata"],
)
def test_what_is_no_wheel_is_told(tmp_path, name, write):
    write(tmp_path / name)
    with pytest.raises(Unavailable, match="is no readable wheel"):
        read_wheel(tmp_path / name)


def test_installed_versions_are_those_of_this_interpreter():
    assert installed_version("pytest") == pytest.__version__
    assert installed_version("no-such-package-here") is None
