"""What an architecture keeps dense, ties, transposes and renames, known without torch from a generated table.

Names in a file are not always those of modules: transformers 5 renames tensors as it loads and saves them. The table is
in module naming, and ``Architecture.aliases`` leads there. For an architecture that the table does not hold, names and
shapes decide, and the checks that build on them are milder. The table: ``checker/data/build_architectures.py``.
"""

from __future__ import annotations

import functools
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources

from checker.domain import Json

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")
_ROLE_BY_NAME = (
    ("expert", re.compile(r"(^|\.)(experts?|switch_mlp)(\.|$)")),
    ("embedding", re.compile(r"embed|(^|\.)(wte|wpe|shared|relative_attention_bias)$")),
    ("router", re.compile(r"router|(^|\.)(gate|wg|shared_expert_gate)$")),
    ("head", re.compile(r"(^|\.)(lm_head|embed_out|score|classifier|output_projection|cls\.predictions\.decoder)$")),
    ("vision", re.compile(r"(^|\.)(vision_tower|vision_model|visual|multi_modal_projector|mm_projector)(\.|$)")),
)
_LONGEST_NAME = 250
_LANGUAGE = re.compile(r"(?:model\.)?language_model\.(?:model\.)?")
_LANGUAGE_SPELLINGS = ("model.language_model.", "language_model.model.", "language_model.", "model.", "")
_FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("query", "key", "value"), ("w1", "w3"))
_FUSED_BY_FIRST = {members[0]: members for members in _FUSED}
_SAFE_REGEX = re.compile(r"[\w.\-*+^$|\\\[\]?]{1,200}")
_QUANTIFIER = re.compile(r"[*+?]")  # many of them backtrack for ever, even without nesting: m?m?m?…mmm
_MOST_QUANTIFIERS = 3


@dataclass(frozen=True, slots=True)
class _Rule:
    """One rename, as ``WeightTransform.rename_source_key`` of transformers/core_model_loading.py applies it."""

    source: re.Pattern[str]
    targets: tuple[str, ...]
    prefixes: tuple[str, ...]  # one of them must lead; it is left alone

    def apply(self, name: str) -> tuple[str, ...]:
        """The new names (several where a matrix is split), none when the rule does not match."""
        prefix = next((prefix for prefix in self.prefixes if name.startswith(prefix)), None)
        if prefix is None:
            return ()
        rest = name[len(prefix) :]
        found = self.source.search(rest)
        if found is None:
            return ()
        group = self.source.groupindex[found.lastgroup] + 1 if found.lastgroup else 0
        return tuple(
            prefix + rest.replace(found[0], target.replace("\\1", found[group]) if "\\1" in target else target, 1)
            for target in self.targets
        )


class _Naming:
    """The names of one architecture's modules: as stored, as loaded, and as an older transformers had them."""

    def __init__(self, row: Mapping[str, Json], rules: list[Mapping[str, Json]]) -> None:
        def chosen(key: str) -> tuple[_Rule, ...]:
            found = [rules[index] for index in row.get(key, ())]
            return tuple(
                _Rule(re.compile(rule["from"]), tuple(rule["to"]), tuple(rule.get("in", ("",)))) for rule in found
            )

        self.renames, self.joins, self.reverts = chosen("renames"), chosen("joins"), chosen("reverts")
        self.prefix, self.body = str(row.get("prefix", "")), frozenset(row.get("body", ()))
        self.plain = not (self.renames or self.joins or self.reverts)
        every = (*self.renames, *self.joins, *self.reverts)
        self.by_number = any(_LITERAL_NUMBER.search(rule.source.pattern) for rule in every)
        self.known: dict[tuple[str, ...], tuple[tuple[str, tuple[int, ...]], ...]] = {}

    def aliases(self, module: str) -> tuple[str, ...]:
        """A module's name first, then its other names; each pattern of names is worked out once."""
        if len(module) > _LONGEST_NAME:  # a hostile name, and regular expressions that search
            return (module,)
        if self.plain:
            first = module.partition(".")[0]
            return (module, f"{self.prefix}.{module}") if first in self.body else (module,)
        if self.by_number:
            return tuple(self.names(module))
        parts = _PARTS.split(module)
        shape = tuple(parts[::2])
        others = self.known.get(shape)
        if others is None:
            others = self.known[shape] = tuple(self._templates(shape))
        return (module, *[other % tuple([parts[place] for place in places]) for other, places in others])

    def _templates(self, shape: tuple[str, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The other names with ``%s`` for numbers, found by means of numbers that nothing else contains."""
        marked = "".join(part if place == 0 else f".{_MARK + 2 * place - 1}{part}" for place, part in enumerate(shape))
        for other in list(self.names(marked))[1:]:
            parts = _MARKED.split(other)
            yield (
                "%s".join(part.replace("%", "%%") for part in parts[::2]),
                tuple(int(mark) - _MARK for mark in parts[1::2]),
            )

    def names(self, module: str) -> Iterator[str]:
        """The module, then its loaded name, that of the parameters it is joined into, and the older name."""
        loaded = _follow(f"{module}.weight", self.renames)
        joined = next((found for rule in self.joins if (found := rule.apply(loaded))), ())
        if loaded.partition(".")[0] in self.body:
            loaded = f"{self.prefix}.{loaded}"
        every = (f"{module}.weight", loaded, *joined, _follow(loaded, self.reverts))
        yield from dict.fromkeys(name.removesuffix(".weight") for name in every)


_PARTS = re.compile(r"\.(\d+)(?=\.|$)")  # what stands between numbers, and the numbers
_LITERAL_NUMBER = re.compile(r"\.[0-9]")
_MARK = 10**17  # numbers of 18 digits stand for those of a name
_MARKED = re.compile(r"(?<=\.)(1\d{17})(?=\.|$)")


def _follow(name: str, rules: tuple[_Rule, ...]) -> str:
    for rule in rules:
        name = next(iter(rule.apply(name)), name)
    return name


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """One row of the table, or what can be said without one. Patterns have ``*`` for layer and expert numbers."""

    name: str
    known: bool
    dense: Mapping[str, str] = field(default_factory=dict)  # tensor pattern -> kind
    heads: tuple[str, ...] = ("lm_head",)  # module patterns
    tied: Mapping[str, str] = field(default_factory=dict)  # tensor pattern -> tensor pattern that holds the data
    transposed: frozenset[str] = frozenset()  # tensor patterns, stored [in, out] when dense
    naming: _Naming = field(default_factory=lambda: _Naming({}, []), compare=False, repr=False)

    def aliases(self, module: str) -> tuple[str, ...]:
        """A module's name as stored, the names that transformers gives it after loading, and the one it had in 4.x.

        Experts and split matrices also have the names of the parameters that they become. Only names that differ.
        """
        return self.naming.aliases(module)

    def role(self, module: str, tensor: str, shape: tuple[int, ...]) -> str:
        """linear, expert, head, embedding, router, vision, or why else the tensor is not a linear layer."""
        if tensor.endswith("bias"):  # of experts, one row for each
            return "not a linear layer"
        names = self.aliases(module)
        patterns = [pattern(name) for name in names]
        if any(item in self.heads for item in patterns):
            return "head"
        by_name = next((role for name in names for role, regex in _ROLE_BY_NAME if regex.search(name)), "")
        if by_name == "expert" and "shared" not in module.rpartition("expert")[0].rpartition(".")[2]:
            return "expert"
        ending = tensor[len(module) :] if tensor.startswith(module) else ".weight"
        kinds = (self.dense.get(item + end) for item in patterns for end in (ending, ""))
        kind = next((kind for kind in kinds if kind is not None), None)
        if kind is not None:
            return kind
        beyond = module.endswith("embed_tokens")  # of a prediction layer that transformers does not build
        if (self.known and not beyond) or not by_name:
            return "linear" if len(shape) == 2 else "not a linear layer"  # noqa: PLR2004 - a matrix
        return by_name

    def counterpart(self, name: str, names: Mapping[str, object]) -> str | None:
        """The same tensor in another checkpoint of this architecture, saved by whatever version of transformers."""
        found = counterpart(name, names)
        if found is not None:
            return found
        module, dot, last = name.rpartition(".")
        others = (f"{alias}{dot}{last}" for alias in self.aliases(module)[1:])
        return next((here for other in others if (here := counterpart(other, names)) is not None), None)


def architecture_of(config: Mapping[str, Json]) -> Architecture:
    """The architecture that ``config.json`` names first, with its ties switched on or off as the config says."""
    names = config.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else ""
    name = name if name.isprintable() else ascii(name)  # it goes into messages
    row = _table()["architectures"].get(name)
    text = config.get("text_config")
    tie = config.get("tie_word_embeddings", text.get("tie_word_embeddings") if isinstance(text, Mapping) else None)
    if row is None:
        return Architecture(name=name, known=False)
    tied = row.get("tied", {}) if (row.get("tie", False) if tie is None else tie) else {}
    naming = _naming(name)
    older = ((_follow(tensor, naming.reverts), _follow(source, naming.reverts)) for tensor, source in tied.items())
    transposed = row.get("transposed", ())
    return Architecture(
        name=name,
        known=True,
        dense=row.get("dense", {}),
        heads=tuple(row.get("head", ())),
        tied={**dict(older), **tied},
        transposed=frozenset((*transposed, *(item.removeprefix(f"{naming.prefix}.") for item in transposed))),
        naming=naming,
    )


@functools.cache
def _table() -> Mapping[str, Json]:
    text = resources.files("checker.data").joinpath("architectures.json").read_text(encoding="utf-8")
    table: Mapping[str, Json] = json.loads(text)
    return table


@functools.cache
def _naming(name: str) -> _Naming:
    return _Naming(_table()["architectures"][name], _table()["rules"])


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
    expression = _skip_expression(entry, len(module) <= _LONGEST_NAME)
    return expression is not None and expression.match(module) is not None


@functools.lru_cache(maxsize=4096)
def _skip_expression(entry: str, short: bool) -> re.Pattern[str] | None:
    """The expression of a skip-list entry, None when it is none; ``short``: the name to match is no hostile one."""
    few = len(_QUANTIFIER.findall(entry)) <= _MOST_QUANTIFIERS and short
    safe = few and _SAFE_REGEX.fullmatch(entry) is not None
    try:
        with warnings.catch_warnings(action="ignore"):  # "[[" may mean something else one day
            return re.compile(rf"(?:{entry if safe else re.escape(entry)})(?:(?<=\.)|(?=\.|$))")
    except re.error:
        return None


def fused_groups(modules: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Groups of modules that inference run times fuse into one matrix (q/k/v, gate/up), where all are present."""
    names = set(modules)
    groups = []
    for name in names:
        parent, _, last = name.rpartition(".")
        members = _FUSED_BY_FIRST.get(last)
        if members is not None:
            group = tuple(f"{parent}.{member}" for member in members)
            if names.issuperset(group):
                groups.append(group)
    groups.sort()
    return tuple(groups)


def counterpart(name: str, names: Mapping[str, object]) -> str | None:
    """The same tensor in another checkpoint of the model, which may lack or add the base model's prefix.

    The language part of a vision-language model has stood in several places, its other parts with and without
    ``model.``. One expert's tensor has no counterpart in a file that holds all experts as one.
    """
    if name in names:
        return name
    _, _, rest = name.partition(".")
    if rest in names:
        return rest
    added = next((f"{prefix}.{name}" for prefix in ("model", "transformer") if f"{prefix}.{name}" in names), None)
    if added is not None:
        return added
    part = _LANGUAGE.match(name)
    core = name[part.end() :] if part else rest if name.startswith("model.") else name
    moved = (core.replace(".block_sparse_moe.", ".mlp."), core.replace(".mlp.", ".block_sparse_moe."))
    return next(
        (other for item in (core, *moved) for spelling in _LANGUAGE_SPELLINGS if (other := spelling + item) in names),
        None,
    )
