"""compressed-tensors: what llm-compressor writes; groups of modules, each with its own scheme and format.

Stored per layer, by format (compressed_tensors/compressors, 0.20): **pack-quantized** ``weight_packed`` I32, integers
of 1 to 8 bits packed along the columns, low bits first, ``weight_shape`` I64 [2], ``weight_zero_point`` packed along
the rows where asymmetric, ``weight_g_idx`` I32 [in] where GPTQ kept an activation order (written until 2025).
**int-quantized**, **float-quantized**, **naive-quantized** ``weight`` I8 or F8_E4M3 [out, in].
**nvfp4-pack-quantized** ``weight_packed`` U8, two E2M1 codes a byte, F8_E4M3 scales of 16, ``weight_global_scale`` F32.
**mxfp4-** and **mxfp6-pack-quantized**, **mxfp8-quantized** with U8 exponents of 32 values. **dense** keeps weights as
they are. All have ``weight_scale``: one for the matrix, a row, a group, or a block (the last may be partial).
Calibrated activations add ``input_scale`` (``input_zero_point``, ``input_global_scale``), a calibrated cache
``k_scale`` and ``v_scale`` beside the projections.

Decoded: (code − zero point) · scale, integers less 2^(bits − 1) where packed; NVFP4 divides scales by the global scale;
MX scales are 2^(exponent − 127). Layers that run times fuse share one global scale. A sparse format is named, not
judged. Headers cannot tell how the codes were found: GPTQ and AWQ are allowed more error, and rotated weights
(SpinQuant, QuIP; ``transform_config``) are not compared. Papers: arXiv:2210.17323 (GPTQ), arXiv:2306.00978 (AWQ),
arXiv:2211.10438 (SmoothQuant), OCP MX 1.0.

Loaded with transformers 5.23: codes stay packed until the first forward, which unpacks them all to the model's dtype
(so that no memory is saved there); joined experts are unpacked while they are loaded. compressed-tensors 0.18 to 0.20
cannot load packed weights with zero points, 0.19 and 0.20 refuse ``actorder: group``; 0.15 to 0.17 load both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from checker.checkpoint import Checkpoint
from checker.domain import Json, Limit
from checker.facts import StoredWeight
from checker.inventory import Inventory
from checker.methods._compressed_tensors_config import KEYS, contradictions
from checker.methods._compressed_tensors_layout import FLOATS, layout
from checker.methods._compressed_tensors_plan import Plan, activations, listed, planner, stored_dense
from checker.methods._compressed_tensors_stored import MATRIX, Reader
from checker.methods._name_rules import same_module
from checker.registry import LoadedWeight, Method, register_method

if TYPE_CHECKING:
    from checker.coded import CodedWeight, Window

CODES = ("I8", "F8_E4M3")


def _declares(config: Mapping[str, Json]) -> bool:
    named = config.get("quant_method")
    return named == "compressed-tensors" or (named is None and isinstance(config.get("config_groups"), dict))


def _declared(config: Mapping[str, Json]) -> dict[str, Json]:
    scheme = Plan(config).only
    return scheme.declared() if scheme is not None else {}


def _recognise(inventory: Inventory) -> tuple[StoredWeight, ...]:
    modules = tuple(dict.fromkeys(_modules(inventory)))
    if not modules:
        return ()
    reader = Reader(inventory)
    return tuple(reader.read(module) for module in modules)


def _modules(inventory: Inventory) -> Iterator[str]:
    """Packed weights, codes with a scale; where the method is declared, also what has lost its scale or its codes."""
    for module in inventory.modules("weight_packed"):
        header = inventory.tensors[f"{module}.weight_packed"]
        companions = ("weight_scale", "weight_shape", "weight_global_scale")
        if header.dtype in ("I32", "U8") and any(inventory.header(module, part) is not None for part in companions):
            yield module
    declared = inventory.config is not None
    for module in inventory.modules("weight_scale"):
        weight = inventory.header(module, "weight")
        if weight is not None and weight.dtype in CODES and len(weight.shape) == MATRIX:
            scale = inventory.tensors[f"{module}.weight_scale"]
            if declared or scale.dtype in (*FLOATS, "U8"):
                yield module
        elif declared and weight is None:
            yield module
    if declared:
        for module in inventory.modules("weight"):
            weight = inventory.tensors[f"{module}.weight"]
            if weight.dtype in CODES and len(weight.shape) == MATRIX:
                yield module


def _skips(config: Mapping[str, Json]) -> tuple[str, ...] | None:
    """None: ``ignore`` has its own rules, which the planner applies."""
    del config
    return None


def _decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    from checker.methods._compressed_tensors_numbers import decode

    return decode(checkpoint, weight, window)


def _inspect_module(module: Any) -> LoadedWeight | None:
    from checker.methods._compressed_tensors_modules import inspect

    return inspect(module)


register_method(
    Method(
        id="compressed-tensors",
        quant_method="compressed-tensors",
        documentation=__doc__ or "",
        keys=KEYS,
        open_keys=True,
        declares=_declares,
        declared=_declared,
        recognise=_recognise,
        layout=layout,
        skips=_skips,
        planner=planner,
        entry_matches=same_module,
        listed=listed,
        stored_dense=stored_dense,
        contradictions=contradictions,
        activations=activations,
        decode=_decode,
        inspect_module=_inspect_module,
        rescales=True,
        limits={
            # GPTQ moves weights before it rounds them: more error, and a tenth of the groups may miss an extreme code
            "weights.error.R": Limit(warn=2.5, fail=4.0),
            "weights.codes.extreme": Limit(warn=0.9, fail=0.0),
            "outputs.modules.error_activations": Limit(warn=0.2, fail=0.4),  # of 4 bits
            # transformers has no kernels for them and unpacks, which is not the file's fault; from 1 bit to 32 at most
            "memory.footprint.growth": Limit(fail=33.0),
        },
    )
)
