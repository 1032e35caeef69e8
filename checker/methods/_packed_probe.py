"""What the small tensors of packed integers tell before anything is decoded: the order of inputs, and zero points.

``g_idx`` [in] names the group of each input: rising in steps, or permuted (activation order, GPTQ's ``desc_act``). Its
numbers are indices that kernels take unchecked. The first row of ``qzeros`` tells symmetric from asymmetric weights,
and whether zero points were stored less one: a symmetric grid has its zero in the middle, at 2^(bits − 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from checker.checkpoint import Checkpoint, TensorHeader

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MOST_BYTES = 1 << 27  # read from one checkpoint; beyond it the decoder, which reads them anyway, has the last word


@dataclass(slots=True)
class Reader:
    """Reads small tensors of a local checkpoint up to a bound; over the network every one would cost a request."""

    checkpoint: Checkpoint
    left: int = MOST_BYTES

    def allows(self, header: TensorHeader, nbytes: int) -> bool:
        """Whether so many bytes of a 32-bit integer tensor may be read; they then count."""
        if self.checkpoint.remote or self.checkpoint.source is None or header.dtype != "I32" or nbytes > self.left:
            return False
        self.left -= nbytes
        return True


@dataclass(frozen=True, slots=True)
class Order:
    """What ``g_idx`` says. ``group_size`` 0: it does not tell."""

    permuted: bool = False
    group_size: int = 0
    flaw: str = ""


def read_order(reader: Reader, name: str, groups: int) -> Order | None:
    """The order of inputs, or None where it is not read."""
    header = reader.checkpoint.tensors[name]
    if len(header.shape) != 1 or not header.shape[0] or not reader.allows(header, header.nbytes):
        return None
    import numpy as np

    index = reader.checkpoint.array(name)
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= groups:
        worst = low if low < 0 else high
        return Order(flaw=f"{name} points to group {worst}, but there are groups 0 to {groups - 1}")
    rising = bool((np.diff(index) >= 0).all())
    size = int(np.searchsorted(index, 1)) if rising and high > 0 else 0
    if size and not np.array_equal(index, np.arange(index.size, dtype=np.int64) // size):
        return Order(permuted=True)
    return Order(permuted=not rising, group_size=size)


def common_zero(reader: Reader, name: str, bits: int, count: int) -> int | None:
    """The stored zero point that all ``count`` outputs of the first group share; -1 where they differ, None unread."""
    header = reader.checkpoint.tensors[name]
    if not header.shape or not header.shape[0] or not reader.allows(header, header.nbytes // header.shape[0]):
        return None
    import numpy as np

    from checker.code_books import unpack_words

    row: npt.NDArray[np.uint32] = np.ascontiguousarray(reader.checkpoint.part(name, 0, 1)).reshape(-1).view(np.uint32)
    if row.size * 32 < count * bits:
        return None
    codes = unpack_words(row[:, None], bits, count)
    first = int(codes[0, 0])
    return first if bool((codes == first).all()) else -1
