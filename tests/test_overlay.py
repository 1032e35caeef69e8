"""Folders of laid-over packages, made by the real pip from wheels on disk: found again, put in place, told when not."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import psutil
import pytest
from wheels import only_from, write_wheel

from checker import overlay, process
from checker.domain import ErrorKind
from checker.errors import Unavailable
from checker.overlay import MARKER, Site, contents, find, lay_over
from checker.overlay.pip import _failure
from checker.process import child_environment
from checker.workers import Workers

TOY = {"qvtoy": "1.0"}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all that pip sees, and a cache beside it."""
    folder = tmp_path / "index"
    write_wheel(folder, "qvtoy", "1.0", requires=["qvtoy-dep>=2", "packaging"])
    write_wheel(folder, "qvtoy-dep", "1.0")
    write_wheel(folder, "qvtoy-dep", "2.1")
    for name, value in only_from(folder).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("QUANT_VERIFY_CACHE", str(tmp_path / "cache"))
    return folder


def failure(libraries: dict[str, str], **site: object) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        lay_over(libraries, Site(**site))
    assert "\n" not in str(caught.value)
    return caught.value


def leftovers() -> list[str]:
    return sorted(path.name for path in overlay.cache_folder().iterdir())


def test_a_folder_is_made_once_and_found_again(index):
    said: list[str] = []
    folder = lay_over(TOY, Site(say=said.append))
    assert contents(folder) == {"qvtoy": "1.0", "qvtoy-dep": "2.1"}
    assert json.loads((folder / MARKER).read_text())["against"] == {
        "packaging": overlay.installed_version("packaging"),
        "qvtoy-dep": None,
    }
    shutil.rmtree(index)
    assert lay_over(TOY, Site(say=said.append, offline=True)) == folder
    assert said == ["installing qvtoy 1.0"]
    assert [name.startswith("qvtoy-1.0-") for name in leftovers()] == [True]


def test_nothing_compiled_and_nothing_installed(index):
    folder = lay_over(TOY, Site())
    assert not [*folder.rglob("*.pyc")]
    assert overlay.installed_version("qvtoy") is None


def _against_another(folder: Path) -> None:
    marker = json.loads((folder / MARKER).read_text())
    marker["against"]["packaging"] = "1.0"
    (folder / MARKER).write_text(json.dumps(marker))


def _half_deleted(folder: Path) -> None:
    shutil.rmtree(next(folder.glob("qvtoy_dep-*.dist-info")))


def _unmarked(folder: Path) -> None:
    (folder / MARKER).unlink()


def _scribbled(folder: Path) -> None:
    (folder / MARKER).write_text("[]")


@pytest.mark.parametrize("harm", [_against_another, _half_deleted, _unmarked, _scribbled])
def test_a_folder_that_does_not_fit_is_made_anew(index, harm):
    folder = lay_over(TOY, Site())
    harm(folder)
    assert find(TOY, overlay.cache_folder()) is None
    assert lay_over(TOY, Site()) == folder
    assert find(TOY, overlay.cache_folder()) == folder


def test_cells_that_ask_for_the_same_at_once_share_one_installation(index):
    said: list[str] = []
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(lay_over(TOY, Site(say=said.append)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 3
    assert len({*found}) == len(said) == 1


def test_of_two_runs_the_faster_one_keeps_its_folder(index):
    folder = lay_over(TOY, Site())
    (folder / "witness").touch()
    assert overlay._make(TOY, folder.parent, Site()) == folder
    assert (folder / "witness").exists()
    assert len(leftovers()) == 1


def test_offline_what_is_not_in_the_cache_is_not_installed(index):
    error = failure(TOY, offline=True)
    assert error.kind is ErrorKind.NETWORK
    assert "qvtoy 1.0 is not in the cache" in str(error)
    assert "run this cell once without --offline" in str(error)


def test_a_version_that_does_not_exist(index):
    error = failure({"qvtoy": "9.9"})
    assert error.kind is ErrorKind.NOT_RUN, "another attempt would end the same"
    assert "pip says: No matching distribution found for qvtoy==9.9; only wheels are used" in str(error)
    assert leftovers() == []


def test_sources_are_never_built(index, tmp_path):
    """This one would need nothing to be built: its build script comes with it."""
    source = tmp_path / "qvsource-1.0"
    source.mkdir()
    (source / "backend.py").write_text(f"open({str(tmp_path / 'built')!r}, 'w')\n")
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: qvsource\nVersion: 1.0\n")
    with tarfile.open(index / "qvsource-1.0.tar.gz", "w:gz") as archive:
        archive.add(source, arcname=source.name)
    assert "only wheels are used" in str(failure({"qvsource": "1.0"}))
    assert not (tmp_path / "built").exists()


def test_credentials_in_an_address_are_not_repeated():
    said = "Looking\nERROR: no answer from https://someone:hidden@example.org/simple\n"
    assert "no answer from https://***@example.org/simple;" in str(_failure(said, "a==1"))


def test_an_index_out_of_reach_is_the_networks_fault(index, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://someone:hidden@127.0.0.1:{free.getsockname()[1]}/simple"
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", address)
    monkeypatch.setenv("PIP_RETRIES", "1")
    error = failure(TOY | {"qvabsent": "1.0"})
    assert error.kind is ErrorKind.NETWORK
    assert "is the package index reachable, and are PIP_INDEX_URL and the proxy right?" in str(error)
    assert "hidden" not in str(error)


def test_the_end_of_the_run_ends_pip(index, monkeypatch):
    """Pip waits here for an index that accepts a connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.getsockname()[1]}/simple")
        begin = time.monotonic()
        server.settimeout(0)

        def asked() -> bool:
            with contextlib.suppress(BlockingIOError):
                connections.append(server.accept()[0])
            return bool(connections)

        connections: list[socket.socket] = []
        error = failure({"qvabsent": "1.0"}, cancelled=asked)
        connections[0].close()
    assert "the run ended before the libraries were installed" in str(error)
    assert time.monotonic() - begin < 20
    assert not [child for child in psutil.Process().children(recursive=True) if "pip" in child.cmdline()]
    assert leftovers() == []


def test_a_python_without_pip_is_told_what_to_do(index, monkeypatch):
    without = [place for place in sys.path if not (Path(place) / "pip").is_dir()]
    monkeypatch.setattr(sys, "path", without)
    assert "needs pip, which this Python lacks; install it (python -m ensurepip" in str(failure(TOY))


def test_settings_of_pip_do_not_lead_it_astray(index, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_NO_BINARY", ":all:")
    monkeypatch.setenv("PIP_REQUIREMENT", str(tmp_path / "requirements.txt"))
    assert contents(lay_over(TOY, Site())).keys() == {"qvtoy", "qvtoy-dep"}
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["a file", "a:colon"])
def test_a_cache_that_cannot_be_used(index, tmp_path, monkeypatch, name):
    (tmp_path / "a file").touch()
    monkeypatch.setenv("QUANT_VERIFY_CACHE", str(tmp_path / name))
    assert "QUANT_VERIFY_CACHE to another folder" in str(failure(TOY))


def worker_says(folder: Path, code: str) -> str:
    """What a line of Python prints in the environment of a worker with ``folder`` laid over."""
    command = [sys.executable, "-P", "-c", code]
    environment = child_environment(overlay=str(folder))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_a_worker_imports_what_is_laid_over_and_not_what_is_installed(index):
    write_wheel(index, "click", "99.0", files={"click/__init__.py": "mark = 'laid over'\n"})
    folder = lay_over({"click": "99.0"}, Site())
    code = "import click, importlib.metadata; print(click.__file__, click.mark, importlib.metadata.version('click'))"
    assert worker_says(folder, code) == f"{folder}/click/__init__.py laid over 99.0"


def test_a_worker_tells_the_versions_that_it_sees(index):
    folder = lay_over(TOY, Site())
    code = f"from checker.overlay import seen; print(seen({str(folder)!r}, {TOY}))"
    assert worker_says(folder, code) == "{'qvtoy': '1.0', 'qvtoy-dep': '2.1'}"


def test_a_worker_that_would_import_others_says_so(index, tmp_path):
    write_wheel(index, "click", "99.0")
    folder = lay_over({"click": "99.0"}, Site())
    with pytest.raises(RuntimeError, match=r"'click': '99.0'.* is laid over, .* is seen"):
        overlay.seen(str(folder), {"click": "99.0"})


def test_a_worker_started_ahead_is_left_to_cells_without_libraries(tmp_path):
    """It has the installed packages on its path."""
    process.start_ahead(preload=False)
    (ahead,) = process._AHEAD
    workers = Workers(())
    try:
        with workers.one(preload=False, overlay=str(tmp_path)) as laid:
            path = psutil.Process(laid.pid).environ()["PYTHONPATH"].split(os.pathsep)
            assert path[0] == str(tmp_path)
        with workers.one(preload=False) as plain:
            assert plain is ahead
            assert str(tmp_path) not in psutil.Process(plain.pid).environ()["PYTHONPATH"]
    finally:
        workers.close()
