"""What may not stand in the JSON files of a checkpoint, whatever the model: code from elsewhere, and absurd sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from checker.checkpoint.files import Folder
from checker.checkpoint.json_file import read_json
from checker.checkpoint.problem import Problem, Refused, Sayer, about, capped, quoted, shown
from checker.checkpoint.strict_json import Path, dotted, walk
from checker.domain import Json, Severity

CONFIG = "config.json"
GENERATION = "generation_config.json"

# Far above every published model; beyond them building the model takes minutes or the machine's memory.
LARGEST = {
    "num_hidden_layers": 10_000,
    "num_attention_heads": 1 << 16,
    "hidden_size": 1 << 20,
    "vocab_size": 1 << 28,
}
MOST_NEW_TOKENS = 10_000_000

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "tokenizer.model",
)
_IMPLEMENTATIONS = ("attn_implementation", "experts_implementation", "_implementation_internal")
_POINTER = b"version https://git-lfs"


def config_problems(config: Mapping[str, Json] | None) -> tuple[Problem, ...]:
    """Keys that make a loader fetch or run code, and sizes that no model has."""
    if config is None:
        return ()
    say = about(CONFIG)
    problems = [*_code(config, say), *_sizes(config, "", say)]
    text = config.get("text_config")
    if isinstance(text, dict):
        problems += _sizes(text, "text_config.", say)
    kind = config.get("model_type", "")
    if not isinstance(kind, str):
        problems.append(say("model_type is not a string", where="model_type", hint="name the architecture"))
    return tuple(problems)


def generation_problems(folder: Folder) -> tuple[Problem, ...]:
    """generation_config.json, which transformers skips silently when it is broken."""
    if GENERATION not in folder.names:
        return ()
    read = read_json(folder, GENERATION)
    say = about(GENERATION)
    problems = [*read.problems, *_code(read.value or {}, say)]
    for key in ("max_new_tokens", "max_length"):
        value = (read.value or {}).get(key)
        if isinstance(value, int) and value > MOST_NEW_TOKENS:
            message = f"{key} is {value:,}; a text of that length never ends"
            problems.append(say(message, where=key, severity=Severity.WARN, hint="no generation here uses it"))
    return tuple(problems)


def tokenizer_problems(folder: Folder) -> tuple[Problem, ...]:
    """Tokenizer files that are empty, cut short or pointers; parsing them is the tokenizer library's business."""
    names = [name for name in TOKENIZER_FILES if name in folder.names]
    return tuple(problem for found in folder.each(lambda name: _tokenizer(folder, name), names) for problem in found)


def _tokenizer(folder: Folder, name: str) -> list[Problem]:
    try:
        with folder.open(name) as (stream, size):
            head = stream.read(64)
            stream.seek(max(0, size - 64))
            tail = stream.read(64)
    except Refused as refused:
        return [refused.problem]
    return [*_tokenizer_file(name, head, tail)]


def _tokenizer_file(name: str, head: bytes, tail: bytes) -> Iterator[Problem]:
    say = about(name)
    if not head.strip():
        yield say(f"{name} is empty", hint="save the tokenizer again with save_pretrained")
    elif head.startswith(_POINTER):
        yield say(f"{name} is a Git LFS pointer, not the file it points to", hint="run 'git lfs pull'")
    elif name.endswith(".json") and not (head.lstrip().startswith(b"{") and tail.rstrip().endswith(b"}")):
        yield say(f"{name} is cut short, or not a JSON object", hint="save the tokenizer again with save_pretrained")


def _code(config: Mapping[str, Json], say: Sayer) -> Iterator[Problem]:
    return capped(_code_keys(config, say))


def _code_keys(config: Mapping[str, Json], say: Sayer) -> Iterator[Problem]:
    for path, _, item in walk(dict(config)):
        key = str(path[1]) if path else ""
        if key == "auto_map":
            message = "auto_map names Python code inside the checkpoint; it is not run"
            hint = "the built-in class is used; code runs only if the matrix and --trust-remote-code both allow it"
            yield say(message, where=dotted(path), severity=Severity.WARN, hint=hint)
        elif key == "trust_remote_code":
            message = "trust_remote_code stands in the checkpoint; who loads it decides that, not the file"
            yield say(message, where=dotted(path), hint="delete the key")
        elif isinstance(item, str) and "/" in item and _names_an_implementation(path):
            message = (
                f"{shown(dotted(path))} names a repository ({quoted(item)}), whose code would be downloaded and run"
            )
            yield say(message, where=dotted(path), hint="name a built-in implementation, or delete the key")


def _names_an_implementation(path: Path) -> bool:
    """Whether a key on the way is one: the value may be an object, one implementation per part of the model."""
    while path:
        path, key = path
        if isinstance(key, str) and key.endswith(_IMPLEMENTATIONS):
            return True
    return False


def _sizes(config: Mapping[str, Json], prefix: str, say: Sayer) -> Iterator[Problem]:
    """Only whole numbers are judged: some architectures give lists, one per layer."""
    for key, largest in LARGEST.items():
        value = config.get(key, 1)
        where = prefix + key
        if isinstance(value, bool | str | float | dict):
            yield say(f"{where} is not a whole number", where=where, hint="correct the config")
        elif isinstance(value, int) and not 0 < value <= largest:
            message = f"{where} is {shown(f'{value:,}')}; a model has between 1 and {largest:,}"
            yield say(message, where=where, hint="correct the config")
