"""The loaded model in memory: classes, dtypes, devices, and bytes that ``get_memory_footprint()`` does not see."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from checker.facts import ArtifactFacts, DenseParameter, LoadedModule, Snapshot, StoredWeight, StructureFacts
from checker.probes.expected import Expected, what_to_expect
from checker.probes.skeleton import Skeleton
from checker.registry import Method

# 4-bit absmax, code books and nested state, SCB: what the file holds beside the packed weight and memory keeps
IN_MEMORY = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".SCB")


def gather_structure(
    model: Any, skeleton: Skeleton, artifact: ArtifactFacts, method: Method, device: str, forward: Callable[[], str]
) -> StructureFacts:
    """Look at the model, run ``forward`` once (it returns why it failed, or ""), and look again."""
    before = take_snapshot(model, method)
    expected = what_to_expect(skeleton, artifact, method)
    modules = tuple(_modules(model, expected, method))
    dense = tuple(_dense(model, skeleton, modules))
    fused = tuple(name for name in expected.fused_experts if model.get_parameter(name).is_floating_point())
    footprint, true_bytes = predict_bytes(model, skeleton, artifact, expected)
    forward_flaw = forward()
    declared = (artifact.quantization_config or {}).get("bnb_4bit_compute_dtype")
    storage = {_storage(weight, artifact) for weight in artifact.weights}
    return StructureFacts(
        method=method.id,
        modules=modules,
        fused_experts=fused,
        unpacked_experts=fused if method.planner is not None else (),
        stored_dense=artifact.stored_dense,
        dense=dense,
        declared_compute_dtype=declared if isinstance(declared, str) else None,
        storage_dtype=_TORCH_NAMES.get(str(next(iter(storage)))) if len(storage) == 1 else None,
        device=device,
        before=before,
        after=None if forward_flaw else take_snapshot(model, method),
        forward_flaw=forward_flaw,
        predicted_footprint=footprint,
        predicted_true_bytes=true_bytes,
        is_quantized_after=bool(getattr(model, "is_quantized", False)),
    )


_TORCH_NAMES = {
    "U8": "uint8", "I8": "int8", "I32": "int32", "F8_E4M3": "float8_e4m3fn",
    "BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64",
}  # fmt: skip


def _storage(weight: StoredWeight, artifact: ArtifactFacts) -> str:
    """The dtype that a weight's codes have in the file."""
    stored = artifact.tensors.get(weight.weight)
    return str(weight.attributes.get("storage") or (stored.dtype if stored is not None else ""))


def take_snapshot(model: Any, method: Method) -> Snapshot:
    """Footprint, true bytes (every tensor once, by address) and the number of quantized modules, now."""
    inspect = method.inspect_module or (lambda _: None)
    seen: dict[tuple[str, int, int], int] = {}
    count = 0
    tensors = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        weight = inspect(module)
        if weight is not None:
            count += 1
            tensors.extend(weight.state)
    for tensor in tensors:
        nbytes = tensor.numel() * tensor.element_size()
        seen[(str(tensor.device), tensor.data_ptr() or id(tensor), nbytes)] = nbytes
    return Snapshot(footprint=model.get_memory_footprint(), true_bytes=sum(seen.values()), quantized_modules=count)


def _modules(model: Any, expected: Expected, method: Method) -> Iterator[LoadedModule]:
    """Every module that is quantized, or is expected to be."""
    inspect = method.inspect_module or (lambda _: None)
    for name, module in model.named_modules():
        weight = inspect(module)
        if weight is None and name not in expected.modules:
            continue
        stored = getattr(module, "weight", next(module.parameters(recurse=False), None))  # some name it otherwise
        yield LoadedModule(
            name=name,
            module_class=type(module).__name__,
            weight_class=type(stored).__name__,
            weight_dtype=weight.weight_dtype if weight else _dtype(stored),
            quantized=weight is not None,
            expected=name in expected.modules,
            device=str(getattr(stored, "device", "none")),
            compute_dtype=weight.compute_dtype if weight else None,
        )


def _dense(model: Any, skeleton: Skeleton, modules: tuple[LoadedModule, ...]) -> Iterator[DenseParameter]:
    """Dense parameters with the dtype they have and the one the model's config gives them."""
    quantized = {f"{module.name}.weight" for module in modules if module.quantized}
    expected = {name: _dtype(parameter) for name, parameter in skeleton.model.named_parameters()}
    expected |= dict.fromkeys(skeleton.kept_in_float32, "float32")
    for name, parameter in model.named_parameters():
        if name not in quantized and name in expected:
            yield DenseParameter(
                name=name, dtype=_dtype(parameter), expected=expected[name], device=str(parameter.device)
            )


def predict_bytes(model: Any, skeleton: Skeleton, artifact: ArtifactFacts, expected: Expected) -> tuple[int, int]:
    """What ``get_memory_footprint()`` must read, and the true bytes: packed weights as stored, the rest as built.

    The footprint counts parameters and buffers (non-persistent ones too), ties once; so also the companions that the
    method makes parameters. The truth adds those that it keeps elsewhere, and a 4-byte offset for each doubly quantized
    weight.
    """
    kept = set(skeleton.kept_in_float32)
    footprint = sum(buffer.numel() * buffer.element_size() for buffer in skeleton.model.buffers())
    elsewhere = 0
    for name, parameter in skeleton.model.named_parameters():
        weight = expected.packed.get(name)
        if weight is None:
            footprint += parameter.numel() * (4 if name in kept else parameter.element_size())
            continue
        held, beside = _companion_bytes(model, name, weight, artifact, parameter.element_size())
        footprint += artifact.tensors[weight.weight].nbytes + held
        elsewhere += beside
    footprint += _other_bytes(model, skeleton, artifact)
    return footprint, footprint + elsewhere


def _other_bytes(model: Any, skeleton: Skeleton, artifact: ArtifactFacts) -> int:
    """Bytes of what the method has added to dense modules and the file holds: scales of weights rounded as they run."""
    known = {part.name for weight in artifact.weights for part in weight.expected}
    known |= {name for name, _ in (*skeleton.model.named_parameters(), *skeleton.model.named_buffers())}
    return sum(
        stored.nbytes
        for name, stored in artifact.tensors.items()
        if name not in known and _holds(model, name.rpartition(".")[0], name.rpartition(".")[2])
    )


def _companion_bytes(
    model: Any, parameter: str, weight: StoredWeight, artifact: ArtifactFacts, item: int
) -> tuple[int, int]:
    """Bytes of a weight's companions: those that are parameters or buffers, and those that memory keeps elsewhere.

    ``item``: bytes of a number of the dense weight, whose dtype scales take; scales of scales stay in float32.
    """
    held = 0
    beside = 4 if weight.attributes.get("double_quantization") else 0
    place = parameter.rpartition(".")[0]
    for part in weight.expected:
        stored = artifact.tensors.get(part.name)
        if stored is None or not part.companion:
            continue
        owner, _, last = part.name.rpartition(".")
        where = place if owner == weight.module else place.rpartition(".")[0]  # scales of a cache belong to attention
        if part.name.endswith(IN_MEMORY):
            beside += stored.nbytes
        elif _holds(model, where, last):
            takes_dtype = stored.dtype in ("BF16", "F16", "F32") and "global" not in last
            held += math.prod(stored.shape) * item if takes_dtype else stored.nbytes
    return held, beside


def _holds(model: Any, module: str, name: str) -> bool:
    """Whether a module of the loaded model has a parameter or a buffer of a name."""
    try:
        found = model.get_submodule(module)
    except AttributeError:
        return False
    return name in found._parameters or name in found._buffers  # noqa: SLF001 - the public ways make lists of them


def _dtype(tensor: Any) -> str:
    return str(getattr(tensor, "dtype", "none")).removeprefix("torch.")
