"""Noise in a baseline, to learn how sensitive its output is: the noise constant and the floor of rounding noise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from checker.probes.skeleton import is_linear
from checker.reference import NOISE

ROUNDING = 2.0**-9  # half a unit in the last place of bfloat16, relative
ROUTERS = ("router", "gate", "classifier")  # names of linear layers that choose experts, and stay dense
SEED = 20_240_229


def add_weight_noise(model: Any, nrmse: float = NOISE) -> None:
    """Add Gaussian noise of a relative size to every weight that a quantization would touch, in place.

    Linear layers (not the output head, not routers) and fused experts; each weight gets the same relative noise.
    """
    import torch

    weights = list(_weights(model))
    generator = torch.Generator(device=weights[0].device).manual_seed(SEED) if weights else None
    with torch.no_grad():
        for weight in weights:
            if generator is None or generator.device != weight.device:  # spread over several GPUs
                generator = torch.Generator(device=weight.device).manual_seed(SEED)
            for part in weight if weight.dim() > 2 else (weight,):  # noqa: PLR2004 - experts one at a time
                values = part.float()
                scale = nrmse * values.square().mean().sqrt()
                noise = torch.empty_like(values).normal_(generator=generator)
                part.copy_(values.add_(noise.mul_(scale)))


def _weights(model: Any) -> Iterator[Any]:
    head = model.get_output_embeddings()
    tied = None if head is None else head.weight
    for name, module in model.named_modules():
        if is_linear(module) and module.weight is not tied and name.rpartition(".")[2] not in ROUTERS:
            yield module.weight.data
    for name, parameter in model.named_parameters():
        if parameter.dim() > 2 and "experts" in name and parameter.is_floating_point():  # noqa: PLR2004
            yield parameter.data


@contextmanager
def rounding_noise(model: Any) -> Iterator[None]:
    """While this lasts, every linear layer's output is off by a rounding error of bfloat16, whatever its own dtype.

    The floor that two correct implementations of one model differ by (exllamav3 ``eval/qbench.py``).
    """
    import torch

    generators: dict[Any, Any] = {}

    def blur(_module: Any, _args: Any, output: Any) -> Any:
        device = output.device
        if device not in generators:
            generators[device] = torch.Generator(device=device).manual_seed(SEED)
        factor = torch.rand(output.shape, generator=generators[device], device=device, dtype=torch.float32)
        return (output.float() * (1 + (factor * 2 - 1) * (2 * ROUNDING))).to(output.dtype)

    handles = [module.register_forward_hook(blur) for _, module in model.named_modules() if is_linear(module)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
