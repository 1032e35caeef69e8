"""A checkpoint's tensors by their last name: what every method looks through to find its own.

Two dozen methods look at every checkpoint; with the tensors sorted once by suffix, those whose tensors are absent cost
nothing, also among ninety thousand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property

from checker.checkpoint import Checkpoint, TensorHeader
from checker.domain import Json


class Inventory:
    """The tensors of one checkpoint, and the ``quantization_config`` of the method that looks at them.

    ``config`` is None for a method that the checkpoint does not declare: it must then go by headers alone, and claim
    nothing that another method's layout could be as well.
    """

    def __init__(self, checkpoint: Checkpoint, config: Mapping[str, Json] | None = None) -> None:
        self.checkpoint = checkpoint
        self.config = config

    @property
    def tensors(self) -> Mapping[str, TensorHeader]:
        """Every tensor by name."""
        return self.checkpoint.tensors

    @cached_property
    def _by_suffix(self) -> Mapping[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for name in self.checkpoint.tensors:
            module, dot, suffix = name.rpartition(".")
            if dot:  # else it belongs to no module
                found[suffix].append(module)
        return found

    def modules(self, *suffixes: str) -> tuple[str, ...]:
        """Modules that hold a tensor of any of the suffixes (``qweight`` for ``x.y.qweight``), each once."""
        if len(suffixes) == 1:
            return tuple(self._by_suffix.get(suffixes[0], ()))
        return tuple(dict.fromkeys(self._in_turn(suffixes)))

    def _in_turn(self, suffixes: tuple[str, ...]) -> Iterator[str]:
        for suffix in suffixes:
            yield from self._by_suffix.get(suffix, ())

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Every last name that occurs."""
        return tuple(self._by_suffix)

    def header(self, module: str, suffix: str) -> TensorHeader | None:
        """The header of ``module.suffix``."""
        return self.checkpoint.tensors.get(f"{module}.{suffix}")

    def declared_by(self, config: Mapping[str, Json] | None) -> Inventory:
        """The same tensors for a method with this config; the sorting is shared."""
        other = Inventory(self.checkpoint, config)
        other.__dict__["_by_suffix"] = self._by_suffix
        return other
