"""Images built from the Dockerfile with buildah: no daemon, a store of their own, and a stand-in for the base image.

The stand-in is a plain Debian with its Python, made by mmdebstrap, because this needs no image registry. pip works in
the build as it does here: its settings, the certificates and the folders of wheels that they name are mounted.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from checker import __version__

ROOT = Path(__file__).resolve().parents[2]
BASE = "docker.io/library/python:stand-in"
TOOLS = ("buildah", "chroot", "mmdebstrap", "mount", "setpriv", "unshare")
GIGABYTES = {"static": 2, "cuda": 14}  # free disk that a build may take; a third of it where torch is one for CPUs
LABELS = {"VERSION": __version__, "REVISION": "0123456789abcdef", "CREATED": "2026-01-02T03:04:05Z"}
PIP = ("index-url", "extra-index-url", "find-links", "trusted-host", "proxy", "timeout", "cert")  # what a build needs


def missing() -> str | None:
    """Why no image can be built here, if so."""
    if os.geteuid() != 0:
        return "images are built as root here; this is another user"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"not installed: {', '.join(absent)}; apt-get install buildah mmdebstrap" if absent else None


@dataclass(frozen=True)
class Image:
    """A built image: its name, what building took and said, and its configuration."""

    name: str
    seconds: float
    log: str
    config: Mapping[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        """The variables that it sets."""
        return dict(line.split("=", 1) for line in self.config["Env"])


@dataclass(frozen=True)
class Store:
    """Where buildah keeps images and containers: all below one folder."""

    folder: Path
    volumes: list[str] = field(default_factory=list)  # during each RUN, in no image

    def buildah(self, *arguments: str, timeout: float = 600) -> str:
        """What buildah prints; an error is shown whole."""
        where = ["--root", f"{self.folder}/store", "--runroot", f"{self.folder}/run", "--storage-driver", "overlay"]
        command = ["buildah", *where, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        assert done.returncode == 0, f"buildah {arguments}\n{done.stdout[-8000:]}\n{done.stderr[-8000:]}"
        return done.stdout

    def make_base(self) -> None:
        """The stand-in for the base image, unless it is there."""
        if BASE in self.buildah("images", "--format", "{{.Name}}:{{.Tag}}").split():
            return
        tar = self.folder / "base.tar"
        options = ["--include=ca-certificates,python3-minimal,python3-venv", "--dpkgopt=path-exclude=/usr/share/doc/*"]
        command = ["mmdebstrap", "--quiet", "--variant=apt", *options, "bookworm", str(tar)]
        subprocess.run(command, check=True, timeout=900)
        container = self.buildah("from", "scratch").strip()
        self.buildah("add", "--quiet", container, str(tar), "/")
        self.buildah("commit", "--quiet", "--format", "docker", container, BASE)
        self.buildah("rm", container)
        tar.unlink()

    def build(self, target: str, context: Path = ROOT, suffix: str = "") -> Image:
        """One target of the Dockerfile; torch is what TORCH in the environment says, like that of make."""
        name = f"localhost/qv:{target}{suffix}"
        free = shutil.disk_usage(self.folder).free / 1e9
        assert free > GIGABYTES[target], f"{free:.1f} GB are free in {self.folder}, {GIGABYTES[target]} are needed"
        values = {"BASE": BASE, "TORCH": os.environ.get("TORCH") or "torch==2.13.0", **LABELS}
        options = [word for name, value in values.items() for word in ("--build-arg", f"{name}={value}")]
        options += [word for volume in self.volumes for word in ("--volume", volume)]
        form = ["--isolation", "chroot", "--layers", "--pull-never", "--format", "docker"]
        begin = time.monotonic()
        log = self.buildah("bud", *form, *options, "--target", target, "--tag", name, str(context), timeout=3000)
        return Image(name, time.monotonic() - begin, log, self.inspect(name)["OCIv1"]["config"])

    def inspect(self, name: str) -> Any:
        """All that buildah knows of an image."""
        return json.loads(self.buildah("inspect", "--type", "image", name))

    def size(self, name: str) -> int:
        """Bytes of all layers, unpacked."""
        archive = json.loads(self.buildah("images", "--json", name))
        return int(parse_size(archive[0]["size"]))

    @contextmanager
    def unpacked(self, name: str) -> Iterator[Path]:
        """The files of a fresh container; what is written there goes with it."""
        container = self.buildah("from", "--pull-never", name).strip()
        try:
            yield Path(self.buildah("mount", container).strip())
        finally:
            self.buildah("rm", container)

    def remove(self) -> None:
        """All containers, images and files."""
        self.buildah("rm", "--all")
        self.buildah("rmi", "--all", "--force")
        shutil.rmtree(self.folder)


def parse_size(text: str) -> float:
    """Bytes of a size as buildah prints it, such as 370 MB."""
    number, unit = text.split()
    return float(number) * {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9}[unit.upper()]


def pip_volumes(folder: Path) -> list[str]:
    """Mounts that let pip work in a build as it does here."""
    settings = pip_settings()
    (folder / "pip.conf").write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
    mounted = {folder / "pip.conf": "/etc/pip.conf", Path("/etc/ssl/certs"): "/etc/ssl/certs"}
    for word in " ".join(settings.values()).split():
        path = Path(word.removeprefix("file://"))
        if path.is_absolute() and path.is_dir():
            whole = path.parent if word.startswith("file://") else path  # an index lies beside its files
            mounted[whole] = str(whole)
    return [f"{path}:{inside}:ro" for path, inside in mounted.items()]


def pip_settings() -> dict[str, str]:
    """pip's own settings, those of the environment before those of files."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    ordered = sorted(found.items(), key=lambda item: item[0].startswith(":env:"))
    named = {key.rpartition(".")[2]: " ".join(str(ast.literal_eval(value)).split()) for key, value in ordered}
    return {key: value for key, value in named.items() if key in PIP}
