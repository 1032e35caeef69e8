"""Write ``architectures.json``: what each architecture of the installed transformers keeps dense, ties or transposes.

``python -m checker.data.build_architectures`` builds every language model on the meta device from its default config
(no weights, no network) and notes, per architecture class, the tensors of two and more dimensions that are *not*
quantizable linear layers, with the reason. The static checks read that table, so that they know without torch that T5
keeps every ``wo`` and that GPT-2 stores its matrices transposed; and how transformers renames the tensors of a file
as it loads them. A test compares a sample with the installed library.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("architectures.json")
SMALL = {"num_hidden_layers": 2, "num_layers": 2, "num_decoder_layers": 2, "n_layer": 2, "n_layers": 2}
FAMILIES = (
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
)
FILLED = {  # what some default configs leave open or set so that no model can be built
    "head_dim": 64,
    "is_decoder": True,
    "num_key_value_heads": 4,
    "pad_token_id": 0,
    "vocab_size": 128,
}
SPECIAL: Mapping[str, Mapping[str, Any]] = {
    "aya_vision": {"vision_config": {"model_type": "siglip_vision_model"}},
    "chameleon": {"vocabulary_map": {"<image>": 1}},
    "dots1": {"n_routed_experts": 8},
    "emu3": {"vocabulary_map": {"<image>": 1, "<|extra_200|>": 2}},
    "hunyuan_vl": {"text_config": {"head_dim": 64}},
}
NAMING = ("renames", "joins", "reverts")


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
    cls = getattr(transformers, architecture)
    for config_class in (CONFIG_MAPPING[model_type], cls.config_class):  # the second may be the text part of the first
        for changes, filled in (({}, {}), (SMALL, {}), ({}, FILLED)):
            try:
                config = _changed(config_class(**SPECIAL.get(model_type, {})), changes, filled)
                with torch.device("meta"):
                    return row_of(cls(config))
            except unbuildable:
                continue
    return None


def _changed(config: Any, changes: Mapping[str, int], filled: Mapping[str, int]) -> Any:
    """A config with fewer layers, and with values where it has none."""
    for key, value in changes.items():
        if isinstance(getattr(config, key, None), int) and not getattr(config, "layer_types", None):
            setattr(config, key, value)
    for key, value in filled.items():
        if getattr(config, key, None) in (None, False):
            setattr(config, key, value)
    if filled and not getattr(config, "layer_types", True):
        config.layer_types = ["full_attention"] * config.num_hidden_layers
    return config


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
        **names_of(model),
    }
    return {key: value for key, value in row.items() if value}


def names_of(model: Any) -> dict[str, Any]:
    """How names in a file differ from names of modules, as transformers' conversion mapping says.

    ``renames``, one after the other, then at most one of ``joins`` (experts that become one parameter, a matrix that is
    split) lead from the file to the model; ``reverts`` lead back to the name that an older transformers gave the module
    and that ``save_pretrained`` still writes. ``prefix`` is that of the base model, ``body`` the names that begin with
    it in the model and may stand without in a file (GPT-2's do).
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import PrefixChange, WeightConverter, WeightRenaming

    own = get_model_conversion_mapping(model, add_legacy=False)
    legacy = get_model_conversion_mapping(model)[len(own) :]
    plain = [entry for entry in own if type(entry) in (WeightRenaming, PrefixChange)]
    parameters = list(model.state_dict())
    base = getattr(model, model.base_model_prefix, model)
    body = {name.partition(".")[0] for name in base.state_dict()} - {name.partition(".")[0] for name in parameters}
    doubled = [
        entry for entry in legacy if any(name.startswith(entry.target_patterns[0] + ".") for name in parameters)
    ]  # ``model.language_model.model``, where there is a ``model.language_model``
    return {
        "renames": list(_rules([*plain, *doubled])),
        "joins": list(_rules([entry for entry in own if isinstance(entry, WeightConverter)])),
        "reverts": list(_rules([entry.reverse_transform() for entry in plain[::-1] if type(entry) is WeightRenaming])),
        "prefix": model.base_model_prefix if body else "",
        "body": sorted(body),
    }


def _rules(entries: list[Any]) -> Iterator[dict[str, Any]]:
    """``from``: regular expression, ``to``: what replaces the text found, ``in``: prefixes, one of which must lead."""
    for entry in entries:
        rule = {"from": entry.compiled_sources.pattern, "to": list(entry.target_patterns)}
        if entry.scope_prefix is not None:  # as in WeightTransform._scoped_match of transformers/core_model_loading.py
            scope = f"{entry.scope_prefix}." if entry.scope_prefix else ""
            base = f"{entry.base_model_prefix}." if entry.base_model_prefix else ""
            rule["in"] = list(dict.fromkeys((base + scope, scope)))
        yield rule


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
        return "not a linear layer" if name.endswith("bias") else "expert"
    if re.search(r"router|gate", name.rpartition(".")[0].rpartition(".")[2]):
        return "router"
    return "not a linear layer"


def pattern(name: str) -> str:
    """A name with every layer or expert number replaced by ``*``."""
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name)


def table_text(version: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The table as JSON, one line per rule and per architecture; rows name rules by number, for many share them."""
    rules: dict[str, int] = {}

    def number(rule: Mapping[str, Any]) -> int:
        return rules.setdefault(json.dumps(rule, sort_keys=True), len(rules))

    lines = []
    for name, row in rows.items():
        short = {key: [number(rule) for rule in value] if key in NAMING else value for key, value in row.items()}
        lines.append(f"{json.dumps(name)}: {json.dumps(short, sort_keys=True)}")
    listed, described = ",\n".join(rules), ",\n".join(lines)
    return (
        f'{{"transformers": {json.dumps(version)},\n"rules": [\n{listed}\n],\n"architectures": {{\n{described}\n}}}}\n'
    )


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
    TABLE.write_text(table_text(transformers.__version__, rows), encoding="utf-8")
    sys.stderr.write(f"{len(rows)} architectures written, {len(failed)} could not be built: {', '.join(failed)}\n")


if __name__ == "__main__":
    main()
