"""What is in the built images, and what is not. ``make test-image`` runs this."""

from __future__ import annotations

import os
import re
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from building import BASE, LABELS, ROOT, Image, Store
from test_image_dockerfile import canonical

pytestmark = [pytest.mark.image, pytest.mark.timeout(3600)]
HOME = "opt/quant-verify"
OPEN = {"/tmp", "/work", "/var/tmp", "/run/lock"}  # where any uid may write
LARGEST = 250e6  # bytes that the small image may add to its base
UNPINNED = {"pip", "quant-verify"}  # the first comes with Python
BY_TORCH = re.compile(r"nvidia-|cuda-|triton$")  # pinned by torch itself
EARLIER = 0  # no flag in the header of bytecode: valid for one time and size of its source


@pytest.fixture
def files(store: Store, image: Image) -> Iterator[Path]:
    """The root of an image."""
    with store.unpacked(image.name) as root:
        yield root


@pytest.fixture
def packages(files: Path) -> dict[str, str]:
    """Version of each package in an image, by lower-case name."""
    found = metadata.distributions(path=[str(folder) for folder in files.glob(f"{HOME}/lib/python3.*/site-packages")])
    return {canonical(item.metadata["Name"]): item.version for item in found}


def test_the_configuration(image: Image):
    config, environment = image.config, image.environment
    assert config["Entrypoint"] == ["quant-verify"]
    assert config["Cmd"] == ["--help"]
    assert config["WorkingDir"] == "/work"
    assert not config.get("User")
    assert environment["QUANT_VERIFY_IN_IMAGE"] == "1"
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert environment["HOME"] == "/tmp"
    assert environment["PATH"].startswith(f"/{HOME}/bin:")
    assert "NVIDIA_VISIBLE_DEVICES" not in environment
    assert environment.get("NVIDIA_DRIVER_CAPABILITIES") == ("compute,utility" if "cuda" in image.name else None)


def test_the_labels(image: Image):
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in image.config["Labels"].items()}
    assert labels["version"] == LABELS["VERSION"]
    assert labels["revision"] == LABELS["REVISION"]
    assert labels["created"] == LABELS["CREATED"]
    assert labels["base.name"] == BASE
    assert labels["licenses"] == "Apache-2.0"
    assert labels["source"].startswith("https://")
    assert "quant-verify" in labels["title"]


def test_programs_that_runners_of_jobs_call(files: Path):
    for name in ("sh", "env", "tail", "bash"):
        assert os.access(files / "usr/bin" / name, os.X_OK), name


def test_no_package_that_fetches_code(packages: dict[str, str]):
    assert "kernels" not in packages
    assert "safetensors" in packages, "packages are looked for in the right folder"


def test_every_package_is_pinned(packages: dict[str, str]):
    lines = [
        line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split("\n") if "==" in line
    ]
    pins = {canonical(name): version for name, version in lines}
    free = {name: version for name, version in packages.items() if not BY_TORCH.match(name) and name not in UNPINNED}
    if "torch" not in packages:
        free.pop("setuptools", None)  # with Python 3.11 it comes with a new environment, and nothing uses it
    else:
        free["torch"] = free["torch"].partition("+")[0]
    assert {name: version for name, version in free.items() if pins.get(name) != version} == {}


def test_what_each_holds(image: Image, packages: dict[str, str]):
    heavy = {"torch", "transformers", "accelerate", "bitsandbytes", "compressed-tensors", "gguf"}
    assert heavy & packages.keys() == (heavy if "cuda" in image.name else set())
    assert packages["quant-verify"] == LABELS["VERSION"]


def test_everything_is_compiled_and_up_to_date(files: Path):
    """Where nothing can be written, a module without bytecode is compiled at every start of every process."""
    python = next(files.glob(f"{HOME}/lib/python3.*")).name
    standard = [files / place / python for place in ("usr/local/lib", "usr/lib") if (files / place / python).is_dir()]
    folders = [files / HOME / "lib", standard[0]]
    tag = f"cpython-{python.removeprefix('python').replace('.', '')}"
    sources = [path for folder in folders for path in folder.rglob("*.py") if "torch/testing" not in str(path)]
    assert len(sources) > 1000
    assert [str(path) for path in sources if not is_compiled(path, tag)] == []


def is_compiled(source: Path, tag: str) -> bool:
    """Whether an interpreter would take the bytecode beside a module."""
    compiled = source.parent / "__pycache__" / f"{source.stem}.{tag}.pyc"
    if not compiled.is_file():
        return False
    with compiled.open("rb") as file:
        flags, time, size = struct.unpack("<4xIII", file.read(16))
    about = source.stat()
    return flags != EARLIER or (time, size) == (int(about.st_mtime) & 0xFFFFFFFF, about.st_size & 0xFFFFFFFF)


def test_nobody_but_root_can_change_it(files: Path):
    writable = set()
    for folder, names, found in os.walk(files):
        for path in (Path(folder) / name for name in [*names, *found]):
            mode = path.lstat().st_mode
            if mode & stat.S_IWOTH and (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                writable.add("/" + str(path.relative_to(files)))
    assert writable == {path for path in OPEN if (files / path[1:]).is_dir()}
    assert not list((files / "tmp").iterdir()), "the build left something behind"
    assert not (files / "root/.cache").exists()


def test_no_source_of_the_build_is_left(files: Path):
    for name in ("build", "product", "requirements"):
        assert not (files / name).exists()
    assert not list(files.glob(f"{HOME}/lib/python3.*/site-packages/tests"))


def test_the_structure(store: Store, static: Image, tmp_path: Path):
    """The same, and more, as another tool reads it from an archive, which is what a registry would get."""
    tool = shutil.which("container-structure-test") or shutil.which(
        "container-structure-test", path=Path(sys.executable).parent
    )
    if tool is None:
        pytest.skip("container-structure-test is not installed")
    with store.unpacked(static.name) as root:
        python = next(root.glob(f"{HOME}/lib/python3.*")).name
    archive, report = tmp_path / "static.tar", tmp_path / "report.xml"
    store.buildah("push", static.name, f"docker-archive:{archive}:qv:static")
    command = [tool, "test", "--driver", "tar", "--image", archive, "--config", write_structure(tmp_path, python)]
    done = subprocess.run(
        [*command, "--output", "junit", "--test-report", report], capture_output=True, text=True, check=False
    )
    archive.unlink()
    assert done.returncode == 0, report.read_text() if report.exists() else done.stderr
    assert len(re.findall("<testcase", report.read_text())) == 6, "each of them ran"


def write_structure(folder: Path, python: str) -> Path:
    """The structure that is expected, with this version of Python and these labels."""
    text = (Path(__file__).parent / "structure.yml").read_text(encoding="utf-8")
    parts = {"@VERSION@": LABELS["VERSION"], "@REVISION@": LABELS["REVISION"], "@PYTHON@": python}
    for name, value in parts.items():
        text = text.replace(name, value)
    assert yaml.safe_load(text)
    path = folder / "structure.yml"
    path.write_text(text, encoding="utf-8")
    return path


def test_sizes(store: Store, static: Image, cuda: Image, record_property, capsys):
    base, small, large = (store.size(name) for name in (BASE, static.name, cuda.name))
    with capsys.disabled():
        added = f"static + {(small - base) / 1e6:.0f} MB, cuda + {(large - base) / 1e6:.0f} MB"
        sys.stdout.write(f"\nbase {base / 1e6:.0f} MB, {added}\n")
    record_property("static_bytes", small - base)
    record_property("cuda_bytes", large - base)
    assert 50e6 < small - base <= LARGEST
    assert large > small
