"""Texts that a model continues prompts with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LEAST_ALIKE = 4  # tokens of a shorter text, for it to count as the beginning of a longer one


@dataclass(frozen=True, kw_only=True, slots=True)
class Continuation:
    """Greedy text of one model, with how likely that model finds it."""

    prompt: str
    chat: bool
    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...]  # without the prompt; the one that ended the text, if one did, is the last
    text: str  # special tokens removed
    nll: float  # mean nats per token of ``tokens`` under the model that wrote it, teacher-forced in one pass
    entropy: float  # mean entropy (nats) of its next-token distributions on these tokens
    losses: tuple[float, ...] = ()  # nats of each token, of which ``nll`` is the mean


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownText:
    """A text that a cell's model was recorded with when it was good."""

    prompt: str
    chat: bool
    text: str  # special tokens removed
    tokens: tuple[int, ...]
    device: str  # the class ("cuda", "cpu"), or the name of the GPU
    versions: Mapping[str, str] = field(default_factory=dict)  # of the libraries, by package


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedText:
    """What the model continued one prompt with, and what that can be compared with."""

    prompt: str
    chat: bool = False
    flaw: str = ""  # why the prompt could not be written: its chat template; the rest is then empty
    text: str | None = ""  # special tokens removed; None: there is no tokenizer to read the tokens with
    tokens: tuple[int, ...] = ()  # without the prompt
    accepted: tuple[str, ...] = ()  # the beginnings that the matrix accepts on this device
    known: tuple[KnownText, ...] = ()  # recorded for this prompt, of the nearest device there is
    elsewhere: bool = False  # those are of another device class
    baseline: Continuation | None = None
    agreement: float | None = None  # after a miss: with the accepted or recorded text that fits best, token by token
    losses: tuple[float, ...] = ()  # nats of each of the baseline's tokens under this model, teacher-forced
    entropy: float | None = None  # mean, of the distributions on the baseline's tokens

    @property
    def matched(self) -> bool | None:
        """Whether the text begins as the matrix accepts or, where it accepts none, is one of those recorded.

        None when there is nothing to compare with.
        """
        if self.accepted:
            return (self.text or "").strip().startswith(self.accepted)
        return any(self._repeats(known) for known in self.known) if self.known else None

    def _repeats(self, known: KnownText) -> bool:
        """Equal as far as both go: the limit on new tokens may have been another one when the text was recorded."""
        length = min(len(self.tokens), len(known.tokens))
        enough = length >= LEAST_ALIKE or len(self.tokens) == len(known.tokens)
        if length and enough and self.tokens[:length] == known.tokens[:length]:
            return True
        return bool(self.text) and self.text == known.text


@dataclass(frozen=True, kw_only=True, slots=True)
class TextFacts:
    """Greedy continuations of the prompts, and what the model makes of its baseline's."""

    flaw: str = ""  # why the model does not generate; the rest is then empty
    texts: tuple[GeneratedText, ...] = ()
    unreferenced: str = ""  # why there is nothing of the baseline's to compare with, although there is a baseline
    language: bool = True  # the baseline models text at all
    parameters: int = 0  # of the model; 0: not known
    bits: int | None = None  # of most weights; None: not known
