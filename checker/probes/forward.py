"""Running a loaded model over tokens: one row at a time, its output head in float32.

A 16-bit output head makes ties between likely tokens: the most likely one of a healthy model then differs at 6 % of
positions, against 1.8 % with the same weights multiplied in float32.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from checker.errors import Unavailable
from checker.probes.block_errors import find_blocks
from checker.probes.load import one_line, raise_environment_fault
from checker.probes.thrift import at_once, giving_back, room

EVERY = 2  # blocks; to fill holes with memory again takes time
# _convert_weight_packed_for_cpu in bitsandbytes/functional.py: out divisible by 32, in even
KERNEL_LIMITS = ("must be divisible by block_n", "K must be even")


class ForwardFailed(RuntimeError):
    """The model loads but does not run; the message says how it failed."""


@contextmanager
def float32_head(model: Any, scratch: Path | None = None) -> Iterator[list[Any]]:
    """Let the model's logits come from a float32 product of the head's input and weight.

    The model's own head runs on the last position only; what it gives is in the yielded list, one item a forward. What
    the model does to logits afterwards (a soft cap, a scale) it does to ours. A head that is quantized itself, or that
    is no matrix, stays as it is. ``scratch``: a folder for the logits, see ``thrift.room``.
    """
    head = model.get_output_embeddings()
    native: list[Any] = []
    if not _is_plain(head):
        yield native
        return
    inputs: list[Any] = []

    def shorten(_module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        inputs.append(args[0])
        return (args[0][..., -1:, :], *args[1:])

    def replace(module: Any, _args: Any, output: Any) -> Any:
        native.append(output)
        return product(inputs.pop(), module, scratch)

    handles = [head.register_forward_pre_hook(shorten), head.register_forward_hook(replace)]
    try:
        yield native
    finally:
        for handle in handles:
            handle.remove()


def _is_plain(head: Any) -> bool:
    """Whether the head is a matrix of 16 or 32 bits and nothing else: compressed-tensors, for one, takes a module over.

    It gives the instance a ``forward`` of its own that rounds the input, and packs ``weight`` away until it has run.
    """
    import torch

    weight = getattr(head, "weight", None)
    if type(head) is not torch.nn.Linear or weight is None or "forward" in vars(head):
        return False
    return weight.dtype in (torch.float16, torch.bfloat16, torch.float32)


def product(hidden: Any, head: Any, scratch: Path | None = None) -> Any:
    """Logits [..., vocabulary] in float32, the head's weight converted a strip at a time."""
    import torch

    weight = head.weight
    logits = room((*hidden.shape[:-1], weight.shape[0]), hidden.device, scratch)
    hidden = hidden.float()
    rows = at_once(weight)
    for start in range(0, weight.shape[0], rows):
        strip = weight[start : start + rows].float()
        bias = None if head.bias is None else head.bias[start : start + rows].float()
        logits[..., start : start + rows] = torch.nn.functional.linear(hidden, strip, bias)
    return logits


def count_not_finite(logits: Any) -> int:
    """NaN and infinities among logits [positions, vocabulary], one position at a time for the sake of memory."""
    import torch

    return int(torch.stack([(~position.isfinite()).sum() for position in logits]).sum()) if len(logits) else 0


def inputs_of(model: Any, tokens: Sequence[int]) -> dict[str, Any]:
    """One row of tokens as the model takes it; an encoder-decoder reads and writes the same row."""
    import torch

    ids = torch.tensor([list(tokens)], device=next(model.parameters()).device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    return inputs


@contextmanager
def running() -> Iterator[None]:
    """Sort what a model that runs may raise into the machine's faults and its own. No gradients are kept.

    Raises:
        ForwardFailed: the model's own fault.
        Unavailable: the kernels of this device do not take the model's shapes, or there is not enough memory.
    """
    import torch

    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the libraries, for their own users
            yield
    except (NotImplementedError, torch.AcceleratorError) as error:
        raise Unavailable(f"the model does not run on this device: {one_line(error)}") from error
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise_environment_fault(error)
        if any(words in str(error) for words in KERNEL_LIMITS):
            message = f"this device's 4-bit kernels do not take the shape of some layer ({error}); use another device"
            raise Unavailable(message) from error
        raise ForwardFailed(one_line(error)) from error


def run_row(model: Any, tokens: Sequence[int], scratch: Path | None = None) -> tuple[Any, bool]:
    """Logits of a row, [positions, vocabulary] float32 on the model's device; whether its own head's are finite.

    ``scratch``: a folder for the logits, see ``thrift.room``.

    Raises:
        ForwardFailed, Unavailable: as ``running``.
    """
    import torch

    with running(), float32_head(model, scratch) as native:
        logits = model(**inputs_of(model, tokens), use_cache=False).logits
        finite = all(bool(torch.isfinite(output).all()) for output in native)
    return logits[0].float(), finite


def run_first(model: Any, tokens: Sequence[int], scratch: Path) -> tuple[Any, bool]:
    """The same for a model that has not run yet.

    On CPUs with AVX512-BF16 bitsandbytes repacks each 4-bit weight then; what it takes on the way leaves holes of
    several times a weight's size, which go back to the system every few blocks.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"
    blocks = [block for _, block in find_blocks(model)] if on_cpu else []
    with giving_back(blocks[EVERY - 1 :: EVERY]):
        return run_row(model, tokens, scratch)
