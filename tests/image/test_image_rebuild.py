"""A change of the source rebuilds the product and no dependency. ``make test-image`` runs this."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from building import ROOT, Image, Store
from running import Container
from test_image_dockerfile import copied

pytestmark = [pytest.mark.image, pytest.mark.timeout(3600)]
SECONDS = 60  # for a rebuild, where two take a minute or more from nothing


def changed_source(folder: Path) -> Path:
    """A copy of what the build sees, in which the version is another and a requirement of development is new."""
    for name in [*copied(), "Dockerfile", ".dockerignore"]:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / name)
    (folder / "checker/__init__.py").write_text('"""Changed."""\n\n__version__ = "99.1"\n', encoding="utf-8")
    project = folder / "pyproject.toml"
    before = project.read_text(encoding="utf-8")
    assert before.count("\ndev = [\n") == 1
    project.write_text(before.replace("\ndev = [\n", '\ndev = [\n    "nothing",\n'), encoding="utf-8")
    return folder


def test_a_change_of_the_source_takes_seconds(store: Store, static: Image, cuda: Image, tmp_path: Path, capsys):
    context = changed_source(tmp_path)
    for target, first in (("static", static), ("cuda", cuda)):
        second = store.build(target, context, "-changed")
        with capsys.disabled():
            both = f"{first.seconds:.1f} s at first, {second.seconds:.1f} s after a change of the source"
            sys.stdout.write(f"\n{target}: {both}\n")
        assert "Collecting" not in second.log, second.log
        assert "Using cache" in second.log
        assert second.seconds < SECONDS
        assert "99.1" in Container(store, second).run("--version").stdout, "what changed is in the image"
