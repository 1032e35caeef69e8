"""Keeping a worker small: logits lie in a file, and memory that is free goes back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLOAT32 = 4  # bytes
AT_ONCE = {"cpu": 1 << 19}  # numbers that are computed with at a time: two mebibytes, held half a dozen times over
AT_ONCE_ELSEWHERE = 1 << 24  # where a kernel takes as long to start as to compute


def room(shape: Sequence[int], device: Any, folder: Path | None = None) -> Any:
    """An uninitialised float32 tensor; with a ``folder`` and on the CPU in a mapped file there, which has no name.

    The system may drop such memory when it is short of it and read it again. Its size is claimed beforehand, as far as
    the file system can: to find the disk full while writing to the mapping would end the process.
    """
    import numpy as np
    import torch

    size = math.prod(shape) * FLOAT32
    claims = hasattr(os, "posix_fallocate")  # not on macOS
    if folder is not None and claims and torch.device(device).type == "cpu" and size:
        with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)
            return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=tuple(shape)))
    return torch.empty(tuple(shape), dtype=torch.float32, device=device)


def at_once(matrix: Any) -> int:
    """Rows of a matrix to compute with at a time, for on the way each is held several times over."""
    return max(1, AT_ONCE.get(matrix.device.type, AT_ONCE_ELSEWHERE) // int(matrix.shape[-1]))


@contextmanager
def giving_back(modules: Sequence[Any]) -> Iterator[None]:
    """Return freed memory each time one of the modules has run, and at the end."""
    handles = [module.register_forward_hook(lambda *_: give_back()) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        give_back()


def give_back() -> None:
    """Return freed memory to the system: glibc keeps what lies between blocks that are in use until it is told to."""
    with contextlib.suppress(AttributeError):  # no glibc
        _libc().malloc_trim(0)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
