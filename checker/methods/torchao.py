"""torchao: int8, float8, int4, 1- to 8-bit integers and microscaling formats, as tensor subclasses in safetensors.

Stored per parameter ``x.weight``, torchao/prototype/safetensors (0.18): ``x._weight_qdata``, ``x._weight_scale`` and,
by class, ``x._weight_zero_point``, ``x._weight_scale_and_zero``, ``x._weight_per_tensor_scale``; and in the header's
``__metadata__`` under the parameter's name a JSON object with ``_type``, ``_data`` (block size, dtype, …) and
``_tensor_data_names``. Decoded, with g the block of a value:

- Int8Tensor, IntxUnpackedToInt8Tensor, Float8Tensor: (code − zero_point[g]) · scale[g]; one code a byte, rows, groups
  or the whole tensor a scale.
- Int4Tensor: code · scale[g] + zero_point[g]; two's complement, low nibble first, scales [in / group, out] (mslk).
- Int4TilePackedTo4dTensor: (code − 8) · scale[g] + zero[g]; tiles of 8 × 128 for tensor cores (tinygemm), inputs padded
  to 1024.
- MXTensor: E4M3 or E2M1 code · 2^(scale − 127); NVFP4Tensor: E2M1 code · scale[g] · per_tensor_scale; scales in tiles
  of 128 × 4. Int4PlainInt32Tensor (Intel GPUs): known from its source only.

Since transformers 5 ``modules_to_not_convert`` is compared with ``<module>.weight``, so that ``o_proj`` keeps nothing
dense. Int4 leaves layers whose inputs are no multiple of the group dense, without a word. A plain configuration reaches
linear layers only: fused experts and embeddings need an ``FqnToConfig`` that names them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from checker.checkpoint import Checkpoint
from checker.config_values import modules_to_not_convert
from checker.domain import Json, Limit
from checker.facts import StoredWeight
from checker.methods import _torchao_config as config_of
from checker.methods._torchao_layout import layout
from checker.methods._torchao_state import recognise
from checker.registry import Method, register_method

if TYPE_CHECKING:
    from checker.coded import CodedWeight, Window


def _declares(config: Mapping[str, Json]) -> bool:
    return config.get("quant_method") == "torchao"


def _decode(checkpoint: Checkpoint, weight: StoredWeight, window: Window | None) -> tuple[CodedWeight, ...]:
    from checker.methods._torchao_numbers import decode

    return decode(checkpoint, weight, window)


register_method(
    Method(
        id="torchao",
        quant_method="torchao",
        documentation=__doc__ or "",
        keys=config_of.KEYS,
        declares=_declares,
        declared=config_of.declared,
        recognise=recognise,
        layout=layout,
        skips=modules_to_not_convert,
        planner=config_of.planner,
        unfit=config_of.unfit,
        entry_matches=config_of.entry_matches,
        contradictions=config_of.contradictions,
        activations=config_of.activations,
        decode=_decode,
        config_class="transformers.TorchAoConfig",
        limits={
            "weights.error.gain": Limit(fail=0.02),
            "outputs.modules.error_activations": Limit(warn=0.2, fail=0.4),  # of 4 bits
        },
    )
)
