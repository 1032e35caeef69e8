"""The probe text as rows of token ids: what both models are run over."""

from __future__ import annotations

from typing import Any

from checker.probes.greedy import longest_of
from checker.reference import ROW_LENGTHS
from checker.reference.identity import passages


def probe_rows(model: Any, tokenizer: Any | None) -> tuple[tuple[int, ...], ...]:
    """Rows of token ids, one more than there are scored positions; without a tokenizer, ids spread over the vocabulary.

    A model for short texts gets shorter rows.
    """
    vocabulary = int(model.config.get_text_config().vocab_size)
    longest = longest_of(model)
    rows = []
    for number, (text, positions) in enumerate(zip(passages(), ROW_LENGTHS, strict=True)):
        count = min(positions, longest) + 1
        if tokenizer is None:
            ids = [(17 + 7 * (place + 31 * number)) % vocabulary for place in range(count)]
        else:
            ids = [token for token in tokenizer(text)["input_ids"] if token < vocabulary][:count]
        rows.append(tuple(ids))
    return tuple(row for row in rows if len(row) > 1)
