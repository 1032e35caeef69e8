"""Saving a loaded model and loading it again: what is lost, what is changed.

The save happens before any forward: on CPUs with AVX512-BF16 a forward repacks bitsandbytes' 4-bit weights in place,
and a save after it writes a 16-bit absmax of another shape that loads without a message.
"""

from __future__ import annotations

import hashlib
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from checker.facts import RoundtripFacts
from checker.probes.load import one_line, raise_environment_fault

Digests: TypeAlias = dict[str, str]
CHUNK, WORD = 1 << 27, 8  # bytes digested at a time, and at once
SMALLEST_SHARD = 16_000_000  # bytes
NO_WAY_BACK = "Undefined Operation encountered"  # of converters in transformers/core_model_loading.py
NOTE = (
    "saved again with save_original_format=False: transformers has no way back to the original form of this method's "
    "weights ({})"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Saved:
    """Where a model was saved, or why it was not."""

    folder: Path
    note: str = ""
    flaw: str = ""
    detail: str = ""


def try_save(model: Any, folder: Path, *, shards: int = 1) -> Saved:
    """Save a loaded quantized model; in another form, with a note, where the original one cannot be kept.

    In several ``shards`` it takes less memory: what is written to one file is held in memory once more.

    ``save_pretrained`` reverts every conversion of loading, and several methods define no way back
    (transformers/core_model_loading.py): NotImplementedError for bitsandbytes, a ValueError for packed experts that
    compressed-tensors has unpacked and transformers joined.

    Raises:
        Unavailable: the disk is full, or memory is short.
    """
    options = {} if shards == 1 else {"max_shard_size": max(SMALLEST_SHARD, model.get_memory_footprint() // shards)}
    try:
        try:
            model.save_pretrained(folder, **options)
        except (NotImplementedError, ValueError) as error:
            if isinstance(error, ValueError) and NO_WAY_BACK not in str(error):
                raise
            model.save_pretrained(folder, save_original_format=False, **options)
            return Saved(folder=folder, note=NOTE.format(type(error).__name__))
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        raise_environment_fault(error)
        return Saved(folder=folder, flaw=f"cannot be saved again: {one_line(error)}", detail=traceback.format_exc())
    return Saved(folder=folder)


def digest_state(model: Any) -> Digests:
    """A digest of dtype, shape and bytes of every entry of ``state_dict()``; two models are never held at once."""
    entries = model.state_dict()
    places = {name: _place(name, value) for name, value in entries.items()}
    once = {place: entries[name] for name, place in places.items()}  # tied weights are hashed once
    with ThreadPoolExecutor(max_workers=4) as pool:  # hashing releases the interpreter
        digests = dict(zip(once, pool.map(_digest, once.values()), strict=True))
    return {name: digests[place] for name, place in places.items()}


def _place(name: str, value: Any) -> Any:
    """What two entries that share their memory have in common; a tensor subclass around others is only itself."""
    import torch

    plain = type(value) in (torch.Tensor, torch.nn.Parameter) and value.numel() > 0 and value.data_ptr() != 0
    return (value.device, value.data_ptr(), value.dtype, value.shape) if plain else name


def _digest(value: Any) -> str:
    import torch

    if not isinstance(value, torch.Tensor):
        return repr(value)
    if hasattr(value, "__tensor_flatten__"):  # a subclass (torchao) holds codes and scales in tensors inside
        inside = ", ".join(_digest(getattr(value, name)) for name in value.__tensor_flatten__()[0])
        return f"{type(value).__name__} {list(value.shape)} ({inside})"
    data = value.detach().contiguous()
    raw = data.reshape(-1).view(torch.uint8)
    if raw.is_cuda:  # hashing there takes milliseconds, bringing the bytes here and hashing them seconds
        return f"{data.dtype} {list(data.shape)} {mixed_sum(raw):016x}"
    return f"{data.dtype} {list(data.shape)} {hashlib.sha256(raw.cpu().numpy().data).hexdigest()}"


def mixed_sum(raw: Any) -> int:
    """A 64-bit digest of bytes, computed where they are: Σ mix(word + (place + 1) · step) modulo 2⁶⁴.

    ``mix`` is the finalizer of SplitMix64 (Steele, Lea, Flood 2014). It tells changes by accident; who could want two
    loads of one file to look alike?
    """
    import torch

    total = int(raw.numel())
    for start in range(0, raw.numel(), CHUNK):
        part = raw[start : start + CHUNK]
        if part.numel() % WORD:
            part = torch.nn.functional.pad(part, (0, WORD - part.numel() % WORD))
        if part.storage_offset() % WORD:
            part = part.clone()
        words = part.view(torch.int64)
        place = torch.arange(start // WORD + 1, start // WORD + 1 + words.numel(), device=raw.device)
        words = words + place * _signed(0x9E3779B97F4A7C15)
        words = (words ^ _shifted(words, 30)) * _signed(0xBF58476D1CE4E5B9)
        words = (words ^ _shifted(words, 27)) * _signed(0x94D049BB133111EB)
        total += int((words ^ _shifted(words, 31)).sum())
    return total % (1 << 64)


def _signed(value: int) -> int:
    """The same 64 bits as a signed number, which is what torch multiplies."""
    return value - (1 << 64) if value >> 63 else value


def _shifted(words: Any, bits: int) -> Any:
    """Logical shift to the right of signed words."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def compare(before: Digests, after: Digests, logits: tuple[Any, Any], note: str) -> RoundtripFacts:
    """The differences between two loads, by digests of their state and by their logits, [positions, vocabulary]."""
    import torch

    first, second = logits
    if first is None or second is None:  # the model does not run, which outputs.finite says
        first = second = torch.zeros(0, 1)
    equal = bool(torch.equal(first, second)) or bool(
        torch.equal(first.isnan(), second.isnan()) and _same(first, second)
    )
    return RoundtripFacts(
        missing=tuple(sorted(before.keys() - after.keys())),
        added=tuple(sorted(after.keys() - before.keys())),
        changed=tuple(sorted(name for name in before.keys() & after.keys() if before[name] != after[name])),
        logit_difference=0.0 if equal else float((first - second).abs().nan_to_num(nan=float("inf")).max()),
        logits_equal=equal,
        note=note,
    )


def _same(first: Any, second: Any) -> bool:
    """Equal where neither is NaN; that a model gives NaN is for outputs.finite to say."""
    known = ~first.isnan()
    return bool((first[known] == second[known]).all())
