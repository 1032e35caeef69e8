"""The loaded model in memory: classes, dtypes, devices, and bytes that ``get_memory_footprint()`` does not see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from checker.facts import ArtifactFacts, DenseParameter, LoadedModule, Snapshot, StructureFacts
from checker.probes.skeleton import Skeleton, is_linear
from checker.registry import Method

# 4-bit absmax, code books and nested state, SCB: what the file holds beside the packed weight and memory keeps
IN_MEMORY = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".SCB")


def gather_structure(
    model: Any, skeleton: Skeleton, artifact: ArtifactFacts, method: Method, device: str, forward: Callable[[], str]
) -> StructureFacts:
    """Look at the model, run ``forward`` once (it returns why it failed, or ""), and look again."""
    before = take_snapshot(model, method)
    modules = tuple(_modules(model, skeleton, method))
    dense = tuple(_dense(model, skeleton, modules))
    footprint, true_bytes = predict_bytes(skeleton, artifact)
    forward_flaw = forward()
    declared = (artifact.quantization_config or {}).get("bnb_4bit_compute_dtype")
    storage = {weight.attributes.get("storage") for weight in artifact.weights}
    return StructureFacts(
        method=method.id,
        modules=modules,
        fused_experts=tuple(name for name in skeleton.fused_experts if model.get_parameter(name).is_floating_point()),
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


_TORCH_NAMES = {"U8": "uint8", "I8": "int8", "BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


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


def _modules(model: Any, skeleton: Skeleton, method: Method) -> Iterator[LoadedModule]:
    """Every module that is quantized, or is expected to be."""
    inspect = method.inspect_module or (lambda _: None)
    expected = set(skeleton.quantizable)
    for name, module in model.named_modules():
        weight = inspect(module)
        if weight is None and name not in expected:
            continue
        stored = getattr(module, "weight", None)
        yield LoadedModule(
            name=name,
            module_class=type(module).__name__,
            weight_class=type(stored).__name__,
            weight_dtype=weight.weight_dtype if weight else _dtype(stored),
            quantized=weight is not None,
            expected=name in expected,
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


def predict_bytes(skeleton: Skeleton, artifact: ArtifactFacts) -> tuple[int, int]:
    """What ``get_memory_footprint()`` must read, and the true bytes: packed weights as stored, the rest as built.

    The footprint counts parameters and buffers (non-persistent ones too), ties once. The truth adds the companions that
    stay in memory, and a 4-byte offset for each doubly quantized weight.
    """
    packed = {weight.weight: weight for weight in artifact.weights}
    kept = set(skeleton.kept_in_float32)
    footprint = sum(buffer.numel() * buffer.element_size() for buffer in skeleton.model.buffers())
    for name, parameter in skeleton.model.named_parameters():
        if name in packed and is_linear(skeleton.model.get_submodule(name.rpartition(".")[0])):
            footprint += artifact.tensors[name].nbytes
        else:
            footprint += parameter.numel() * (4 if name in kept else parameter.element_size())
    companions = sum(
        part.nbytes or 0
        for weight in packed.values()
        for part in weight.expected
        if part.name.endswith(IN_MEMORY) and part.name in artifact.tensors
    )
    offsets = sum(4 for weight in packed.values() if weight.attributes.get("double_quantization"))
    return footprint, footprint + companions + offsets


def _dtype(tensor: Any) -> str:
    return str(getattr(tensor, "dtype", "none")).removeprefix("torch.")
