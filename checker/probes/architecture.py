"""The tensors of a file against those of the model that its config describes, without loading either."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from checker.architecture import counterpart
from checker.errors import NotApplicable, Unavailable
from checker.facts import ArchitectureFacts, ArtifactFacts, Flaw
from checker.probes.load import one_line
from checker.probes.skeleton import build_skeleton, import_transformers, read_config
from checker.registry import Method


def gather_architecture(
    folder: Path, artifact: ArtifactFacts, method: Method | None, *, trust_remote_code: bool
) -> ArchitectureFacts:
    """Build the model on the meta device and compare its parameters with the file's, dense shape by dense shape.

    Raises:
        NotApplicable: transformers renames or merges this architecture's tensors when it loads them.
        Unavailable: the config describes no model that transformers can build.
    """
    import_transformers()
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    try:
        config = read_config(folder, trust_remote_code=trust_remote_code)
        skeleton = build_skeleton(
            config, method, artifact.quantization_config or {}, trust_remote_code=trust_remote_code
        )
    except (AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise Unavailable(f"the architecture cannot be built: {one_line(error)}") from error
    if get_checkpoint_conversion_mapping(config.model_type):
        raise NotApplicable(f"transformers renames tensors of {config.model_type} as it loads them; use depth load")
    expected = {name: tuple(tensor.shape) for name, tensor in skeleton.model.state_dict().items()}
    tied = {name for pair in (skeleton.model.all_tied_weights_keys or {}).items() for name in pair}
    return compare(artifact, expected, tied, skeleton.model)


def compare(
    artifact: ArtifactFacts, expected: Mapping[str, tuple[int, ...]], tied: set[str], model: Any
) -> ArchitectureFacts:
    """What the file lacks, what it holds too many, and what has another shape. One of several tied tensors suffices."""
    companions = {part.name for weight in artifact.weights for part in weight.expected if part.companion}
    dense = {weight.weight: weight.shape for weight in artifact.weights}
    stored = {name: dense.get(name, fact.shape) for name, fact in artifact.tensors.items() if name not in companions}
    found = {name: here for name in expected if (here := counterpart(name, stored)) is not None}
    absent = [name for name in expected if name not in found and not (name in tied and tied & found.keys())]
    extra = stored.keys() - set(found.values())
    return ArchitectureFacts(
        missing=tuple(_without(absent, getattr(model, "_keys_to_ignore_on_load_missing", None))),
        unexpected=tuple(_without(sorted(extra), getattr(model, "_keys_to_ignore_on_load_unexpected", None))),
        mismatched=tuple(
            Flaw(message="", where=here, observed=list(shape), expected=list(expected[name]))
            for name, here in found.items()
            if (shape := stored[here]) is not None and shape not in (expected[name], expected[name][::-1])
        ),
    )


def _without(names: Iterable[str], ignored: Iterable[str] | None) -> list[str]:
    return [name for name in names if not any(re.search(pattern, name) for pattern in ignored or ())]
