"""The bytes that every tensor must have: theory, not constants.

From the dense shape of each weight (the baseline's, or what the quantization state says) and the declared method follow
the exact bytes of its packed form and of every companion. Only the quantization-state blob is taken as found, up to the
layout's bound: its JSON varies by a digit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from checker.architecture import architecture_of, counterpart
from checker.checkpoint import Checkpoint, TensorHeader
from checker.domain import Json
from checker.facts import ByteRow, ExpectedTensor, MemoryFact, ModuleFact, StoredWeight
from checker.probes.modules import FLOATS
from checker.probes.names import REMADE, dense_names, fused_name
from checker.registry import Method

ITEM_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
CODES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}


def predict_memory(
    checkpoint: Checkpoint,
    baseline: Checkpoint | None,
    weights: tuple[StoredWeight, ...],
    modules: tuple[ModuleFact, ...],
    method: Method | None,
    declared: Mapping[str, Json],
) -> MemoryFact | None:
    """Predicted against stored bytes, tensor by tensor; None when nothing is packed and there is no baseline."""
    if not checkpoint.tensors or (baseline is None and not weights):
        return None
    own_names = method is not None and method.own_names
    if baseline is not None and baseline.tensors and not own_names:
        predicted = dict(_from_baseline(checkpoint, baseline, weights, modules, method, declared))
    else:
        predicted = dict(_from_checkpoint(checkpoint, weights))
    rows = []
    total = 0
    for name in {**checkpoint.tensors, **predicted}:
        header = checkpoint.tensors.get(name)
        stored = header.nbytes if header else None
        if name.endswith(REMADE):
            continue
        bytes_predicted = _bytes(predicted.get(name), stored)
        total += bytes_predicted or 0
        if bytes_predicted != stored:
            rows.append(ByteRow(name=name, predicted=bytes_predicted, stored=stored))
    return MemoryFact(
        rows=tuple(rows),
        predicted_bytes=total,
        stored_bytes=checkpoint.total_bytes,
        baseline_bytes=_dense_bytes(baseline) if baseline else None,
        source="baseline" if baseline is not None and not own_names else "checkpoint",
    )


def _bytes(expected: ExpectedTensor | int | None, stored: int | None) -> int | None:
    if expected is None or isinstance(expected, int):
        return expected
    if expected.optional and stored is None:
        return None
    if expected.nbytes is None:
        return stored if stored is not None and stored <= expected.max_bytes else expected.max_bytes
    return expected.nbytes


def _from_checkpoint(
    checkpoint: Checkpoint, weights: tuple[StoredWeight, ...]
) -> Iterator[tuple[str, ExpectedTensor | int]]:
    """Packed weights by the layout of their own dense shape; dense tensors as they are."""
    parts = {tensor.name: tensor for weight in weights for tensor in weight.expected}
    yield from parts.items()
    yield from ((name, header.nbytes) for name, header in checkpoint.tensors.items() if name not in parts)


def _from_baseline(
    checkpoint: Checkpoint,
    baseline: Checkpoint,
    weights: tuple[StoredWeight, ...],
    modules: tuple[ModuleFact, ...],
    method: Method | None,
    declared: Mapping[str, Json],
) -> Iterator[tuple[str, ExpectedTensor | int]]:
    """Every tensor of the baseline in the form that the declared method gives it."""
    tied = architecture_of(checkpoint.config or {}).tied
    dense = {weight.weight: weight.dense for weight in weights}
    facts = {dense.get(module.weight, module.weight): module for module in modules}
    attributes = {}
    for weight in weights:  # what is stored in another width was not made by the declared method
        wanted_bits = (facts[weight.dense].declared or declared).get("bits") if weight.dense in facts else None
        if wanted_bits is None or weight.attributes["bits"] == wanted_bits:
            attributes[weight.dense] = weight.attributes
    any_float = method is not None and method.dense_in_any_float
    usual = declared or next(iter(attributes.values()), {})
    names = _names((*checkpoint.tensors, *dense.values()), baseline)
    remade, gone = _remade(weights, baseline)
    packed = [part for weight in remade for part in weight.expected]
    for name, header in baseline.tensors.items():
        if name in gone:
            continue
        here = names.get(name, name)
        fact = facts.get(here)
        if here in tied and here not in checkpoint.tensors:
            continue
        wanted = fact is not None and (fact.wanted if fact.wanted is not None else fact.quantized)
        if wanted and method is not None and len(header.shape) > 1:
            settings = attributes.get(here) or {**usual, **(fact.declared if fact else {})}
            packed += method.layout(here, _as_stored(header, fact), settings)
        else:
            yield (
                here,
                _dense_size(header, checkpoint, baseline, own=checkpoint.tensors.get(here) if any_float else None),
            )
    yield from ((part.name, part) for part in packed)  # last: a layout may say how a bias is stored


def _remade(weights: tuple[StoredWeight, ...], baseline: Checkpoint) -> tuple[list[StoredWeight], set[str]]:
    """Weights made of several tensors of the baseline, of a part or a copy of one; and the tensors gone for it."""
    remade: list[StoredWeight] = []
    gone: set[str] = set()
    for weight in weights:
        if counterpart(weight.dense, baseline.tensors) is None and (names := dense_names(weight, baseline)):
            remade.append(weight)
            gone.update(names if len(names) > 1 else ())
        elif not counterpart(weight.dense, baseline.tensors) and (fused := fused_name(weight, baseline)):
            remade.append(weight)
            gone.update((fused, f"{fused}_bias"))
    return remade, gone


def _names(names: Iterable[str], baseline: Checkpoint) -> Mapping[str, str]:
    """Baseline tensor name -> the checkpoint's name for it, where the two differ by the base model's prefix."""
    pairs = ((name, counterpart(name, baseline.tensors)) for name in names)
    return {there: here for here, there in pairs if there is not None}


def _as_stored(header: TensorHeader, fact: ModuleFact | None) -> tuple[int, ...]:
    """Conv1D weights are stored transposed once quantized; the packed shape tells."""
    flipped = header.shape[::-1]
    return flipped if fact is not None and fact.shape == flipped else header.shape


def _dense_size(header: TensorHeader, checkpoint: Checkpoint, baseline: Checkpoint, *, own: TensorHeader | None) -> int:
    """A dense tensor takes the checkpoint's dtype, unless the baseline already held it in a dtype of its own.

    ``own``: the stored tensor, where it may have any floating-point type.
    """
    if own is not None and own.shape == header.shape and own.dtype in FLOATS:
        return own.nbytes
    there, here = _config_dtype(baseline), _config_dtype(checkpoint)
    special = header.dtype not in FLOATS or there is None or header.dtype != CODES.get(there)
    if special or here is None:
        return header.nbytes
    return math.prod(header.shape) * ITEM_BYTES[here]


def _config_dtype(checkpoint: Checkpoint) -> str | None:
    config = checkpoint.config or {}
    dtype = config.get("dtype", config.get("torch_dtype"))
    return dtype if isinstance(dtype, str) and dtype in ITEM_BYTES else None


def _dense_bytes(baseline: Checkpoint) -> int:
    """Bytes of the baseline with tied weights counted once, as they are in memory."""
    tied = architecture_of(baseline.config or {}).tied
    stored = baseline.tensors
    return sum(
        header.nbytes
        for name, header in stored.items()
        if not (name in tied and counterpart(tied[name], stored) is not None)
    )
