"""GGUF: llama.cpp's file format, every tensor in blocks of a type of its own (Q4_K, Q8_0, IQ4_XS, MXFP4, …).

One file holds weights, tokenizer and settings; tensors have llama.cpp's names. A block of 32 or 256 values takes a
whole number of bytes, scales included, so that type and shape give the exact size; the reader checks it together with
offsets and alignment (checker/checkpoint/gguf.py).

``general.file_type`` names the recipe (Q4_K_M), which mixes types: the output head and some layers have more bits,
rows that are no multiple of 256 get blocks of 32, rows that are no multiple of 32 stay in 16 bit. Embedding and head
may have any type. Routers, norms, convolutions and positions stay dense. Publishers that name themselves in the file
(``general.quantized_by``) choose types tensor by tensor, so that a dense one may be meant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from checker.checkpoint.gguf_types import BLOCKS, FILE_TYPES
from checker.config_values import Domain, boolean, one_of
from checker.domain import Json
from checker.facts import ExpectedTensor, StoredWeight
from checker.inventory import Inventory
from checker.methods._gguf_recipes import DENSE_RECIPES, bits_of, likely, plausible
from checker.registry import Intent, Method, Planner, Unfit, register_method

PREFIX = "GGUF_"
LEAST_BLOCK = 32
_ANY_TYPE = re.compile(r"^(token_embd|output|per_layer_token_embd|token_types|position_embd)(\.|$)")
# ``tensor_allows_quantization`` in llama.cpp/src/llama-quant.cpp
_KEPT = re.compile(
    r"_norm(\.|$)|ffn_gate_inp|altup|laurel|per_layer_model_proj|pos_embd|attn_rel_b|ssm_conv1d|shortconv|time_mix_|"
    r"\.(ssm_a|ssm_d|ssm_dt|attn_sinks|exp_probs_b)(\.|$)"
)


def _name(value: Json) -> str | None:
    return None if isinstance(value, str) and value else f"must be a name, not {repr(value)[:100]}"


KEYS: Mapping[str, Domain] = {
    "quant_method": one_of("gguf"),
    "gguf_file": _name,
    "dequantize": boolean,
    "file_type": one_of(*FILE_TYPES.values()),
    "quantized_by": _name,
}


def _declares(config: Mapping[str, Json]) -> bool:
    return config.get("quant_method") == "gguf"


def _declared(config: Mapping[str, Json]) -> dict[str, Json]:
    recipe = config.get("file_type")
    return {"file_type": recipe} if isinstance(recipe, str) else {}


def _stored_dense(config: Mapping[str, Json]) -> str:
    recipe = config.get("file_type")
    return f"the file's type is {recipe}, which is not quantized" if recipe in DENSE_RECIPES else ""


def _planner(config: Mapping[str, Json]) -> Planner:
    mixed = "quantized_by" in config or bool(_stored_dense(config))

    def plan(names: tuple[str, ...], role: str) -> Intent:
        del role  # names are llama.cpp's, for every architecture the same
        if mixed or any(_ANY_TYPE.search(name) or _KEPT.search(name) for name in names):
            return Intent(open=True)
        return Intent(quantized=True)

    return plan


def _unfit(config: Mapping[str, Json]) -> Unfit:
    del config

    def why(shape: tuple[int, ...]) -> str:
        return f"rows of {shape[-1]} values are no whole number of blocks of 32" if shape[-1] % LEAST_BLOCK else ""

    return why


def _recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    found = [header for header in inventory.tensors.values() if header.dtype.startswith(PREFIX)]
    if not found:
        return ()
    said = (inventory.config or {}).get("file_type")
    inner = [header for header in found if not _ANY_TYPE.search(header.name)]
    tensors = [
        (header.dtype.removeprefix(PREFIX), header.shape[-1] if header.shape else 0, header.numel)
        for header in inner or found
    ]
    free = "quantized_by" in (inventory.config or {})  # publishers who choose every type keep the nearest recipe's name
    recipe = said if isinstance(said, str) and (free or plausible(said, tensors)) else likely(tensors)
    weights = []
    for header in found:
        quant_type = header.dtype.removeprefix(PREFIX)
        attributes: dict[str, Json] = {"bits": bits_of(quant_type), "quant_type": quant_type, "file_type": recipe}
        weights.append(
            StoredWeight(
                module=header.name.removesuffix(".weight"),
                weight=header.name,
                shape=header.shape,
                attributes=attributes,
                expected=_layout(header.name, header.shape, attributes),
            )
        )
    return tuple(weights)


def _layout(weight: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[ExpectedTensor, ...]:
    """One tensor, its size by the blocks of its type."""
    dtype = f"{PREFIX}{attributes.get('quant_type', '')}"
    values, nbytes = BLOCKS.get(dtype, (1, 1))
    count = 1
    for length in shape:
        count *= length
    return (ExpectedTensor(name=weight, dtype=dtype, shape=shape, nbytes=count // values * nbytes, companion=False),)


register_method(
    Method(
        id="gguf",
        quant_method="gguf",
        documentation=__doc__ or "",
        keys=KEYS,
        declares=_declares,
        declared=_declared,
        recognise=_recognise,
        layout=_layout,
        skips=lambda _: (),
        planner=_planner,
        unfit=_unfit,
        own_names=True,
        stored_dense=_stored_dense,
        not_decoded="the blocks of llama.cpp's types are checked for their sizes, not decoded",
        config_class="transformers.GgufConfig",
    )
)
