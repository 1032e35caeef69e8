"""A checkpoint's tokenizer: from text to token ids and back, chat template included. Runs no code of the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from checker.checkpoint.files import Folder, list_folder
from checker.checkpoint.json_file import read_json
from checker.checkpoint.problem import Refused
from checker.domain import Json
from checker.errors import Unavailable
from checker.probes.load import one_line, raise_environment_fault
from checker.probes.template import TEMPLATE_LIMIT, TemplateFault, render

FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
TEMPLATE_FILE, CONFIG_FILE = "chat_template.jinja", "tokenizer_config.json"
_FAULTS = (AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)


def has_tokenizer(folder: Path) -> bool:
    """Whether the checkpoint ships a tokenizer; nothing is loaded."""
    return any((folder / name).is_file() for name in FILES)


def load_tokenizer(folder: Path) -> Any:
    """The checkpoint's tokenizer as transformers loads it, or None when it ships none.

    Raises:
        Unavailable: it ships one that cannot be loaded.
    """
    if not has_tokenizer(folder):
        return None
    with _reading(folder):
        import transformers

        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        # tokenizers raises bare Exceptions; what is neither that nor one of the usual kinds is passed on as it is
        if isinstance(error, ImportError | MemoryError | OSError):
            raise_environment_fault(error)
        if type(error) is Exception or isinstance(error, _FAULTS):
            message = f"the tokenizer in {folder} cannot be used: {one_line(error)}; see files.valid, or save it again"
            raise Unavailable(message) from error
        raise


@dataclass
class Tokenizer:
    """The tokenizer of a folder, loaded when it is first needed: many cells bring their tokens along."""

    folder: Path

    @cached_property
    def _loaded(self) -> Any:
        return load_tokenizer(self.folder)

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text, with the special tokens that the tokenizer puts around one."""
        return self._ids(lambda tokenizer: tokenizer(text))

    def encode_part(self, text: str) -> tuple[int, ...]:
        """Token ids of a piece of text, without special tokens around it."""
        return self._ids(lambda tokenizer: tokenizer(text, add_special_tokens=False))

    def encode_chat(self, text: str) -> tuple[int, ...]:
        """Token ids of a user's message in the checkpoint's chat template, up to where the answer begins.

        Raises:
            TemplateFault: the template cannot be used.
            Unavailable: there is none.
        """
        found = find_template(self.folder)
        if found is None:
            message = f"a prompt says chat: true, but {self.folder} holds no chat template; add chat_template.jinja"
            raise Unavailable(f"{message}, or set chat: false")
        source, template = found
        rendered = render(template, source, text, self._special_tokens())
        return self.encode_part(rendered)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of tokens, the special ones left out."""
        with _reading(self.folder):
            return str(self._loaded.decode(list(tokens), skip_special_tokens=True))

    def _ids(self, encode: Callable[[Any], Any]) -> tuple[int, ...]:
        with _reading(self.folder):
            return tuple(int(token) for token in encode(self._loaded)["input_ids"])

    def _special_tokens(self) -> dict[str, Json]:
        return {
            str(name): [str(item) for item in value] if isinstance(value, list | tuple) else str(value)
            for name, value in self._loaded.special_tokens_map.items()
        }


def find_template(folder: Path) -> tuple[str, str] | None:
    """Where the chat template stands, and the template; in the order in which transformers looks.

    Raises:
        TemplateFault: it is there and cannot be read.
    """
    try:
        place = list_folder(folder)
        if TEMPLATE_FILE in place.names:
            return TEMPLATE_FILE, _read_text(place, TEMPLATE_FILE)
    except Refused as refused:
        raise TemplateFault(f"the chat template cannot be read: {refused.problem.message}") from None
    if CONFIG_FILE not in place.names:
        return None
    source = f"{CONFIG_FILE} (key chat_template)"
    value = (read_json(place, CONFIG_FILE).value or {}).get("chat_template")
    if isinstance(value, list):  # several, named; this one is for talk without tools
        named = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
        value = named.get("default")
    if value is None:
        return None
    if not isinstance(value, str):
        raise TemplateFault(f"the chat template in {source} is no text")
    return source, value


def _read_text(place: Folder, name: str) -> str:
    with place.open(name) as (stream, size):
        if size > 4 * TEMPLATE_LIMIT:  # bytes of the longest text in UTF-8
            raise TemplateFault(f"the chat template in {name} has {size:,} bytes; more than 1 MB is not read")
        raw = stream.read(size)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TemplateFault(f"the chat template in {name} is not UTF-8 (byte {error.start:,})") from None
