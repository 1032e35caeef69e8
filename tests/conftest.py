"""Fixtures for more than one folder of tests; that this file is here makes ``models`` importable from all of them."""

from __future__ import annotations

import pytest
from models import Zoo


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """Tiny models and their quantizations, made on demand and once."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("bitsandbytes")
    torch.set_num_threads(1)
    return Zoo(tmp_path_factory.mktemp("zoo"))
