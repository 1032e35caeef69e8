"""What config.json and the tensor headers say about a checkpoint: no torch, no tensor data but small state blobs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

from checker.architecture import Architecture, architecture_of, counterpart, fused_groups
from checker.checkpoint import Checkpoint, Problem
from checker.domain import Json
from checker.facts import ArtifactFacts, Flaw, StoredWeight, TensorFact, TiedFact
from checker.inventory import Inventory
from checker.probes.memory import predict_memory
from checker.probes.modules import find_modules, skip_entries
from checker.registry import Method, all_methods, config_flaws, method_declared


def gather_artifact(checkpoint: Checkpoint, baseline: Checkpoint | None) -> ArtifactFacts:
    """The artifact facts of a checkpoint; ``baseline`` gives the dense shapes where there is one."""
    checkpoint = _named(checkpoint)
    baseline = _named(baseline) if baseline is not None else None
    config = checkpoint.config or {}
    key, quantization_config = find_quantization_config(config)
    architecture = architecture_of(config)
    declared = method_declared(quantization_config) if quantization_config is not None else None
    stored, weights = recognise(checkpoint, declared, quantization_config)
    modules = find_modules(checkpoint, weights, architecture, declared, quantization_config)
    attributes = _declared_attributes(declared, quantization_config, config)
    return ArtifactFacts(
        flaws=tuple(map(_flaw, checkpoint.problems)),
        config=checkpoint.config,
        config_key=key,
        quantization_config=quantization_config,
        declared_method=declared.id if declared else None,
        stored_method=stored.id if stored else None,
        known_methods=tuple(sorted({method.quant_method for method in all_methods()})),
        key_flaws=(*_key_flaws(declared, quantization_config), *_rival_flaws(config)),
        declared=attributes,
        roundtrip=_roundtrip(quantization_config),
        tensors={
            name: TensorFact(name=name, dtype=header.dtype, shape=header.shape, nbytes=header.nbytes)
            for name, header in checkpoint.tensors.items()
        },
        weights=weights,
        modules=modules,
        skip_entries=skip_entries(checkpoint, architecture, declared, quantization_config),
        tied=_tied(checkpoint, architecture, weights, declared),
        fused_groups=fused_groups(module.name for module in modules),
        architecture=architecture.name,
        architecture_known=architecture.known,
        stored_dense=declared.stored_dense(quantization_config) if declared and quantization_config else "",
        memory=predict_memory(checkpoint, baseline, weights, modules, _maker(declared, stored), attributes),
    )


def _maker(declared: Method | None, stored: Method | None) -> Method | None:
    """The method whose bytes are predicted: the declared one, unless the tensors are of quite another kind."""
    if declared is None or (stored is not None and stored.quant_method != declared.quant_method):
        return stored
    return declared


def _named(checkpoint: Checkpoint) -> Checkpoint:
    """Without tensors of unprintable names: files.valid reports them, escaped, and no other message could hold them."""
    tensors = {name: header for name, header in checkpoint.tensors.items() if name.isprintable()}
    return replace(checkpoint, tensors=tensors)


def find_quantization_config(config: Mapping[str, Json]) -> tuple[str, Mapping[str, Json] | None]:
    """Where transformers finds the ``quantization_config``: at the top level or in ``text_config``; or MLX's."""
    text = config.get("text_config")
    places = (("quantization_config", config), ("text_config.quantization_config", text), ("quantization", config))
    for key, place in places:  # the last is where MLX writes it
        value = place.get(key.rpartition(".")[2]) if isinstance(place, Mapping) else None
        if isinstance(value, Mapping):
            return key, value
        if value is not None:  # a list or a string: present, and no method will declare it
            return key, {}
    return "", None


def recognise(
    checkpoint: Checkpoint, declared: Method | None, quantization_config: Mapping[str, Json] | None
) -> tuple[Method | None, tuple[StoredWeight, ...]]:
    """The method whose tensors are stored, and its weights; the declared one wins when several recognise as many."""
    inventory = Inventory(checkpoint)
    found: list[tuple[Method, tuple[StoredWeight, ...]]] = []
    for method in all_methods():
        seen = inventory.declared_by(quantization_config if method is declared else None)
        weights = method.recognise(seen)
        if weights:
            found.append((method, weights))
    if not found:
        return None, ()
    return max(found, key=lambda item: (len(item[1]), item[0] is declared))


def _flaw(problem: Problem) -> Flaw:
    place = f"{problem.file}: {problem.where}" if problem.where and problem.file else problem.where or problem.file
    message = problem.message if problem.file in problem.message else f"{problem.file}: {problem.message}"
    return Flaw(message=message, where=place, severity=problem.severity, hint=problem.hint)


def _key_flaws(declared: Method | None, quantization_config: Mapping[str, Json] | None) -> tuple[Flaw, ...]:
    if declared is None or quantization_config is None:
        return ()
    return tuple(
        Flaw(where=key, message=message, observed=quantization_config.get(key))
        for key, message in config_flaws(declared, quantization_config)
    )


def _rival_flaws(config: Mapping[str, Json]) -> Iterator[Flaw]:
    """Where MLX's own ``quantization`` says otherwise than the ``quantization_config``: each has its reader."""
    ours, theirs = config.get("quantization_config"), config.get("quantization")
    if not isinstance(ours, Mapping) or not isinstance(theirs, Mapping):
        return
    for key in ("bits", "group_size", "mode"):
        if key in ours and key in theirs and ours[key] != theirs[key]:
            here, there = (ascii(value[key])[:80] for value in (ours, theirs))
            yield Flaw(where=key, message=f"{key} is {here} here and {there} in quantization, which MLX reads")


def _declared_attributes(
    declared: Method | None, quantization_config: Mapping[str, Json] | None, config: Mapping[str, Json]
) -> dict[str, Json]:
    if declared is None or quantization_config is None:
        return {}
    attributes = declared.declared(quantization_config)
    dtype = config.get("dtype", config.get("torch_dtype"))
    return {**attributes, "dense_dtype": dtype} if isinstance(dtype, str) else attributes


def _roundtrip(quantization_config: Mapping[str, Json] | None) -> Mapping[str, Json] | None:
    if quantization_config is None:
        return None
    again: Mapping[str, Json] = json.loads(json.dumps(dict(quantization_config), sort_keys=True))
    return again


def _tied(
    checkpoint: Checkpoint, architecture: Architecture, weights: tuple[StoredWeight, ...], method: Method | None
) -> tuple[TiedFact, ...]:
    """The tensors that the architecture ties; patterns with numbers are left to the load depth."""
    quantized = {weight.dense for weight in weights}
    return tuple(
        TiedFact(
            name=name,
            source=source,
            stored=name in checkpoint.tensors and counterpart(source, checkpoint.tensors) is not None,
            quantized=name in quantized or source in quantized,
            allowed=method is not None and method.ties_quantized and name not in quantized,
        )
        for name, source in architecture.tied.items()
        if "*" not in name and name.endswith(".weight")
    )
