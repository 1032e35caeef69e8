"""Whether each layer that should be quantized is, each that should not is not, and none has lost a part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby

from checker.architecture import pattern
from checker.domain import Depth, Finding, Severity
from checker.errors import NotApplicable
from checker.facts import ArchitectureFacts, ArtifactFacts, ExpectedTensor, ModuleFact, StructureFacts
from checker.registry import Verdict, check

MOST_ENTRIES = 3  # of a skip list that matches nothing, told one by one


@check("layers.coverage", depth=Depth.STATIC)
def layers_coverage(artifact: ArtifactFacts) -> Verdict:
    """Every linear layer that the config says is quantized is quantized, experts of a mixture included.

    What the config says follows from its skip list and from what the architecture keeps dense (a table generated from
    transformers). For an architecture that the table does not hold, a kind of layer that is dense everywhere is a
    warning, one that is dense in some layers only a failure. Experts left in 16 bit always fail: transformers 5
    holds them as one fused parameter, which some methods pass over without a word, and then little memory is saved.
    Layers that run times fuse (q/k/v, gate/up) should agree.
    """
    if not artifact.weights:
        raise NotApplicable("no weight is stored in a known quantized form (see config.present)")
    dense = [module for module in artifact.modules if module.wanted and not module.quantized]
    experts = [module for module in dense if module.role == "expert"]
    yield from _experts(experts)
    yield from _dense_layers(artifact, [module for module in dense if module.role != "expert"])
    quantized = {module.name for module in artifact.modules if module.quantized}
    failed = {module.name for module in dense}
    for group in artifact.fused_groups:
        if quantized.intersection(group) and not quantized.issuperset(group) and failed.isdisjoint(group):
            left = [name for name in group if name not in quantized]
            yield Finding(
                message=f"{' and '.join(left)} {'is' if len(left) == 1 else 'are'} dense and the rest of the group is "
                "quantized; run times that fuse the group will refuse it",
                severity=Severity.WARN,
                where=left[0],
                hint="quantize the whole group or none of it",
            )


def _experts(experts: list[ModuleFact]) -> Iterator[Finding]:
    for kind, members in groupby(sorted(experts, key=_kind), key=_kind):
        modules = list(members)
        yield Finding(
            message=f"{len(modules)} expert weights {kind} are left in {modules[0].dtype}",
            where=modules[0].name,
            observed=modules[0].dtype,
            limit="quantized",
            hint="quantize them, or list them as kept; some methods (bitsandbytes) pass over fused experts",
        )


def _kind(module: ModuleFact) -> str:
    return pattern(module.name)


def _dense_layers(artifact: ArtifactFacts, dense: list[ModuleFact]) -> Iterator[Finding]:
    quantized = {_kind(module) for module in artifact.modules if module.quantized}
    for module in dense:
        everywhere = _kind(module) not in quantized
        if everywhere and not artifact.architecture_known:
            continue
        yield Finding(
            message=f"{module.name} is stored as {module.dtype}, the config says it is quantized",
            where=module.name,
            observed=module.dtype,
            limit="quantized",
            hint="quantize the layer, or list it among the skipped modules if it is meant to stay",
        )
    if artifact.architecture_known:
        return
    kinds: dict[str, list[ModuleFact]] = defaultdict(list)
    for module in dense:
        if _kind(module) not in quantized:
            kinds[_kind(module)].append(module)
    for kind, modules in kinds.items():
        yield Finding(
            message=f"all {len(modules)} of {kind} are dense; the architecture is not known, so this may be meant",
            severity=Severity.WARN,
            where=modules[0].name,
            observed=modules[0].dtype,
            hint="list them among the skipped modules if they are meant to stay",
        )


@check("layers.excluded", depth=Depth.STATIC)
def layers_excluded(artifact: ArtifactFacts) -> Verdict:
    """What the config or the architecture keeps dense is dense, and every entry of the skip list keeps something.

    transformers 5 matches an entry from the start of a module's name or at its very end; entries that worked in
    version 4 (``vision_tower``, ``self_attn``) may match nothing, and then the module is quantized after all. A skip
    list also replaces the default one, so that an output head not on it is quantized.
    """
    if not artifact.weights and not artifact.skip_entries:
        raise NotApplicable("no weight is quantized and the config lists no module to skip")
    for module in artifact.modules:
        if module.quantized and module.wanted is False:
            yield Finding(
                message=f"{module.name} is quantized although {module.reason}",
                where=module.name,
                observed="quantized",
                limit="dense",
                hint="keep it in 16 bit, or change what the config says of it",
            )
        if module.quantized and module.wanted is None and module.role == "head" and not module.reason:
            yield Finding(
                message=f"the output head {module.name} is quantized: the skip list replaces the default one",
                severity=Severity.WARN,
                where=module.name,
                observed="quantized",
                limit="dense",
                hint=f"add {module.name!r} to the skip list unless this is meant",
            )
    yield from _dead_entries([entry.entry for entry in artifact.skip_entries if not entry.matches])


def _dead_entries(entries: list[str]) -> Iterator[Finding]:
    """One warning each; one for all where a tool lists the same names for every model, whatever it has."""
    if len(entries) > MOST_ENTRIES:
        shown = ", ".join(map(repr, entries[:MOST_ENTRIES]))
        message = f"{len(entries)} entries of the skip list match no module: {shown} and others"
    for entry in entries[:1] if len(entries) > MOST_ENTRIES else entries:
        yield Finding(
            message=message if len(entries) > MOST_ENTRIES else f"the skip list's entry {entry!r} matches no module",
            severity=Severity.WARN,
            where=entry,
            observed="0 modules",
            limit="1 or more",
            hint="write the module's full name (model.vision_tower), or an expression that matches from its start",
        )


@check("layers.complete", depth=Depth.STATIC, guards_load=True)
def layers_complete(artifact: ArtifactFacts) -> Verdict:
    """Each quantized weight has all its companions, with the right dtype and shape, and a sound quantization state.

    A lost scale or a lost nesting of scales loads without a message and decodes to noise. Numbers of the state that
    contradict the tensors make kernels read out of bounds, so a failure here also keeps the model from being loaded.
    """
    if not artifact.weights:
        raise NotApplicable("no weight is stored in a known quantized form (see config.present)")
    for weight in artifact.weights:
        for flaw in weight.flaws:
            yield Finding(
                message=flaw.message,
                severity=flaw.severity,
                where=flaw.where or weight.weight,
                observed=flaw.observed,
                limit=flaw.expected,
                hint=flaw.hint,
            )
        yield from _companions(weight.module, weight.expected, artifact)


def _companions(module: str, expected: Iterable[ExpectedTensor], artifact: ArtifactFacts) -> Iterator[Finding]:
    for part in expected:
        stored = artifact.tensors.get(part.name)
        if stored is None and not part.optional:
            yield Finding(
                message=f"{part.name} is missing: {module} cannot be decoded",
                where=part.name,
                observed="missing",
                limit=f"{part.dtype} {_shape(part)}",
                hint="write the checkpoint again with the tool that quantized it; the file is not whole",
            )
        if stored is None or not part.companion:
            continue
        right_shape = part.shape is None or stored.shape == part.shape
        too_large = part.nbytes is None and stored.nbytes > part.max_bytes
        if stored.dtype != part.dtype or not right_shape or too_large:
            limit = f"{part.dtype} {_shape(part)}" if part.shape is not None else f"at most {part.max_bytes} bytes"
            yield Finding(
                message=f"{part.name} is {stored.dtype} {list(stored.shape)}, the layout asks for {limit}",
                where=part.name,
                observed=f"{stored.dtype} {list(stored.shape)}",
                limit=limit,
                hint="quantize the layer again; its scales do not belong to its codes",
            )


def _shape(part: ExpectedTensor) -> str:
    return str(list(part.shape)) if part.shape is not None else ""


@check("layers.tied", depth=Depth.STATIC)
def layers_tied(artifact: ArtifactFacts) -> Verdict:
    """Tied weights are stored once and are not quantized by accident.

    A quantized output head that is tied to the embedding loads with the embedding's 16-bit data in a quantized module
    and fails at the first forward. A second copy costs its memory again and may differ from the first.
    """
    if not artifact.tied:
        raise NotApplicable("the architecture and the config tie no weights")
    for tied in artifact.tied:
        if tied.quantized and not tied.allowed:
            yield Finding(
                message=f"{tied.name} is tied to {tied.source}, and one of them is quantized",
                where=tied.name,
                observed="quantized",
                limit="dense",
                hint="keep both dense, or untie them before quantizing (tie_word_embeddings: false)",
            )
        elif tied.stored:
            yield Finding(
                message=f"{tied.name} is tied to {tied.source} and yet stored as a second copy",
                severity=Severity.WARN,
                where=tied.name,
                observed="stored twice",
                limit="stored once",
                hint="save the model with save_pretrained, which leaves tied copies out",
            )


@check("layers.architecture", depth=Depth.STATIC, opt_in="--architecture")
def layers_architecture(architecture: ArchitectureFacts) -> Verdict:
    """The file holds just the tensors of the model that its config describes, in the right shapes.

    Runs with ``--architecture``, for it needs torch: the model is built on the meta device, without weights. What is
    missing would be initialised at random on loading, what is too many would be dropped, each with one line in a log.
    """
    for name in architecture.missing:
        yield Finding(
            message=f"{name} is not in the file; loading would initialise it at random",
            where=name,
            observed="missing",
            limit="stored",
            hint="does config.json belong to these weights (layers, tie_word_embeddings)?",
        )
    for flaw in architecture.mismatched:
        yield Finding(
            message=f"{flaw.where} has dense shape {flaw.observed}, the model's is {flaw.expected}",
            where=flaw.where,
            observed=flaw.observed,
            limit=flaw.expected,
            hint="does config.json belong to these weights?",
        )
    for name in architecture.unexpected:
        yield Finding(
            message=f"{name} belongs to no parameter of the model; loading would drop it",
            severity=Severity.WARN,
            where=name,
            observed="stored",
            limit="not stored",
        )


@check("layers.classes", depth=Depth.LOAD)
def layers_classes(structure: StructureFacts) -> Verdict:
    """Modules have the class of the method and hold a quantized weight; none was silently left or made dense.

    The expected set is every linear module of the model built on the meta device that the skip rules do not keep; for
    methods that plan module by module, every module whose weight the file holds packed. Packed experts that
    transformers joins into one parameter are unpacked by it, which is a warning.
    """
    for module in structure.modules:
        if module.expected and not module.quantized:
            yield Finding(
                message=f"{module.name} is loaded as {module.module_class} with a {module.weight_class} weight",
                where=module.name,
                observed=f"{module.module_class}, {module.weight_dtype}",
                limit=f"a quantized module of {structure.method}",
                hint="the layer runs dense; see layers.coverage for what the file stores",
            )
        elif module.quantized and not module.expected:
            yield Finding(
                message=f"{module.name} is loaded quantized, although config and architecture keep it dense",
                where=module.name,
                observed=module.module_class,
                limit="dense",
            )
    for name in structure.fused_experts:
        unpacked = name in structure.unpacked_experts
        yield Finding(
            message=f"the fused experts {name} are loaded dense",
            severity=Severity.WARN if unpacked else Severity.FAIL,
            where=name,
            observed="dense",
            limit=f"quantized by {structure.method}",
            hint="transformers unpacks experts that it joins into one parameter; other run times keep them packed"
            if unpacked
            else "the method passes over experts that transformers 5 holds as one parameter",
        )
