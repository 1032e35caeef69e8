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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``gpu`` skip, with the reason, where there is no CUDA device."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not _has_cuda():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _has_cuda() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())
