"""The model without weights: built on the meta device from its config, to know what every module should become.

Nothing is allocated, so that the module tree of a 70B model costs seconds and a few megabytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checker.domain import ErrorKind, Json
from checker.errors import Unavailable
from checker.registry import Method

FALLBACK_DTYPE = "float32"  # what torch builds a model in when its config names no dtype


@dataclass(frozen=True, kw_only=True, slots=True)
class Skeleton:
    """A model on the meta device, and the names of the modules that a method would quantize in it."""

    model: Any
    quantizable: tuple[str, ...]
    fused_experts: tuple[str, ...]  # 3-D expert parameters that no linear replacement reaches
    kept_in_float32: tuple[str, ...]


def import_transformers() -> Any:
    """transformers, quiet: its log lines and progress bars are not for our reader.

    Raises:
        Unavailable: it is not installed; the sentence names the extra that brings it.
    """
    try:
        import torch  # noqa: F401 - transformers imports without torch and then fails late
        import transformers
    except ImportError as error:
        message = f"{error.name} is not installed; pip install 'quant-verify[torch]' brings what depth load needs"
        raise Unavailable(message, ErrorKind.NOT_RUN) from error
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=UserWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    return transformers


def model_class(config: Any, *, trust_remote_code: bool) -> Any:
    """The class that the config names first; Auto classes would refuse T5 and guess for others.

    Raises:
        ValueError: the config names none, or one that transformers does not have.
    """
    transformers = import_transformers()
    names = config.architectures or ()
    if trust_remote_code and getattr(config, "auto_map", None):
        return transformers.AutoModelForCausalLM
    found = getattr(transformers, names[0], None) if names else None
    if found is None:
        raise ValueError(f"transformers {transformers.__version__} has no model class {names[0] if names else 'named'}")
    return found


def read_config(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """The model's configuration object, from the folder alone."""
    transformers = import_transformers()
    return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)


def model_dtype(config: Any) -> Any:
    """The torch dtype that the config names, else the one that torch builds in."""
    import torch

    dtype = getattr(config, "dtype", None) or FALLBACK_DTYPE
    return getattr(torch, dtype) if isinstance(dtype, str) else dtype


def build_model(config: Any, *, trust_remote_code: bool = False) -> Any:
    """The model of a config on the meta device: shapes and names, no data, and nothing quantized."""
    import torch

    cls = model_class(config, trust_remote_code=trust_remote_code)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(model_dtype(config))
    try:
        with torch.device("meta"):
            if hasattr(cls, "from_config"):  # an Auto class, which finds the model's own code
                return cls.from_config(config, trust_remote_code=trust_remote_code)
            return cls(config)
    finally:
        torch.set_default_dtype(previous)


def build_skeleton(
    config: Any, method: Method | None, quantization_config: Mapping[str, Json], *, trust_remote_code: bool = False
) -> Skeleton:
    """Build the model of a config on the meta device and mark what the method quantizes.

    ``_keep_in_fp32_modules`` is always skipped by quantization; the user's skip list replaces the default one
    (transformers/quantizers/base.py, ``get_modules_to_not_convert``).
    """
    import torch
    from transformers.quantizers.base import HfQuantizer
    from transformers.quantizers.quantizers_utils import should_convert_module

    model = build_model(config, trust_remote_code=trust_remote_code)
    dtype = model_dtype(config)
    kept = [*(getattr(model, "_keep_in_fp32_modules", None) or ())]
    skips = method.skips(quantization_config) if method else None
    patterns = HfQuantizer.get_modules_to_not_convert(model, None if skips is None else list(skips), kept)
    quantizable = tuple(
        name for name, module in model.named_modules() if is_linear(module) and should_convert_module(name, patterns)
    )
    strict = [*(getattr(model, "_keep_in_fp32_modules_strict", None) or ())]
    in_float32 = [*strict, *(kept if dtype == torch.float16 else ())]
    return Skeleton(
        model=model,
        quantizable=quantizable,
        fused_experts=tuple(fused_experts(model, patterns)),
        kept_in_float32=tuple(
            name
            for name, _ in model.named_parameters()
            if not should_convert_module(name.rpartition(".")[0], in_float32)
        ),
    )


def is_linear(module: Any) -> bool:
    """Exactly ``nn.Linear`` (a subclass is left dense by bitsandbytes) or GPT-2's transposed ``Conv1D``."""
    import torch
    from transformers.pytorch_utils import Conv1D

    return type(module) is torch.nn.Linear or isinstance(module, Conv1D)


def fused_experts(model: Any, patterns: list[str]) -> list[str]:
    """Names of floating-point expert parameters of three dimensions that the skip list does not keep."""
    from transformers.quantizers.quantizers_utils import should_convert_module

    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.dim() > 2  # noqa: PLR2004 - [experts, out, in]
        and "experts" in name
        and parameter.is_floating_point()
        and should_convert_module(name.rpartition(".")[0], patterns)
    ]
