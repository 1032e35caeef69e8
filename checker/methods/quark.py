"""AMD Quark: integers of 4 and 8 bits, float8, and the microscaling formats, by one scheme or a different one a layer.

Stored per layer (``QParamsLinear``, quark/torch/export/nn/modules in amd-quark 0.13): ``weight``, ``weight_scale``, and
for integers ``weight_zero_point`` also when symmetric; static activations add ``input_scale``, ``input_zero_point``, a
quantized cache ``output_scale``. With s the scale and z the zero point of the tensor, the row or the group:

- int8, uint8, int4, uint4: (code − z) · s. With groups all of it is stored transposed, [in, out]. 4-bit codes lie in
  32-bit words along the last dimension, in AWQ's order 0 4 1 5 2 6 3 7 unless ``pack_method`` says "order".
- fp8_e4m3, fp8_e5m2: value · s.
- fp4 (MXFP4), fp6: two codes a byte, four in three bytes, low bits first; scales of 32 values are powers of two with a
  bias of 127. NVFP4: scales of 16 values in E4M3, times ``weight_scale_2``.

``exclude`` and ``layer_quant_config`` match whole module names with fnmatch, so that ``*.mlp`` keeps nothing below it.
Every linear layer that is not excluded is quantized, the output head as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from checker.checkpoint import Checkpoint
from checker.domain import Limit
from checker.facts import StoredWeight
from checker.methods import _quark_config as config_of
from checker.methods._quark_layout import layout, recognise
from checker.registry import LINEAR_ROLES, Method, register_method

if TYPE_CHECKING:
    from checker.coded import CodedWeight, Window


def _decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    from checker.methods._quark_numbers import decode

    return decode(checkpoint, weight, window)


register_method(
    Method(
        id="quark",
        quant_method="quark",
        documentation=__doc__ or "",
        keys=config_of.KEYS,
        declares=config_of.is_quark,
        declared=config_of.declared,
        recognise=recognise,
        layout=layout,
        skips=lambda _: None,
        contradictions=config_of.contradictions,
        open_keys=True,
        planner=config_of.planner,
        entry_matches=config_of.matches,
        listed=config_of.excluded,
        roles=LINEAR_ROLES | {"head"},
        stored_dense=config_of.stored_dense,
        activations=config_of.activations,
        decode=_decode,
        config_class="transformers.QuarkConfig",
        limits={"outputs.modules.error_activations": Limit(warn=0.2, fail=0.4)},  # of 4 bits
    )
)
