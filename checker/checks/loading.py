"""Whether transformers loads the checkpoint, whole, and really quantized."""

from __future__ import annotations

from checker.domain import Depth, Finding, Severity
from checker.facts import DenseParameter, LoadedModule, LoadFacts, StructureFacts
from checker.registry import Verdict, check


@check("loading.keys", depth=Depth.LOAD)
def loading_keys(load: LoadFacts) -> Verdict:
    """The checkpoint loads with the class its config names, and no key is missing, unexpected or of another shape.

    transformers initialises missing weights at random and drops unexpected ones; both are one line in a log.
    """
    if load.flaw:
        yield Finding(
            message=f"the checkpoint does not load: {load.flaw}",
            observed=load.exception,
            limit="loads",
            hint="see the findings of the static checks for the cause; where they find none, these versions of the "
            "libraries cannot load such a file; --verbose shows the traceback",
        )
        return
    groups = (
        (load.missing_keys, "is missing and was initialised at random", Severity.FAIL),
        (load.mismatched_keys, "has another shape than the model", Severity.FAIL),
        (load.unexpected_keys, "belongs to no parameter of the model and was dropped", Severity.WARN),
    )
    for keys, what, severity in groups:
        for key in keys:
            yield Finding(
                message=f"{key} {what}", severity=severity, where=key, hint="compare the file with the config"
            )


@check("loading.quantized", depth=Depth.LOAD)
def loading_quantized(load: LoadFacts, structure: StructureFacts) -> Verdict:
    """Modules really are quantized, before and after the first forward, and sit on the device asked for.

    ``model.is_quantized`` is set before any layer is replaced, and stays set when none is; so the replaced modules are
    counted. Nothing may sit on the meta device, on disk or on another device than the one asked for.
    """
    before, after = structure.before, structure.after
    if not before.quantized_modules and not structure.stored_dense:
        yield Finding(
            message=f"no module is quantized, although is_quantized is {load.is_quantized}",
            observed=0,
            limit=sum(module.expected for module in structure.modules),
            unit="modules",
            hint="the skip list, the device map or the model's own linear classes kept every layer from being replaced",
        )
    if not load.is_quantized or load.quantizer is None:
        yield Finding(
            message="the loaded model says it is not quantized: the method was dropped or the weights were dequantized",
            observed=f"is_quantized={load.is_quantized}, hf_quantizer={load.quantizer}",
            limit="a quantizer",
            hint="the method may not be supported on this device; transformers then dequantizes with one log line",
        )
    lost = load.is_quantized and not structure.is_quantized_after
    if after is not None and (after.quantized_modules != before.quantized_modules or lost):
        yield Finding(
            message=f"{before.quantized_modules} modules were quantized, {after.quantized_modules} after one forward",
            observed=after.quantized_modules,
            limit=before.quantized_modules,
            unit="modules",
            hint="the method unpacks its weights at the first forward",
        )
    wanted = structure.device.partition(":")[0]
    items: tuple[LoadedModule | DenseParameter, ...] = (*structure.modules, *structure.dense)
    for item in items:
        if item.device.partition(":")[0] != wanted:
            yield Finding(
                message=f"{item.name} is on {item.device}",
                where=item.name,
                observed=item.device,
                limit=structure.device,
                hint="it was offloaded or never materialised; is there enough memory?",
            )
