"""llama.cpp's recipes: which types of tensors a file of each ``general.file_type`` holds.

Source: ``llama_ftype_get_default_type`` and ``tensor_type_fallback`` in src/llama-quant.cpp (llama.cpp v0.5.0). A
recipe mixes types: more bits for the output head, for attn_v and ffn_down; rows that are no multiple of 256 values get
a type with blocks of 32, rows that are no multiple of 32 stay in 16 bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

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


def plausible(recipe: str, tensors: Iterable[tuple[str, int]]) -> bool:
    """Whether a file of this recipe could hold these tensors: (type, values of a row), head and embedding left out.

    One tensor of the recipe's own type, or of what stands in for it in short rows, is enough: recipes mix. Those of the
    simple types hardly do; at least half of the tensors are of that type.
    """
    own, found = DEFAULT_TYPES.get(recipe), list(tensors)
    if own is None:
        return False
    if own in SIMPLE_TYPES:
        return 0 < len(found) <= 2 * sum(kind == own for kind, _ in found)
    instead = FALLBACKS.get(own, OTHER_FALLBACKS)
    return any(kind == own or (row % SUPER_BLOCK and kind in instead) for kind, row in found)


def likely(tensors: Iterable[tuple[str, int]]) -> str:
    """The recipe that most of the tensors speak for."""
    most = Counter(kind for kind, _ in tensors).most_common(1)
    kind = most[0][0] if most else ""
    return next((recipe for recipe, own in DEFAULT_TYPES.items() if own == kind), kind)
