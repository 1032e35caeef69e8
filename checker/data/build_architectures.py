"""Write ``architectures.json``: what each architecture of the installed transformers keeps dense, ties or transposes.

``python -m checker.data.build_architectures`` builds every language model on the meta device from its default config
(no weights, no network) and notes, per architecture class, the tensors of two and more dimensions that are *not*
quantizable linear layers, with the reason. The static checks read that table, so that they know without torch that T5
keeps every ``wo`` and that GPT-2 stores its matrices transposed. A test compares a sample with the installed library.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("architectures.json")
SMALL = {"num_hidden_layers": 2, "num_layers": 2, "num_decoder_layers": 2, "n_layer": 2, "n_layers": 2}
FAMILIES = (
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
)


def architectures() -> dict[str, str]:
    """Architecture class -> model type, over the language-model families of transformers' auto classes."""
    from transformers.models.auto import modeling_auto

    found: dict[str, str] = {}
    for family in FAMILIES:
        for model_type, names in getattr(modeling_auto, family).items():
            for name in (names,) if isinstance(names, str) else names:
                found.setdefault(name, model_type)
    return dict(sorted(found.items()))


def describe(architecture: str, model_type: str) -> dict[str, Any] | None:
    """The row of one architecture, or None when it cannot be built from its default config."""
    import torch
    import transformers
    from huggingface_hub.errors import StrictDataclassError
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    unbuildable = (
        AssertionError,
        AttributeError,
        ImportError,
        LookupError,
        RuntimeError,
        StrictDataclassError,
        TypeError,
        ValueError,
    )
    for changes in (SMALL, {}):  # some configs refuse fewer layers
        try:
            config = CONFIG_MAPPING[model_type]()
            for key, value in changes.items():
                if isinstance(getattr(config, key, None), int) and not getattr(config, "layer_types", None):
                    setattr(config, key, value)
            with torch.device("meta"):
                return row_of(getattr(transformers, architecture)(config))
        except unbuildable:
            continue
    return None


def row_of(model: Any) -> dict[str, Any]:
    """Classify the parameters of a model (on any device) of two and more dimensions.

    ``dense``: name pattern -> kind, for what is no ``nn.Linear`` or is always kept; ``head``: the linear modules that
    transformers keeps when the config names none (the output embeddings and the module of the last parameter, see
    ``get_keys_to_not_convert`` in quantizers/base.py); ``transposed``: Conv1D weights, stored [in, out] when dense;
    ``tied``: tensor -> the tensor that holds its data, when ``tie_word_embeddings`` (default: ``tie``) is set.
    """
    import torch

    kept = [*(model._keep_in_fp32_modules or ()), *(model._keep_in_fp32_modules_strict or ())]  # noqa: SLF001
    dense: dict[str, str] = {}
    transposed = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(module_name, recurse=False):
            kind = kind_of(module, parameter, name, kept)
            if kind == "transposed":
                transposed.add(pattern(name))
            elif kind:
                dense[pattern(name)] = kind
    last = list(model.named_parameters())[-1][0].rpartition(".")[0]
    candidates = (model.get_output_embeddings(), model.get_submodule(last))
    heads = [module for module in candidates if type(module) is torch.nn.Linear]
    row = {
        "dense": dense,
        "head": sorted(pattern(name) for name, item in model.named_modules() if any(item is head for head in heads)),
        "tie": bool(getattr(model.config.get_text_config(decoder=True), "tie_word_embeddings", False)),
        "tied": model._tied_weights_keys or {},  # noqa: SLF001 - there is no public face
        "transposed": sorted(transposed),
    }
    return {key: value for key, value in row.items() if value}


def kind_of(module: Any, parameter: Any, name: str, kept: list[str]) -> str | None:
    """Why a parameter stays dense, or None for a quantizable linear weight and for vectors."""
    import torch
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.quantizers_utils import should_convert_module

    if parameter.dim() < 2:  # noqa: PLR2004 - vectors are never quantized
        return None
    if type(module) is torch.nn.Linear or isinstance(module, Conv1D):
        usual = "transposed" if isinstance(module, Conv1D) else None
        return usual if should_convert_module(name.rpartition(".")[0], kept) else "kept in float32"
    if isinstance(module, torch.nn.Embedding):
        return "embedding"
    if ".experts" in name or name.startswith("experts"):
        return "expert"
    if re.search(r"router|gate", name.rpartition(".")[0].rpartition(".")[2]):
        return "router"
    return "not a linear layer"


def pattern(name: str) -> str:
    """A name with every layer or expert number replaced by ``*``."""
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name)


def main() -> None:
    """Build every row and write the table; says on stderr which architectures could not be built."""
    import transformers

    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    rows, failed = {}, []
    for architecture, model_type in architectures().items():
        row = describe(architecture, model_type)
        if row is None:
            failed.append(architecture)
        else:
            rows[architecture] = row
    table = {"transformers": transformers.__version__, "architectures": rows}
    TABLE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sys.stderr.write(f"{len(rows)} architectures written, {len(failed)} could not be built: {', '.join(failed)}\n")


if __name__ == "__main__":
    main()
