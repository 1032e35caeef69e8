"""Whether the ``quantization_config`` is there, is understood, and says what the tensors say."""

from __future__ import annotations

import difflib
import json
from collections import defaultdict
from collections.abc import Iterator

from checker.domain import Depth, ErrorKind, Finding, Json, Severity
from checker.errors import NotApplicable, Unavailable
from checker.facts import ArtifactFacts, LoadFacts, StoredWeight
from checker.registry import Verdict, check


@check("config.present", depth=Depth.STATIC)
def config_present(artifact: ArtifactFacts) -> Verdict:
    """Packed tensors and a ``quantization_config`` come together, at the top level or in ``text_config``.

    Without the config the packed bytes load as garbage or not at all; with the config but dense tensors the model loads
    without a word, reports ``is_quantized`` and takes the memory of the original.
    """
    if artifact.config is None:
        raise Unavailable("config.json could not be read (see files.valid)", ErrorKind.NOT_RUN)
    if artifact.stored_method and artifact.quantization_config is None:
        first = artifact.weights[0].weight
        yield Finding(
            message=f"{len(artifact.weights)} weights are packed ({artifact.stored_method}); config.json is silent",
            where=first,
            observed="no quantization_config",
            limit="a quantization_config",
            hint="restore the quantization_config in config.json; without it the packed bytes are read as weights",
        )
    if artifact.declared_method and not artifact.stored_method and artifact.tensors and not artifact.stored_dense:
        yield Finding(
            message=f"config.json declares {artifact.declared_method}, but no weight is quantized",
            where=artifact.config_key,
            observed="only dense tensors",
            limit="packed tensors",
            hint="quantize the model, or remove the quantization_config: as it is, no memory is saved",
        )
    if artifact.declared_method and not artifact.stored_method and artifact.stored_dense:
        yield Finding(
            message=f"nothing is packed: {artifact.stored_dense}; no memory is saved",
            severity=Severity.WARN,
            where=artifact.config_key,
            observed="only dense tensors",
        )
    if artifact.quantization_config is None and not artifact.stored_method and artifact.tensors:
        yield Finding(
            message="the checkpoint is not quantized: no quantization_config, and no packed tensor of a known method",
            observed="a dense model",
            limit="a quantized one",
            hint="name the baseline as baseline, and as checkpoint what was quantized from it",
        )


@check("config.method", depth=Depth.STATIC)
def config_method(artifact: ArtifactFacts) -> Verdict:
    """The declared method is known. transformers loads a model of an unknown method as dense, with a log line."""
    config = _config(artifact)
    name = config.get("quant_method")
    if artifact.declared_method is not None:
        return
    near = difflib.get_close_matches(str(name), artifact.known_methods, n=1)
    known = ", ".join(artifact.known_methods)
    yield Finding(
        message=f"quant_method {str(name)[:60]!r} is not known" if name is not None else "quant_method is missing",
        where=artifact.config_key,
        observed=name if isinstance(name, str) else repr(name)[:60],
        limit=known,
        hint=f"did you mean {near[0]!r}?" if near else "transformers would load such a model as dense",
    )


@check("config.keys", depth=Depth.STATIC)
def config_keys(artifact: ArtifactFacts) -> Verdict:
    """No unknown key, and every value in its domain: upstream drops ``bnb_4bit_quant_typo`` and quantizes to fp4."""
    _config(artifact)
    for flaw in artifact.key_flaws:
        yield Finding(
            message=flaw.message,
            where=f"{artifact.config_key}.{flaw.where}",
            observed=flaw.observed,
            hint="correct or remove the key",
        )


@check("config.truthful", depth=Depth.STATIC)
def config_truthful(artifact: ArtifactFacts) -> Verdict:
    """The declared method, bits, block size, type and double quantization are those of the stored tensors.

    Compared weight by weight: a config that says nf4 over fp4 data loads and computes something else.
    """
    _config(artifact)
    if not artifact.weights:
        raise NotApplicable("no weight is stored in a known quantized form (see config.present)")
    if artifact.declared_method is None:
        raise NotApplicable("the declared method is not known (see config.method)")
    if artifact.declared_method != artifact.stored_method:
        yield Finding(
            message=f"config.json declares {artifact.declared_method}, the tensors are {artifact.stored_method}",
            where=artifact.weights[0].weight,
            observed=artifact.stored_method,
            limit=artifact.declared_method,
            hint="the config belongs to another checkpoint; restore the right one",
        )
        return
    declared = {module.weight: module.declared for module in artifact.modules if module.declared}
    wrong: dict[tuple[str, str], list[StoredWeight]] = defaultdict(list)
    for weight in artifact.weights:
        for attribute, value in {**artifact.declared, **declared.get(weight.weight, {})}.items():
            if weight.attributes.get(attribute, value) != value:
                wrong[attribute, json.dumps(value)].append(weight)
    for (attribute, value), weights in wrong.items():
        yield from _disagreements(attribute, json.loads(value), weights, len(artifact.weights))


def _disagreements(attribute: str, declared: Json, wrong: list[StoredWeight], total: int) -> Iterator[Finding]:
    """One finding for each stored value that differs from the declared one, naming the first weight that has it."""
    groups: dict[str, list[StoredWeight]] = defaultdict(list)
    for weight in wrong:
        groups[json.dumps(weight.attributes[attribute])].append(weight)
    for weights in groups.values():
        first = weights[0]
        value = first.attributes[attribute]
        yield Finding(
            message=f"{attribute}: config.json says {declared}, "
            f"{len(weights)} of {total} weights are stored with {value}",
            # the dense dtype decides the type of results, the storage how bytes are held, neither what the codes mean
            severity=Severity.WARN if attribute in ("dense_dtype", "storage") else Severity.FAIL,
            where=first.weight,
            observed=value,
            limit=declared,
            hint="correct config.json, or quantize the layers again with these settings",
        )


@check("config.roundtrip", depth=Depth.STATIC)
def config_roundtrip(artifact: ArtifactFacts, load: LoadFacts | None) -> Verdict:
    """The ``quantization_config`` survives dict → JSON → dict, and at depth load the library's config class as well.

    What the class drops or changes is what the next ``save_pretrained`` writes.
    """
    config = _config(artifact)
    again = artifact.roundtrip or {}
    for key in sorted({*config, *again}):
        if config.get(key) != again.get(key):
            yield Finding(
                message=f"{key} does not survive JSON",
                where=f"{artifact.config_key}.{key}",
                observed=again.get(key),
                limit=config.get(key),
            )
    for flaw in load.config_roundtrip if load else ():
        yield Finding(
            message=flaw.message,
            severity=flaw.severity,
            where=f"{artifact.config_key}.{flaw.where}",
            observed=flaw.observed,
            limit=flaw.expected,
            hint=flaw.hint,
        )


def _config(artifact: ArtifactFacts) -> dict[str, Json]:
    if artifact.config is None:
        raise Unavailable("config.json could not be read (see files.valid)", ErrorKind.NOT_RUN)
    if artifact.quantization_config is None:
        raise NotApplicable("there is no quantization_config (see config.present)")
    return dict(artifact.quantization_config)
