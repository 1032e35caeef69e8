"""What an architecture keeps dense, ties and transposes, known without torch from a generated table.

For an architecture that the table does not hold, names and shapes decide, and the checks that build on them are milder.
The table: ``checker/data/build_architectures.py``.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources

from checker.domain import Json

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")
_ROLE_BY_NAME = (
    ("expert", re.compile(r"(^|\.)experts?(\.|$)")),
    ("embedding", re.compile(r"embed|(^|\.)(wte|wpe|shared|relative_attention_bias)$")),
    ("router", re.compile(r"router|(^|\.)(gate|wg)$")),
    ("head", re.compile(r"(^|\.)(lm_head|embed_out|score|classifier|output_projection|cls\.predictions\.decoder)$")),
    ("vision", re.compile(r"(^|\.)(vision_tower|vision_model|visual|multi_modal_projector|mm_projector)(\.|$)")),
)
_LONGEST_NAME = 250
_FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("query", "key", "value"), ("w1", "w3"))
_SAFE_REGEX = re.compile(r"[\w.\-*+^$|\\\[\]?]{1,200}")
_QUANTIFIER = re.compile(r"[*+?]")  # many of them backtrack for ever, even without nesting: m?m?m?…mmm
_MOST_QUANTIFIERS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """One row of the table, or what can be said without one. Patterns have ``*`` for layer and expert numbers."""

    name: str
    known: bool
    dense: Mapping[str, str] = field(default_factory=dict)  # tensor pattern -> kind
    heads: tuple[str, ...] = ("lm_head",)  # module patterns
    tied: Mapping[str, str] = field(default_factory=dict)  # tensor pattern -> tensor pattern that holds the data
    transposed: frozenset[str] = frozenset()  # tensor patterns, stored [in, out] when dense

    def role(self, module: str, tensor: str, shape: tuple[int, ...]) -> str:
        """linear, expert, head, embedding, router, vision, or why else the tensor is not a linear layer."""
        by_name = next((role for role, regex in _ROLE_BY_NAME if regex.search(module)), "")
        kind = self.dense.get(pattern(tensor))
        if pattern(module) in self.heads:
            return "head"
        if by_name == "expert" and "shared" not in module.rpartition("expert")[0].rpartition(".")[2]:
            return "expert"
        if kind is not None:
            return kind
        if self.known or not by_name:
            return "linear" if len(shape) == 2 else "not a linear layer"  # noqa: PLR2004 - a matrix
        return by_name


def architecture_of(config: Mapping[str, Json]) -> Architecture:
    """The architecture that ``config.json`` names first, with its ties switched on or off as the config says."""
    names = config.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else ""
    name = name if name.isprintable() else ascii(name)  # it goes into messages
    row = _table().get(name)
    text = config.get("text_config")
    tie = config.get("tie_word_embeddings", text.get("tie_word_embeddings") if isinstance(text, Mapping) else None)
    if row is None:
        return Architecture(name=name, known=False)
    tied = row.get("tied", {}) if (row.get("tie", False) if tie is None else tie) else {}
    return Architecture(
        name=name,
        known=True,
        dense=row.get("dense", {}),
        heads=tuple(row.get("head", ())),
        tied=tied,
        transposed=frozenset(row.get("transposed", ())),
    )


@functools.cache
def _table() -> Mapping[str, Mapping[str, Json]]:
    text = resources.files("checker.data").joinpath("architectures.json").read_text(encoding="utf-8")
    table: Mapping[str, Mapping[str, Json]] = json.loads(text)["architectures"]
    return table


def pattern(name: str) -> str:
    """A name with every layer or expert number replaced by ``*``."""
    return _NUMBER.sub("*", name)


def skip_matches(entry: str, module: str) -> bool:
    """Whether a skip-list entry keeps a module dense, as transformers 5 decides.

    A match from the start up to a module boundary, as text or regular expression, or the plain end of the name
    (``should_convert_module`` in quantizers/quantizers_utils.py). Expressions that could backtrack for ever are taken
    as text: the list comes from a file that may be hostile.
    """
    if module.endswith(entry):
        return True
    few = len(_QUANTIFIER.findall(entry)) <= _MOST_QUANTIFIERS and len(module) <= _LONGEST_NAME
    safe = few and _SAFE_REGEX.fullmatch(entry) is not None
    try:
        expression = re.compile(rf"(?:{entry if safe else re.escape(entry)})(?:(?<=\.)|(?=\.|$))")
    except re.error:
        return False
    return expression.match(module) is not None


def fused_groups(modules: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Groups of modules that inference run times fuse into one matrix (q/k/v, gate/up), where all are present."""
    names = set(modules)
    groups = []
    for name in sorted(names):
        parent, _, last = name.rpartition(".")
        for members in _FUSED:
            group = tuple(f"{parent}.{member}" for member in members)
            if last == members[0] and names.issuperset(group):
                groups.append(group)
    return tuple(groups)


def counterpart(name: str, names: Mapping[str, object]) -> str | None:
    """The same tensor in another checkpoint of the model, which may lack or add the base model's prefix."""
    if name in names:
        return name
    _, _, rest = name.partition(".")
    if rest in names:
        return rest
    return next((f"{prefix}.{name}" for prefix in ("model", "transformer") if f"{prefix}.{name}" in names), None)
