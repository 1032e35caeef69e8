"""llama.cpp's recipes: which types of tensors a file of each ``general.file_type`` holds.

Checked against what ``llama_model_quantize`` (llama.cpp v0.5.0) makes of rows of 128 and of 512 values for every recipe
that needs no importance matrix; the others after ``llama_ftype`` in include/llama.h. A recipe mixes types: more bits
for the output head, for attn_v and ffn_down; rows that are no multiple of 256 values get a type with blocks of 32,
rows that are no multiple of 32 stay in 16 bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

Tensor = tuple[str, int, int]
"""Type, values of a row, values in all."""

# recipe -> the type that most of its tensors have
DEFAULT_TYPES: Mapping[str, str] = {
    "Q4_0": "Q4_0",
    "Q4_1": "Q4_1",
    "Q5_0": "Q5_0",
    "Q5_1": "Q5_1",
    "Q8_0": "Q8_0",
    "Q2_K": "Q2_K",
    "Q2_K_S": "Q2_K",
    "Q3_K_S": "Q3_K",
    "Q3_K_M": "Q3_K",
    "Q3_K_L": "Q3_K",
    "Q4_K_S": "Q4_K",
    "Q4_K_M": "Q4_K",
    "Q5_K_S": "Q5_K",
    "Q5_K_M": "Q5_K",
    "Q6_K": "Q6_K",
    "IQ1_S": "IQ1_S",
    "IQ1_M": "IQ1_M",
    "IQ2_XXS": "IQ2_XXS",
    "IQ2_XS": "IQ2_XS",
    "IQ2_S": "IQ2_XS",
    "IQ2_M": "IQ2_S",
    "IQ3_XXS": "IQ3_XXS",
    "IQ3_XS": "IQ3_S",
    "IQ3_S": "IQ3_S",
    "IQ3_M": "IQ3_S",
    "IQ4_NL": "IQ4_NL",
    "IQ4_XS": "IQ4_XS",
    "TQ1_0": "TQ1_0",
    "TQ2_0": "TQ2_0",
    "MXFP4_MOE": "MXFP4",
    "NVFP4": "NVFP4",
    "Q1_0": "Q1_0",
}
# what stands in for a type where rows are no multiple of its block; older releases took other ones
FALLBACKS: Mapping[str, tuple[str, ...]] = {
    "Q4_K": ("Q5_0",),
    "Q5_K": ("Q5_1",),
    "Q6_K": ("Q8_0",),
    "TQ1_0": ("Q4_0",),
    "TQ2_0": ("Q4_0",),
}
OTHER_FALLBACKS = ("IQ4_NL", "Q4_0", "Q4_1")
SIMPLE_TYPES = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
DENSE_RECIPES = ("F32", "F16", "BF16")
SUPER_BLOCK = 256

BITS: Mapping[str, int] = {
    "MXFP4": 4,
    "NVFP4": 4,
    "TQ1_0": 2,
    "TQ2_0": 2,
}


def bits_of(quant_type: str) -> int:
    """Bits of a code: the number in the type's name."""
    if quant_type in BITS:
        return BITS[quant_type]
    digits = "".join(letter for letter in quant_type.partition("_")[0] if letter.isdigit())
    return int(digits) if digits else 0


def plausible(recipe: str, tensors: Iterable[Tensor]) -> bool:
    """Whether a file of this recipe could hold these tensors, head and embedding left out.

    A quarter of all values in the recipe's own type, or in what stands in for it in short rows, is enough: healthy
    files have more than half (Q3_K_L 57 %), and the types that a recipe adds hold less than a fifth.
    """
    own, found = DEFAULT_TYPES.get(recipe), list(tensors)
    if own is None:
        return False
    instead = FALLBACKS.get(own, OTHER_FALLBACKS)
    fitting = (
        count
        for kind, row, count in found
        if kind == own
        or (row % SUPER_BLOCK and own not in SIMPLE_TYPES and kind in instead)
        or (own.startswith("IQ") and kind.startswith("IQ"))
        or (recipe == "MXFP4_MOE" and kind == "Q8_0")  # all but experts
    )
    return sum(fitting) * 4 > sum(count for _, _, count in found)


def likely(tensors: Iterable[Tensor]) -> str:
    """The recipe that most of the values speak for."""
    values: Counter[str] = Counter()
    for kind, _, count in tensors:
        values[kind] += count
    kind = values.most_common(1)[0][0] if values else ""
    return next((recipe for recipe, own in DEFAULT_TYPES.items() if own == kind), kind)
