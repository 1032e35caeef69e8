"""Token ids in, token ids out: greedy decoding of several rows at once, and what a model makes of given tokens."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checker.probes.forward import float32_head, running
from checker.probes.thrift import at_once

Tokens = tuple[int, ...]

MOST_ROWS = 8  # of one batch: the caches of more would not fit beside a large model
MOST_LOGITS = 1 << 23  # float32 numbers held at a time, 32 MiB; one row may need more
LARGEST_LOSS = 1000.0  # nats; JSON knows no infinity
# nats between the most likely token and another that counts as the same choice: cached and one-pass decoding, other
# kernels and 16-bit heads move logits by up to this much
TIE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """What a model makes of given tokens after a prompt, in one pass."""

    losses: tuple[float, ...]  # −ln p of each token, nats
    entropy: float  # mean over the tokens, nats
    agreement: float  # share of tokens that are the most likely one, or within ``TIE`` of it


def vocabulary_of(model: Any) -> int:
    """Rows of the input embedding. A token id beyond is an index error, which on a GPU ends the process."""
    rows = getattr(model.get_input_embeddings(), "num_embeddings", None)
    return int(rows) if rows is not None else int(model.config.get_text_config().vocab_size)


def longest_of(model: Any) -> int:
    """Positions that the model has, of prompt and text together."""
    text = model.config.get_text_config()
    lengths = (getattr(text, name, None) for name in ("max_position_embeddings", "n_positions"))
    return min((length for length in lengths if isinstance(length, int) and length > 0), default=1 << 30)


def end_tokens(model: Any) -> frozenset[int]:
    """The tokens that end a text, by config.json and generation_config.json."""
    found: list[Any] = []
    for config in (model.config.get_text_config(), getattr(model, "generation_config", None)):
        value = getattr(config, "eos_token_id", None)
        found += value if isinstance(value, list | tuple) else [value]
    rows = vocabulary_of(model)
    return frozenset(token for token in found if isinstance(token, int) and 0 <= token < rows)


def generate(model: Any, prompts: Sequence[Tokens], most: Sequence[int], ends: frozenset[int]) -> list[Tokens]:
    """The most likely tokens after each prompt, at most ``most`` of them; one of ``ends`` is the last that is kept.

    Rows of a batch are padded at the left (of an encoder: at the right), and give what they give alone, up to rounding.
    The checkpoint's generation_config.json has no say: sampling, penalties and the like would hide what the model is.

    Raises:
        ForwardFailed, Unavailable: as ``running``.
    """
    found: dict[int, Tokens] = {}
    order = sorted(range(len(prompts)), key=lambda index: (most[index], len(prompts[index])))
    # what a recurrent state took in from padding cannot be masked afterwards
    rows = 1 if getattr(model, "_is_stateful", False) else MOST_ROWS
    for start in range(0, len(order), rows):
        batch = order[start : start + rows]
        new = _generate_batch(model, [prompts[index] for index in batch], max(most[index] for index in batch), ends)
        for index, tokens in zip(batch, new, strict=True):
            found[index] = _cut(tokens[: most[index]], ends)
    return [found[index] for index in range(len(prompts))]


def _generate_batch(model: Any, prompts: list[Tokens], most: int, ends: frozenset[int]) -> list[Tokens]:
    import transformers

    pad = min(ends, default=0)
    encoder = bool(model.config.is_encoder_decoder)
    inputs = _padded(model, prompts, pad, left=not encoder)
    own = model.generation_config
    settings = transformers.GenerationConfig(
        max_new_tokens=most,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        pad_token_id=pad,
        eos_token_id=sorted(ends) or None,
        bos_token_id=own.bos_token_id,
        decoder_start_token_id=_decoder_start(model) if encoder else None,
    )
    try:
        model.generation_config = transformers.GenerationConfig()  # generate() fills in from the model's own
        with running():
            rows = model.generate(**inputs, generation_config=settings).tolist()
    finally:
        model.generation_config = own
    begin = 1 if encoder else inputs["input_ids"].shape[1]
    return [tuple(row[begin:]) for row in rows]


def _padded(model: Any, rows: Sequence[Tokens], pad: int, *, left: bool) -> dict[str, Any]:
    """Rows of one length, [rows, longest], and the mask of what is not padding."""
    import torch

    width = max(map(len, rows))
    ids = [[pad] * (width - len(row)) + list(row) if left else list(row) + [pad] * (width - len(row)) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    device = next(model.parameters()).device
    return {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": torch.tensor(mask if left else [row[::-1] for row in mask], device=device),
    }


def _decoder_start(model: Any) -> int:
    """The token that a decoder beside an encoder begins with."""
    configs = (model.generation_config, model.config)
    for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
        for config in configs:
            token = getattr(config, name, None)
            if isinstance(token, int):
                return token
    return 0


def _cut(tokens: Tokens, ends: frozenset[int]) -> Tokens:
    end = next((index for index, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[: end + 1]


def score(model: Any, rows: Sequence[tuple[Tokens, Tokens]], scratch: Path | None = None) -> list[Scored]:
    """What the model makes of each (prompt, tokens), neither of them empty: one pass for a batch of them.

    ``scratch``: a folder for the logits, see ``thrift.room``.

    Raises:
        ForwardFailed, Unavailable: as ``running``.
    """
    found: dict[int, Scored] = {}
    order = sorted(range(len(rows)), key=lambda index: len(rows[index][0]))
    for batch in _batches(model, rows, order):
        found |= zip(batch, _score_batch(model, [rows[index] for index in batch], scratch), strict=True)
    return [found[index] for index in range(len(rows))]


def _batches(model: Any, rows: Sequence[tuple[Tokens, Tokens]], order: list[int]) -> Iterator[list[int]]:
    """As many rows as the logits of their tokens leave room for."""
    words = int(model.config.get_text_config().vocab_size)
    batch: list[int] = []
    for index in order:
        wider = [*batch, index]
        if batch and len(wider) * _span(model, [rows[item] for item in wider])[1] * words > MOST_LOGITS:
            yield batch
            wider = [index]
        batch = wider
    if batch:
        yield batch


def _span(model: Any, rows: Sequence[tuple[Tokens, Tokens]]) -> tuple[int, int]:
    """First position, and number of positions, whose logits a pass over these rows has to give."""
    if model.config.is_encoder_decoder:
        return 0, max(len(tokens) for _, tokens in rows)
    end = max(len(prompt) + len(tokens) for prompt, tokens in rows) - 1
    first = min(len(prompt) for prompt, _ in rows) - 1 if _keeps(model) else 0
    return first, end - first


def _keeps(model: Any) -> bool:
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def _score_batch(model: Any, rows: Sequence[tuple[Tokens, Tokens]], scratch: Path | None) -> list[Scored]:
    """Padding stands at the right, where a causal model does not see it."""
    import torch

    first, count = _span(model, rows)
    if model.config.is_encoder_decoder:
        start = _decoder_start(model)
        inputs = _padded(model, [prompt for prompt, _ in rows], 0, left=False)
        written = _padded(model, [(start, *tokens[:-1]) for _, tokens in rows], 0, left=False)
        inputs["decoder_input_ids"] = written["input_ids"]
        begins = [0] * len(rows)
    else:
        inputs = _padded(model, [(*prompt, *tokens[:-1]) for prompt, tokens in rows], 0, left=False)
        begins = [len(prompt) - 1 - first for prompt, _ in rows]
        if _keeps(model):
            inputs["logits_to_keep"] = torch.arange(first, first + count, device=inputs["input_ids"].device)
    with running(), float32_head(model, scratch):
        logits = model(**inputs, use_cache=False).logits
        return [
            _scored(logits[index, begin : begin + len(tokens)], tokens)
            for index, (begin, (_, tokens)) in enumerate(zip(begins, rows, strict=True))
        ]


def _scored(logits: Any, tokens: Tokens) -> Scored:
    """Of one row, [tokens, vocabulary]; a few positions at a time, for what is computed on the way takes more."""
    import torch

    step = at_once(logits)
    chosen, losses, entropies, agreed = torch.tensor(tokens, device=logits.device), [], [], []
    for at in range(0, len(tokens), step):
        logs = torch.log_softmax(logits[at : at + step].float(), dim=-1)
        given = logs.gather(1, chosen[at : at + step, None])[:, 0]
        agreed.append(logs.max(dim=-1).values - given <= TIE)
        losses += [-value if math.isnan(value) else min(-value, LARGEST_LOSS) for value in given.tolist()]
        entropies.append(torch.special.entr(logs.exp()).sum(dim=-1))
    return Scored(
        losses=tuple(losses),
        entropy=float(torch.cat(entropies).mean()),
        agreement=float(torch.cat(agreed).float().mean()),
    )
