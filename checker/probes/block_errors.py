"""The repeated blocks of a model, one after the other: where a quantized model leaves its baseline.

The residual stream after each block, at a few positions, is part of a reference; its distance from ours grows with
depth. Which block is to blame tells the second measurement: each block of the baseline, built alone and filled from its
file, runs on the very input that the quantized block gets. One block of each is in memory at a time.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from checker.checkpoint import Checkpoint
from checker.facts import BlockFact
from checker.probes.dense_blocks import DenseBlocks

OUT_OF_LINE = 2.2  # times the median error of all blocks; healthy ones reach 1.7
LEAST = 0.05  # relative error of a block below which no rounding is told from a fault
REROUTED = 0.1  # of positions: a little rounding sends some to other experts, which is an error of their whole size
NO_LIMIT = 1e12  # stands for an infinite ratio, which JSON cannot hold

Hidden = npt.NDArray[np.float32]


def find_blocks(model: Any) -> list[tuple[str, Any]]:
    """The decoder and encoder blocks with their names, in the order of the model.

    They are the members of the outermost lists of modules that are made of further modules: an encoder-decoder has two
    such lists, and what lies in lists inside a block (experts, sublayers) is a part of it.
    """
    import torch

    found: list[tuple[str, Any]] = []
    inside: list[str] = []
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.ModuleList) or any(name.startswith(outer) for outer in inside):
            continue
        if len(module) and all(next(member.children(), None) is not None for member in module):
            inside.append(f"{name}.")
            found += [(f"{name}.{number}" if name else number, member) for number, member in module.named_children()]
    return found


def hidden_states(model: Any, run: Callable[[], object], positions: Sequence[int]) -> dict[str, Hidden]:
    """Call ``run``, which runs the model forward once, and keep the residual stream after each block.

    Of the first row, at those of ``positions`` that it has; blocks in running order, those that do not run (a vision
    tower without an image) are absent. Shapes: [positions, hidden].
    """
    found: dict[str, Hidden] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(_module: Any, _args: Any, output: Any) -> None:
            stream = _stream(output)
            if name not in found and stream is not None:
                stream = stream.reshape(-1, *stream.shape[-2:])[0]
                chosen = [position for position in positions if position < stream.shape[0]]
                found[name] = stream[chosen].detach().float().cpu().numpy()

        return hook

    with _hooked([module.register_forward_hook(watch(name)) for name, module in find_blocks(model)]):
        run()
    return found


def drift(ours: Mapping[str, Hidden], baseline: Mapping[str, Hidden]) -> tuple[BlockFact, ...]:
    """How far our residual stream is from the baseline's after each block that both have, in our running order.

    The root mean square over positions of ‖ours − theirs‖ / ‖theirs‖: some models carry a first position whose norm
    is a thousand times that of the others.
    """
    rows = []
    for name, stream in ours.items():
        other = baseline.get(name)
        if other is None or other.shape != stream.shape or not stream.size:
            continue
        rows.append(BlockFact(block=name, drift=_relative(stream - other, other)))
    return tuple(rows)


def compare_blocks(model: Any, baseline: Checkpoint, run: Callable[[], object]) -> tuple[tuple[str, float], ...]:
    """Call ``run``, which runs the quantized model forward once without a cache; (block, error) in running order.

    The error is that of what the block adds to the residual stream, against what the baseline's block adds to the same
    input: ‖ours − theirs‖ / ‖theirs − input‖, as root mean square over all positions but the tenth that differs most.
    Whatever ``run`` raises passes.

    Raises:
        NotApplicable: a block of the baseline cannot be built from its files; the message says why.
    """
    dense = DenseBlocks(model, baseline)
    errors: dict[str, float] = {}
    expected: dict[str, tuple[Any, Any]] = {}

    def before(name: str) -> Callable[..., None]:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if name not in errors and name not in expected:
                expected[name] = dense.run(name, module, args, kwargs)

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(_module: Any, _args: Any, output: Any) -> None:
            if name in expected:
                entered, left = expected.pop(name)
                ours, entered, theirs = (_flat(_stream(item)) for item in (output, entered, left))
                errors[name] = _relative(ours - theirs, theirs - entered, without=REROUTED)

        return hook

    blocks = find_blocks(model)
    handles = [module.register_forward_pre_hook(before(name), with_kwargs=True) for name, module in blocks]
    handles += [module.register_forward_hook(after(name)) for name, module in blocks]
    with _hooked(handles):
        run()
    return tuple(errors.items())


def culprit(rows: Sequence[BlockFact]) -> str:
    """The first block whose own error is out of line with that of the others; "" when there is none.

    A fault in one layer spoils one block; one in all of them shows no culprit, and needs none.
    """
    known = [row.error for row in rows if row.error is not None]
    if not known:
        return ""
    bar = max(OUT_OF_LINE * statistics.median_low(known), LEAST)
    return next((row.block for row in rows if row.error is not None and not row.error <= bar), "")


@contextmanager
def _hooked(handles: Sequence[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _stream(output: Any) -> Any:
    """The residual stream among what a block takes or gives: the first floating-point tensor of three dimensions."""
    import torch

    values = output if isinstance(output, tuple | list) else (output,)
    tensors = (item for item in values if isinstance(item, torch.Tensor) and item.is_floating_point())
    return next((item for item in tensors if item.dim() > 1), None)


def _flat(stream: Any) -> Hidden:
    found: Hidden = stream.detach().reshape(-1, stream.shape[-1]).float().cpu().numpy()
    return found


def _relative(difference: Hidden, reference: Hidden, *, without: float = 0.0) -> float:
    """Root mean square over positions of the ratio of norms, ``without`` that share of positions that differ most."""
    with np.errstate(all="ignore"):  # a fault may give NaN or infinity: it is then the result
        above, below = np.linalg.norm(difference, axis=-1), np.linalg.norm(reference, axis=-1)
        ratios = np.sort(np.where(above == 0, 0, above / below).astype(np.float64))  # NaN last
        kept = ratios[: max(1, ratios.size - int(without * ratios.size))]
        return min(float(np.sqrt(np.mean(np.square(np.nan_to_num(kept, nan=NO_LIMIT, posinf=NO_LIMIT))))), NO_LIMIT)
