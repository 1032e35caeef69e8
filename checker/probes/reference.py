"""Making a reference: the baseline is loaded, run over the probe text, continued, disturbed, and forgotten."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from checker.checkpoint import Checkpoint, open_checkpoint
from checker.domain import ErrorKind
from checker.environment import package_versions
from checker.errors import Unavailable
from checker.probes.block_errors import hidden_states
from checker.probes.divergence import distance_of, log_softmax
from checker.probes.forward import ForwardFailed, run_row
from checker.probes.generation import continuations
from checker.probes.load import load_model, resolve_device
from checker.probes.noise import add_weight_noise, rounding_noise
from checker.probes.original import FLOATS
from checker.probes.probe_tokens import probe_rows
from checker.probes.tokenizer import load_tokenizer
from checker.protocol import ReferenceJob
from checker.reference import NOISE, TOP, Row, Sample, Summary
from checker.reference.write import write_reference

SAMPLE_VALUES = 1 << 14  # of one tensor, in whole rows
LEAST_ROWS, MOST_ROWS = 2, 16
ALIGNED = 128  # rows; every layout's blocks begin at a multiple of it
SAMPLED_TENSORS = 2048
LARGEST_VECTOR = 1 << 16  # values; norms and biases are kept whole
BLOCK_POSITIONS = 8  # of the first row, at which the residual stream is kept

Say = Callable[[str], None]
Figures = npt.NDArray[np.float32]


def make_reference(job: ReferenceJob, say: Say) -> None:
    """Write the reference of a baseline.

    Raises:
        Unavailable: the baseline does not load or run, or the file cannot be written.
    """
    folder = Path(job.baseline)
    say("loading the baseline")
    device = resolve_device(job.device)
    loaded = load_model(folder, device, gpus=job.gpus, trust_remote_code=job.trust_remote_code)
    if loaded.model is None:
        raise Unavailable(f"the baseline does not load: {loaded.flaw}", ErrorKind.INTERNAL)
    try:
        made = _observe(loaded.model, folder, job, say)
    except ForwardFailed as failure:
        raise Unavailable(f"the baseline does not run: {failure}", ErrorKind.INTERNAL) from None
    say("sampling the baseline's weights")
    with open_checkpoint(folder) as checkpoint:
        chosen = list(_samples(checkpoint))
        data = {sample.name: _rows_of(checkpoint, sample) for sample in chosen}
        summary = Summary(
            identity=job.identity,
            dtype=str(loaded.model.dtype).removeprefix("torch."),
            device=device,
            versions=package_versions(),
            full=job.full,
            vocabulary=made.vocabulary,
            rows=len(made.rows),
            noise_nrmse=NOISE,
            parameters=sum(parameter.numel() for parameter in loaded.model.parameters()),
            config=checkpoint.config or {},
            tensors={name: (header.dtype, header.shape) for name, header in checkpoint.tensors.items()},
            norms={sample.name: _norm(checkpoint, sample.name) for sample in chosen},
            samples=tuple(chosen),
            blocks=tuple(made.hidden),
            block_positions=made.positions,
            continuations=made.continuations,
        )
        try:
            write_reference(Path(job.target), summary, made.rows, made.hidden, data)
        except OSError as error:
            message = f"the reference cannot be written to {job.target}: {error.strerror or error}; free some space"
            raise Unavailable(message) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class _Observed:
    """What a baseline does."""

    vocabulary: int
    rows: tuple[Row, ...]
    hidden: dict[str, Figures]
    positions: tuple[int, ...]
    continuations: tuple[Any, ...]


def _observe(model: Any, folder: Path, job: ReferenceJob, say: Say) -> _Observed:
    """Run the baseline as it is, then with rounding noise, then with noise in its weights, which are lost by that."""
    say("running the baseline")
    tokens = probe_rows(model, load_tokenizer(folder))
    count = len(tokens[0]) - 1
    positions = tuple(sorted({(count - 1) * number // (BLOCK_POSITIONS - 1) for number in range(BLOCK_POSITIONS)}))
    kept: list[Any] = []
    hidden = hidden_states(model, lambda: kept.append(_clean(model, tokens[0])), positions)
    vocabulary = int(kept[0].shape[1])
    rows = [_row(tokens[0], kept.pop(), full=job.full)]  # one row's distributions at a time
    rows += [_row(row, _clean(model, row), full=job.full) for row in tokens[1:]]
    say("continuing the prompts with the baseline")
    texts = continuations(model, folder, job.prompts)
    say("measuring how sensitive the baseline is")
    with rounding_noise(model):
        floor = [_divergence(model, row) for row in rows]
    add_weight_noise(model)
    noise = [_divergence(model, row) for row in rows]
    return _Observed(
        vocabulary=vocabulary,
        rows=tuple(_with(row, *pair) for row, pair in zip(rows, zip(noise, floor, strict=True), strict=True)),
        hidden=hidden,
        positions=positions,
        continuations=texts,
    )


def _clean(model: Any, tokens: tuple[int, ...]) -> Any:
    logits, finite = run_row(model, tokens[:-1])
    logs = log_softmax(logits)
    if not finite or not bool(logs.isfinite().all()):
        raise ForwardFailed("its logits are not finite")
    return logs


def _row(tokens: tuple[int, ...], logs: Any, *, full: bool) -> Row:
    import torch

    true = torch.tensor(tokens[1:], device=logs.device)
    top = None if full else logs.topk(min(TOP, logs.shape[1]), dim=1)
    zero = np.zeros(len(tokens) - 1, np.float32)
    return Row(
        tokens=tokens,
        true_log_probabilities=logs.gather(1, true[:, None])[:, 0].cpu().numpy(),
        entropies=(-(logs.exp() * logs).nan_to_num(nan=0.0).sum(dim=1)).cpu().numpy(),
        most_likely=logs.argmax(dim=1).int().cpu().numpy(),
        noise=zero,
        self_noise=zero,
        log_probabilities=(logs if top is None else top.values).cpu().numpy(),
        likely=None if top is None else top.indices.int().cpu().numpy(),
    )


def _divergence(model: Any, row: Row) -> Figures:
    logits, _ = run_row(model, row.tokens[:-1])
    return distance_of(logits, row).kl.astype(np.float32)


def _with(row: Row, noise: Figures, floor: Figures) -> Row:
    return replace(row, noise=noise, self_noise=floor)


def _samples(checkpoint: Checkpoint) -> Iterator[Sample]:
    """Norms and biases, and some rows of every matrix, or of a fixed choice of very many.

    They begin where every layout begins a block.
    """
    dense = [(name, header) for name, header in sorted(checkpoint.tensors.items()) if header.dtype in FLOATS]
    for name, header in dense:
        if len(header.shape) == 1 and 0 < header.numel <= LARGEST_VECTOR:
            yield Sample(name=name, first=0, rows=header.numel)
    matrices = [pair for pair in dense if len(pair[1].shape) == 2 and pair[1].numel]  # noqa: PLR2004
    step = math.ceil(len(matrices) / SAMPLED_TENSORS) or 1
    for number, (name, header) in enumerate(matrices[::step]):
        height, width = header.shape
        rows = min(height, max(LEAST_ROWS, min(MOST_ROWS, SAMPLE_VALUES // width)))
        places = max(1, (height - rows) // ALIGNED + 1)
        yield Sample(name=name, first=(number * 7 % places) * ALIGNED, rows=rows)


def _rows_of(checkpoint: Checkpoint, sample: Sample) -> npt.NDArray[np.uint8]:
    return (
        np.ascontiguousarray(checkpoint.part(sample.name, sample.first, sample.first + sample.rows))
        .view(np.uint8)
        .reshape(-1)
    )


def _norm(checkpoint: Checkpoint, name: str) -> float:
    """‖W‖ in float64, by strips."""
    total, size, step = 0.0, checkpoint.tensors[name].numel, 1 << 22
    for start in range(0, size, step):
        values = checkpoint.float32(name, start, min(start + step, size))
        total += float(np.dot(values, values))
    return math.sqrt(total)
