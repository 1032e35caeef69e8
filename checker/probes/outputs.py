"""Where a model's numbers stop being finite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from checker.probes.forward import run_row


def first_not_finite(model: Any, tokens: Sequence[int]) -> str:
    """The first leaf module, in running order, whose output holds a NaN or an infinity."""
    import torch

    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(_module: Any, _args: Any, output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            if not found and isinstance(tensor, torch.Tensor) and not torch.isfinite(tensor).all():
                found.append(name)

        return hook

    with _hooks((module, watch(name)) for name, module in model.named_modules() if not list(module.children())):
        run_row(model, tokens)
    return found[0] if found else ""


@contextmanager
def _hooks(pairs: Iterator[tuple[Any, Any]]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module, hook in pairs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
