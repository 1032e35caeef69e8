"""Whether weights have the data types of their layout, in the file and in memory."""

from __future__ import annotations

from checker.domain import Depth, Finding, Severity
from checker.errors import NotApplicable
from checker.facts import ArtifactFacts, StructureFacts
from checker.registry import Verdict, check

DENSE = ("BF16", "F16", "F32", "F64")


@check("dtypes.storage", depth=Depth.STATIC, guards_load=True)
def dtypes_storage(artifact: ArtifactFacts) -> Verdict:
    """Each packed weight has exactly the dtype and packed shape of its layout; each matrix left over is floating point.

    A weight one block too short, or stored in another dtype than declared, is read past its end or cast to garbage.
    """
    if not artifact.weights:
        raise NotApplicable("no weight is stored in a known quantized form (see config.present)")
    for weight in artifact.weights:
        packed = next(part for part in weight.expected if not part.companion)
        stored = artifact.tensors.get(packed.name)
        if stored is not None and (stored.dtype != packed.dtype or stored.shape != packed.shape):
            yield Finding(
                message=f"{packed.name} is {stored.dtype} {list(stored.shape)}, its layout says {packed.dtype} "
                f"{list(packed.shape or ())}",
                where=packed.name,
                observed=f"{stored.dtype} {list(stored.shape)}",
                limit=f"{packed.dtype} {list(packed.shape or ())}",
                hint="quantize the layer again; codes and quantization state do not belong together",
            )
    parts = {part.name for weight in artifact.weights for part in weight.expected}
    for name, tensor in artifact.tensors.items():
        if name.endswith(".weight") and name not in parts and tensor.dtype not in DENSE:
            yield Finding(
                message=f"{name} is stored as {tensor.dtype} but belongs to no quantized layer",
                where=name,
                observed=tensor.dtype,
                limit=" or ".join(DENSE),
                hint="its scales are gone; quantize the layer again",
            )


@check("dtypes.loaded", depth=Depth.LOAD)
def dtypes_loaded(structure: StructureFacts) -> Verdict:
    """In memory: packed weights in their storage dtype, the declared compute dtype, dense weights as declared.

    Modules that the architecture keeps in float32 (``_keep_in_fp32_modules``: T5's ``wo``) are exempt where it says so.
    A compute dtype of float32 under 16-bit activations is slow and costs memory; it is bitsandbytes' default.
    """
    for module in structure.modules:
        if module.quantized and structure.storage_dtype and module.weight_dtype != structure.storage_dtype:
            yield Finding(
                message=f"{module.name} holds its codes as {module.weight_dtype}",
                where=module.name,
                observed=module.weight_dtype,
                limit=structure.storage_dtype,
            )
        declared = structure.declared_compute_dtype
        if module.quantized and declared and module.compute_dtype not in (None, "None", declared):
            yield Finding(
                message=f"{module.name} computes in {module.compute_dtype}, the config says {declared}",
                where=module.name,
                observed=module.compute_dtype,
                limit=declared,
            )
    for parameter in structure.dense:
        if parameter.dtype != parameter.expected:
            yield Finding(
                message=f"{parameter.name} is loaded as {parameter.dtype}; {parameter.expected} is declared",
                severity=Severity.WARN,
                where=parameter.name,
                observed=parameter.dtype,
                limit=parameter.expected,
                hint="load with dtype='auto', or save the model in the dtype that is meant",
            )
