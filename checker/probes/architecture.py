"""The tensors of a file against those of the model that its config describes, without loading either."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from checker.errors import NotApplicable, Unavailable
from checker.facts import ArchitectureFacts, ArtifactFacts, Flaw
from checker.probes.conversion import Conversion, Placement, Shape
from checker.probes.load import one_line
from checker.probes.names import REMADE
from checker.probes.skeleton import build_model, import_transformers, is_linear, read_config
from checker.registry import Method

_SCALE = re.compile(r"(scales?|scale_inv|zero_points?|zeros)$")  # of activations, caches and dense layers
_MATRIX = 2
_MOST_EXPERTS = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tensor:
    """One dense tensor that the file holds in whatever form; ``where`` is its name in the file."""

    where: str
    shape: Shape | None
    quantized: bool = False


@dataclass(kw_only=True, slots=True)
class _Differences:
    """What was found so far; ``provided`` are the parameters that the file fills."""

    provided: set[str] = field(default_factory=set)
    missing: dict[str, None] = field(default_factory=dict)  # names in the file's naming, in order
    unexpected: dict[str, str] = field(default_factory=dict)  # name in the file -> name after renaming
    mismatched: list[Flaw] = field(default_factory=list)


def gather_architecture(
    folder: Path, artifact: ArtifactFacts, method: Method | None, *, trust_remote_code: bool
) -> ArchitectureFacts:
    """Build the model on the meta device and compare its parameters with the file's, dense shape by dense shape.

    Raises:
        NotApplicable: the weights are quantized by a method that is not known, or have llama.cpp's names.
        Unavailable: the config describes no model that transformers can build.
    """
    declared = method is not None and method.id == artifact.declared_method
    if artifact.quantization_config is not None and not declared:
        raise NotApplicable("the dense shapes of an unknown method's weights are not known")
    if artifact.stored_method == "gguf":
        raise NotApplicable("a GGUF file names its tensors as llama.cpp does")
    import_transformers()
    from huggingface_hub.errors import StrictDataclassError

    try:
        config = read_config(folder, trust_remote_code=trust_remote_code)
        model = build_model(config, trust_remote_code=trust_remote_code)
    except (
        AttributeError, ImportError, LookupError, OSError, RuntimeError, StrictDataclassError, TypeError, ValueError,
    ) as error:  # fmt: skip
        raise Unavailable(f"the architecture cannot be built: {one_line(error)}") from error
    return compare(artifact, model)


def compare(artifact: ArtifactFacts, model: Any) -> ArchitectureFacts:
    """What the file lacks, what it holds too many, and what has another shape. One of several tied tensors suffices."""
    tensors = _dense_tensors(artifact)
    conversion = Conversion(model)
    placement = conversion.place(tensors)
    differences = _Differences(unexpected=dict(placement.homeless))
    for parameter, sources in placement.sources.items():
        if "" in sources.values():
            _compare_directly(parameter, tensors[next(iter(sources))], conversion, differences)
    _compare_converted(placement, tensors, conversion, differences)
    absent = [name for name in conversion.parameters if name not in differences.provided]
    absent = _without_tied(absent, differences.provided, model.all_tied_weights_keys or {})
    absent = _without_unfused(absent, tensors, conversion, differences)
    unexpected = _without_scales(differences.unexpected, artifact)
    absent, unexpected = _without_ignored(absent, unexpected, model)
    if absent:
        names = conversion.stored_names(akin=True) or conversion.stored_names()
        for parameter in absent:
            differences.missing.update(dict.fromkeys(names.get(parameter, {parameter: None})))
    return ArchitectureFacts(
        missing=tuple(differences.missing),
        unexpected=tuple(sorted({tensors[name].where for name in unexpected})),
        mismatched=tuple(differences.mismatched),
    )


def _dense_tensors(artifact: ArtifactFacts) -> dict[str, _Tensor]:
    """Every tensor of the file by the name it has when dense; the parts of quantized weights count as one."""
    parts = {part.name for weight in artifact.weights for part in weight.expected if not part.name.endswith(".bias")}
    parts |= {weight.weight for weight in artifact.weights}
    tensors = {
        name: _Tensor(where=name, shape=fact.shape) for name, fact in artifact.tensors.items() if name not in parts
    }
    for weight in artifact.weights:
        shape = None if "columns_rounded_to" in weight.attributes else weight.shape
        tensors[weight.dense] = _Tensor(where=weight.weight, shape=shape, quantized=True)
    return dict(_expert_by_expert(tensors))


def _expert_by_expert(tensors: Mapping[str, _Tensor]) -> Iterator[tuple[str, _Tensor]]:
    """MLX joins experts under a name of its own; the converters of transformers know them one by one."""
    for name, tensor in tensors.items():
        before, own, after = name.partition(".switch_mlp.")
        if own and tensor.shape is not None and len(tensor.shape) > _MATRIX:
            count, *shape = tensor.shape
            for index in range(min(count, _MOST_EXPERTS)):
                yield f"{before}.experts.{index}.{after}", replace(tensor, shape=tuple(shape))
        else:
            yield name, tensor


def _compare_directly(parameter: str, tensor: _Tensor, conversion: Conversion, differences: _Differences) -> None:
    """A parameter that is stored as it is, perhaps under another name."""
    differences.provided.add(parameter)
    wanted = tuple(conversion.parameters[parameter].shape)
    turned = tensor.quantized and _may_turn(parameter, conversion.model) and wanted[:-2] + wanted[:-3:-1]
    if tensor.shape not in (None, wanted, turned):
        differences.mismatched.append(_mismatch(tensor, wanted))


def _may_turn(parameter: str, model: Any) -> bool:
    """Whether quantizing may exchange the last two axes: Conv1D and experts keep [in, out] where packing wants rows."""
    module = model.get_submodule(parameter.rpartition(".")[0])
    tensor = getattr(module, parameter.rpartition(".")[2])
    return tensor.dim() > _MATRIX or (is_linear(module) and not hasattr(module, "in_features"))


def _mismatch(tensor: _Tensor, wanted: Iterable[int]) -> Flaw:
    return Flaw(message="", where=tensor.where, observed=list(tensor.shape or ()), expected=list(wanted))


def _compare_converted(
    placement: Placement, tensors: Mapping[str, _Tensor], conversion: Conversion, differences: _Differences
) -> None:
    """Parameters that are joined from several tensors, or split from one: first the result, then what spoilt it."""
    joined = {name: sources for name, sources in placement.sources.items() if "" not in sources.values()}
    wanted: dict[str, dict[str, Shape]] | None = None
    for parameter, sources in joined.items():
        shapes = {name: shape for name in sources if (shape := tensors[name].shape) is not None}
        made = conversion.convert(parameter, sources, shapes) if len(shapes) == len(sources) else {}
        known = [name for name in made if name in conversion.parameters]
        differences.provided.update(known or (parameter,))
        if made and all(tuple(conversion.parameters[name].shape) == made[name] for name in known) and known:
            continue
        if wanted is None:
            wanted = conversion.stored_names()
        _explain(parameter, {name: tensors[name] for name in sources}, wanted.get(parameter, {}), made, differences,
                 conversion)  # fmt: skip


def _explain(
    parameter: str,
    held: Mapping[str, _Tensor],
    wanted: Mapping[str, Shape],
    made: Mapping[str, Shape],
    differences: _Differences,
    conversion: Conversion,
) -> None:
    """Name the tensors of the file for which a joined parameter came out wrong."""
    if not held.keys() & wanted.keys():  # the rules cannot be turned around: only the whole can be named
        tensor = _Tensor(where=parameter, shape=made.get(parameter))
        differences.mismatched.append(_mismatch(tensor, conversion.parameters[parameter].shape))
        return
    differences.missing.update(dict.fromkeys(name for name in wanted if name not in held))
    differences.unexpected.update({name: parameter for name in held if name not in wanted})
    differences.mismatched.extend(
        _mismatch(tensor, wanted[name])
        for name, tensor in held.items()
        if name in wanted and tensor.shape not in (None, wanted[name])
    )


def _without_tied(absent: list[str], provided: set[str], tied: Mapping[str, str]) -> list[str]:
    """Of tensors that share their data nothing, when the file holds one of them; else just the one that owns it."""
    filled = {source for name, source in tied.items() if {name, source} & provided}
    absent = [name for name in absent if tied.get(name, name) not in filled]
    return [name for name in absent if tied.get(name) not in absent]


def _without_unfused(
    absent: list[str], tensors: Mapping[str, _Tensor], conversion: Conversion, differences: _Differences
) -> list[str]:
    """Fused experts that another library stores expert by expert (``experts.3.down_proj``), where all values are there.

    transformers has converters for many; where it has none (Llama 4, GPT-OSS), the method swaps the module.
    """
    families: dict[str, dict[tuple[int, str], str]] = {}
    for name, renamed in differences.unexpected.items():
        if found := re.fullmatch(r"(.+\.experts)\.(\d{1,6})\.(.+)", renamed):
            families.setdefault(found[1], {})[int(found[2]), found[3]] = name
    for module, members in families.items():
        fused = [conversion.parameters[name].shape for name in absent if name.rpartition(".")[0] == module]
        kinds: dict[str, Shape | None] = {}
        for (_, kind), name in sorted(members.items()):
            kinds.setdefault(kind, tensors[name].shape)
        values = [math.prod(shape) for shape in kinds.values() if shape is not None]
        if not fused or (len(values) == len(kinds) and sum(values) * fused[0][0] != sum(map(math.prod, fused))):
            continue
        absent = [name for name in absent if name.rpartition(".")[0] != module]
        for kind, shape in kinds.items():
            for index in range(fused[0][0]):
                here = members.get((index, kind))
                if here is None:
                    differences.missing[f"{module}.{index}.{kind}"] = None
                elif shape is not None and tensors[here].shape not in (None, shape):
                    differences.mismatched.append(_mismatch(tensors[here], shape))
        known = {name for (index, _), name in members.items() if index < fused[0][0]}
        differences.unexpected = {
            name: renamed for name, renamed in differences.unexpected.items() if name not in known
        }
    return absent


def _without_scales(unexpected: Mapping[str, str], artifact: ArtifactFacts) -> dict[str, str]:
    """Without companions of quantized weights: other checks judge them. Packed layers may have their own bias."""
    unexpected = {name: renamed for name, renamed in unexpected.items() if not name.endswith(REMADE)}
    if artifact.quantization_config is None and not artifact.weights:
        return unexpected
    if artifact.stored_dense:  # what its quantizer keeps beside dense weights (Hadamard matrices, …)
        unexpected = {name: renamed for name, renamed in unexpected.items() if name.endswith((".weight", ".bias"))}
    repacked = {weight.module: weight.dense != weight.weight for weight in artifact.weights}
    kept = {}
    for name, renamed in unexpected.items():
        module, _, last = name.rpartition(".")
        companion = repacked.get(module, False) if last == "bias" else module in repacked and last != "weight"
        if not companion and not _SCALE.search(name):
            kept[name] = renamed
    return kept


def _without_ignored(absent: list[str], unexpected: Mapping[str, str], model: Any) -> tuple[list[str], dict[str, str]]:
    """Without what the model's class lets be missing or superfluous, by the library's own rule."""
    info = SimpleNamespace(missing_keys=set(absent), unexpected_keys=set(unexpected.values()))
    model._adjust_missing_and_unexpected_keys(info)  # noqa: SLF001 - there is no public face
    return (
        [name for name in absent if name in info.missing_keys],
        {name: renamed for name, renamed in unexpected.items() if renamed in info.unexpected_keys},
    )
