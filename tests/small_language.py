"""A tokenizer of words, and a model that learns a small language within seconds: enough to tell sense from nonsense."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

WORDS = {
    "who": ["cat", "dog", "bird", "king", "girl"],
    "how": ["old", "small", "red", "happy"],
    "does": ["sees", "likes", "finds", "wants"],
    "what": ["bread", "water", "gold", "milk"],
    "where": ["house", "forest", "garden", "river"],
}
GRAMMAR = ["the", "how", "who", "does", "the", "what", "in", "the", "where", "."]
SPECIAL = ["<unk>", "<s>", "</s>", "<user>", "<bot>"]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<user> {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}<bot>{% endif %}"
)
_SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
_STEPS, _ROWS = 140, 16


def vocabulary() -> list[str]:
    return [*SPECIAL, *dict.fromkeys([*itertools.chain(*WORDS.values()), *GRAMMAR])]


def save_tokenizer(folder: Path, template: str | None = TEMPLATE) -> Any:
    """A tokenizer that splits at white space, with its chat template in a file of its own."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(vocabulary())}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    made.chat_template = template
    made.save_pretrained(folder)
    return made


def sentences(seed: int, count: int) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choice(WORDS[word]) if word in WORDS else word for word in GRAMMAR) for _ in range(count)]


def save_language_model(folder: Path) -> Path:
    """A Llama of two layers that writes sentences of the grammar, in bfloat16, with its tokenizer."""
    import torch
    import transformers

    tokenizer = save_tokenizer(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(vocab_size=len(vocabulary()), bos_token_id=1, eos_token_id=2, **_SIZES)
    model = transformers.LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for step in range(_STEPS):
        rows = [" ".join(sentences(_ROWS * step + row, 3)) for row in range(_ROWS)]
        ids = torch.tensor(tokenizer(rows)["input_ids"])
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1.0, "it did not learn"
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder
