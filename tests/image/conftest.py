"""The images, built once for all tests that need them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from building import Image, Store, missing, pip_volumes


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    """A store with the stand-in base. QUANT_VERIFY_TEST_STORE names a folder to keep, while one works on the image."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    kept = os.environ.get("QUANT_VERIFY_TEST_STORE")
    folder = Path(kept or tempfile.mkdtemp(prefix="quant-verify-images-"))
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(folder, pip_volumes(folder))
    try:
        store.make_base()
        yield store
    finally:
        if not kept:
            store.remove()


@pytest.fixture(scope="session")
def static(store: Store) -> Image:
    """The small image."""
    return store.build("static")


@pytest.fixture(scope="session")
def cuda(store: Store) -> Image:
    """The image for every depth; torch is the one that make installs, here most likely one for CPUs."""
    return store.build("cuda")


@pytest.fixture(params=["static", "cuda"])
def image(request: pytest.FixtureRequest) -> Image:
    """Each of them."""
    return request.getfixturevalue(request.param)
