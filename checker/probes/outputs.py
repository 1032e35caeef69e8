"""Running the model: one forward over a probe text, and greedy continuations of the matrix's prompts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from checker.domain import Prompt
from checker.errors import Unavailable
from checker.facts import GeneratedText, OutputFacts
from checker.probes.load import one_line, raise_environment_fault

POSITIONS = 64
# _convert_weight_packed_for_cpu in bitsandbytes/functional.py: out divisible by 32, in even
KERNEL_LIMITS = ("must be divisible by block_n", "K must be even")
PROBE_TEXT = (
    "The history of bread is long. People ground wild grain between stones, mixed the flour with water, and baked it "
    "on hot rocks ten thousand years ago. Later they learned that dough left in a warm place rises by itself, and that "
    "a piece kept from yesterday makes today's loaf light. In 1859 Louis Pasteur showed that yeast is alive."
)


def probe_inputs(model: Any, folder: Path) -> dict[str, Any]:
    """Token ids of the probe text, [1, positions]; without a tokenizer, ids spread over the vocabulary."""
    import torch

    tokenizer = load_tokenizer(folder)
    vocabulary = int(model.config.get_text_config().vocab_size)
    if tokenizer is not None:
        ids = tokenizer(PROBE_TEXT)["input_ids"][:POSITIONS]
        ids = [token for token in ids if token < vocabulary]
    else:
        ids = [(17 + 7 * position) % vocabulary for position in range(min(POSITIONS, _longest(model)))]
    tokens = torch.tensor([ids], device=next(model.parameters()).device)
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = tokens
    return inputs


def _longest(model: Any) -> int:
    text = model.config.get_text_config()
    lengths = (getattr(text, name, None) for name in ("max_position_embeddings", "n_positions"))
    return min((length for length in lengths if isinstance(length, int) and length > 0), default=POSITIONS)


def load_tokenizer(folder: Path) -> Any:
    """The checkpoint's tokenizer, or None when it ships none."""
    import transformers

    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")):
        return None
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


class ForwardFailed(Exception):
    """The model loads but does not run; the message says how it failed."""


def run_forward(model: Any, inputs: dict[str, Any]) -> Any:
    """Logits of one forward pass, [positions, vocabulary], float32 on the CPU.

    Raises:
        ForwardFailed: the model's own fault.
        Unavailable: the kernels of this device do not take the model's shapes, or there is not enough memory.
    """
    import torch

    try:
        with torch.inference_mode():
            logits = model(**inputs, use_cache=False).logits
    except (NotImplementedError, torch.AcceleratorError) as error:
        raise Unavailable(f"the forward pass does not run on this device: {one_line(error)}") from error
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise_environment_fault(error)
        if any(words in str(error) for words in KERNEL_LIMITS):
            message = f"this device's 4-bit kernels do not take the shape of some layer ({error}); use another device"
            raise Unavailable(message) from error
        raise ForwardFailed(one_line(error)) from error
    return logits[0].float().cpu()


def gather_outputs(
    model: Any, logits: Any, inputs: dict[str, Any], folder: Path, prompts: tuple[Prompt, ...], device: str
) -> OutputFacts:
    """Judge the logits of the first forward, find where they stop being finite, and continue the prompts."""
    import torch

    not_finite = int((~torch.isfinite(logits)).sum())
    return OutputFacts(
        positions=int(logits.shape[0]),
        not_finite=not_finite,
        first_not_finite=_first_not_finite(model, inputs) if not_finite else "",
        texts=tuple(_continue(model, folder, prompts, device)),
    )


def _first_not_finite(model: Any, inputs: dict[str, Any]) -> str:
    """The first leaf module, in running order, whose output holds a NaN or an infinity."""
    import torch

    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(_module: Any, _args: Any, output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            if not found and isinstance(tensor, torch.Tensor) and not torch.isfinite(tensor).all():
                found.append(name)

        return hook

    with _hooks((module, watch(name)) for name, module in model.named_modules() if not list(module.children())):
        run_forward(model, inputs)
    return found[0] if found else ""


@contextmanager
def _hooks(pairs: Iterator[tuple[Any, Any]]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module, hook in pairs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _continue(model: Any, folder: Path, prompts: tuple[Prompt, ...], device: str) -> Iterator[GeneratedText]:
    """Greedy continuations, prompt and special tokens removed."""
    import torch

    tokenizer = load_tokenizer(folder) if prompts else None
    for prompt in prompts:
        if tokenizer is None:
            raise Unavailable(f"there is no tokenizer in the checkpoint to write the prompt {prompt.text!r} with")
        if prompt.chat:
            turns = [{"role": "user", "content": prompt.text}]
            inputs = tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
        else:
            inputs = tokenizer(prompt.text, return_tensors="pt")
        inputs = {key: inputs[key].to(next(model.parameters()).device) for key in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            tokens = model.generate(
                **inputs, max_new_tokens=prompt.max_new_tokens, do_sample=False, num_beams=1, use_cache=True
            )[0]
        start = 0 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        text = tokenizer.decode(tokens[start:], skip_special_tokens=True)
        yield GeneratedText(prompt=prompt.text, text=text, accepted=accepted_on(prompt, device))


def accepted_on(prompt: Prompt, device: str) -> tuple[str, ...]:
    """The accepted beginnings for a device: those of every glob that matches its name or class, ``*`` for any."""
    from fnmatch import fnmatchcase

    names = (device, device.partition(":")[0])
    return tuple(
        text
        for glob, texts in prompt.accept.items()
        if any(fnmatchcase(name, glob) for name in names)
        for text in texts
    )
