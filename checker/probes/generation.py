"""Continuing prompts greedily, and what the model makes of its baseline's texts and of those known to be good."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from checker.domain import Prompt
from checker.errors import NotApplicable, Unavailable
from checker.facts.texts import Continuation, GeneratedText, KnownText, TextFacts
from checker.probes.forward import ForwardFailed
from checker.probes.greedy import Scored, Tokens, end_tokens, generate, longest_of, score, vocabulary_of
from checker.probes.template import TemplateFault
from checker.probes.thrift import give_back
from checker.probes.tokenizer import Tokenizer, has_tokenizer

DEFAULT_PROMPTS: tuple[Prompt, ...] = (
    Prompt(text="The capital of France is", max_new_tokens=20),
    Prompt(text="Once upon a time, a little girl", max_new_tokens=20),
    Prompt(text="def add(a, b):\n    return", max_new_tokens=20),
)
"""What is continued where the matrix names no prompt: a fact, a story, code."""

MOST_CANDIDATES = 24  # accepted and recorded texts of a prompt that a miss is weighed against
_CLASSES = ("cpu", "cuda", "mps", "xpu")  # any other name of a device is that of a GPU
_SEPARATORS = ("", " ", "\n")  # between a prompt and an accepted beginning, which is compared without


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What a model that is asked something has around it."""

    words: Path  # folder of the tokenizer that writes prompts and reads answers
    device: str
    scratch: Path | None = None  # folder for the logits, see ``thrift.room``


Baselines = Mapping[tuple[str, bool], Continuation]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """A prompt as the model gets it, or why it could not be written."""

    prompt: Prompt
    tokens: Tokens = ()
    most: int = 0  # new tokens, as many as were asked for and as there is room for
    flaw: str = ""


def continuations(model: Any, folder: Path, prompts: Sequence[Prompt]) -> tuple[Continuation, ...]:
    """The model's own greedy texts, with how likely it finds them; none for default prompts without a tokenizer.

    Raises:
        Unavailable: a prompt cannot be written, or the model does not generate.
    """
    tokenizer = Tokenizer(folder)
    if _cannot_ask(prompts, folder, {}):
        return ()
    asked = [_ask(model, tokenizer, prompt, None) for prompt in prompts]
    flaw = next((item.flaw for item in asked if item.flaw), "")
    if flaw:
        raise Unavailable(f"the baseline cannot be prompted: {flaw}")
    try:
        texts = _continue(model, asked, end_tokens(model))
        scored = score(model, [(item.tokens, tokens) for item, tokens in zip(asked, texts, strict=True)])
    except ForwardFailed as failure:
        raise Unavailable(f"the baseline does not generate: {failure}") from failure
    found = []
    for item, tokens, said in zip(asked, texts, scored, strict=True):
        nll = math.fsum(said.losses) / len(tokens)
        if not math.isfinite(nll + said.entropy):
            raise Unavailable(f"the baseline's logits are not finite after the prompt {item.prompt.text!a}")
        found.append(
            Continuation(
                prompt=item.prompt.text,
                chat=item.prompt.chat,
                prompt_tokens=item.tokens,
                tokens=tokens,
                text=tokenizer.decode(tokens),
                nll=nll,
                entropy=said.entropy,
                losses=said.losses,
            )
        )
    return tuple(found)


def gather_texts(
    model: Any,
    around: Surroundings,
    prompts: Sequence[Prompt],
    baseline: tuple[Continuation, ...],
    known: tuple[KnownText, ...],
) -> TextFacts:
    """Continue the prompts, score the baseline's texts, and weigh what is neither accepted nor recorded.

    A prompt that the baseline was asked is put in the baseline's tokens. ``language``, ``parameters`` and ``bits`` of
    the facts are left to the caller, who knows the baseline.

    Raises:
        Unavailable: a prompt cannot be written; the machine's fault.
        NotApplicable: nothing was asked for, and there is no tokenizer to ask something with.
    """
    theirs = {(item.prompt, item.chat): item for item in baseline}
    if _cannot_ask(prompts, around.words, theirs):
        raise NotApplicable("the checkpoint has no tokenizer to write a prompt with")
    tokenizer = Tokenizer(around.words)
    asked = [_ask(model, tokenizer, prompt, theirs.get((prompt.text, prompt.chat))) for prompt in prompts]
    try:
        ends = end_tokens(model) | _ends_of(prompts, theirs)
        new = _continue(model, asked, ends)
        texts = [_text(tokenizer, item, tokens, theirs, known) for item, tokens in zip(asked, new, strict=True)]
        texts = [_compared(text, item.prompt, known, around.device) for text, item in zip(texts, asked, strict=True)]
        give_back()  # the caches of what was generated
        return TextFacts(texts=tuple(_scored(model, tokenizer, asked, texts, around.scratch)))
    except ForwardFailed as failure:
        return TextFacts(flaw=str(failure))


def _cannot_ask(prompts: Sequence[Prompt], folder: Path, theirs: Baselines) -> bool:
    """Whether nobody named a prompt, and there are no tokens to put the default ones in."""
    has_tokens = has_tokenizer(folder) or all((prompt.text, prompt.chat) in theirs for prompt in prompts)
    return tuple(prompts) == DEFAULT_PROMPTS and not has_tokens


def _ask(model: Any, tokenizer: Tokenizer, prompt: Prompt, baseline: Continuation | None) -> _Asked:
    """A prompt in tokens: those of the baseline, which need no tokenizer, or what the tokenizer makes of it."""
    if baseline is not None:
        tokens = baseline.prompt_tokens
    elif not has_tokenizer(tokenizer.folder):
        raise Unavailable(f"there is no tokenizer in the checkpoint to write the prompt {prompt.text!r} with")
    else:
        try:
            tokens = tokenizer.encode_chat(prompt.text) if prompt.chat else tokenizer.encode(prompt.text)
        except TemplateFault as fault:
            return _Asked(prompt=prompt, flaw=str(fault))
    if not tokens:
        raise Unavailable(f"the tokenizer makes no token of the prompt {prompt.text!r}; write another one")
    words, positions = vocabulary_of(model), longest_of(model)
    if not _fits(model, tokens):
        flaw = f"the prompt {prompt.text!r} has token {max(tokens)}, but the model has embeddings for {words} tokens"
        return _Asked(prompt=prompt, flaw=flaw)
    room = positions - len(tokens)
    if room < 1:
        raise Unavailable(f"the prompt {prompt.text!r} has {len(tokens)} tokens; the model takes {positions} at most")
    return _Asked(prompt=prompt, tokens=tokens, most=min(prompt.max_new_tokens, room))


def _fits(model: Any, tokens: Tokens) -> bool:
    return min(tokens, default=0) >= 0 and max(tokens, default=0) < vocabulary_of(model)


def _continue(model: Any, asked: Sequence[_Asked], ends: frozenset[int]) -> list[Tokens]:
    """The tokens after each prompt, none after those that could not be written."""
    sound = [item for item in asked if not item.flaw]
    new = iter(generate(model, [item.tokens for item in sound], [item.most for item in sound], ends) if sound else ())
    return [() if item.flaw else next(new) for item in asked]


def _ends_of(prompts: Sequence[Prompt], theirs: Baselines) -> frozenset[int]:
    """What ended the baseline's texts, for quantized copies often come without a generation_config.json."""
    found = (theirs.get((prompt.text, prompt.chat)) for prompt in prompts)
    return frozenset(
        item.tokens[-1]
        for prompt, item in zip(prompts, found, strict=True)
        if item is not None and 0 < len(item.tokens) < prompt.max_new_tokens
    )


def _text(
    tokenizer: Tokenizer, asked: _Asked, tokens: Tokens, theirs: Baselines, known: Sequence[KnownText]
) -> GeneratedText:
    """The text of some tokens: one that was read before is not read again, for loading a tokenizer takes its time."""
    prompt = asked.prompt
    baseline = theirs.get((prompt.text, prompt.chat))
    read = {item.tokens: item.text for item in known}
    if baseline is not None:
        read.setdefault(baseline.tokens, baseline.text)
    text = read.get(tokens)
    if text is None and has_tokenizer(tokenizer.folder):
        text = tokenizer.decode(tokens)
    return GeneratedText(
        prompt=prompt.text, chat=prompt.chat, flaw=asked.flaw, text=text, tokens=tokens, baseline=baseline
    )


def _compared(text: GeneratedText, prompt: Prompt, known: tuple[KnownText, ...], device: str) -> GeneratedText:
    """With what is accepted on this device, and what was recorded: on it, or else on any."""
    recorded = tuple(item for item in known if (item.prompt, item.chat) == (prompt.text, prompt.chat))
    here = tuple(item for item in recorded if _class_of(item.device) == _class_of(device))
    accepted = accepted_on(prompt, device)
    return replace(text, accepted=accepted, known=here or recorded, elsewhere=bool(recorded) and not here)


def _class_of(device: str) -> str:
    name = device.partition(":")[0]
    return name if name in _CLASSES else "cuda"


def accepted_on(prompt: Prompt, device: str) -> tuple[str, ...]:
    """The accepted beginnings for a device: those of every glob that matches its name or class, ``*`` for any."""
    names = (device, device.partition(":")[0])
    return tuple(
        text
        for glob, texts in prompt.accept.items()
        if any(fnmatchcase(name, glob) for name in names)
        for text in texts
    )


def _scored(
    model: Any,
    tokenizer: Tokenizer,
    asked: Sequence[_Asked],
    texts: Sequence[GeneratedText],
    scratch: Path | None,
) -> list[GeneratedText]:
    """With what the model makes of the baseline's texts and, where its own is a miss, of those it should have given."""
    rows: list[tuple[Tokens, Tokens]] = []
    theirs: dict[int, int] = {}  # a text's row
    wanted: dict[int, range] = {}
    room = longest_of(model)
    for index, (item, text) in enumerate(zip(asked, texts, strict=True)):
        if item.flaw:
            continue
        if text.baseline is not None and text.baseline.tokens and _fits(model, text.baseline.tokens):
            theirs[index] = len(rows)
            rows.append((item.tokens, text.baseline.tokens[: room - len(item.tokens)]))
        if text.matched is False:
            begin = len(rows)
            rows += [(item.tokens, tokens[: item.most]) for tokens in _candidates(model, tokenizer, text)]
            wanted[index] = range(begin, len(rows))
    scored = score(model, rows, scratch) if rows else []
    return [_with(text, scored, theirs.get(index), wanted.get(index, range(0))) for index, text in enumerate(texts)]


def _with(text: GeneratedText, scored: Sequence[Scored], theirs: int | None, wanted: range) -> GeneratedText:
    agreement = max((scored[row].agreement for row in wanted), default=None)
    if theirs is None:
        return replace(text, agreement=agreement)
    said = scored[theirs]
    return replace(text, agreement=agreement, losses=said.losses, entropy=said.entropy)


def _candidates(model: Any, tokenizer: Tokenizer, text: GeneratedText) -> list[Tokens]:
    """The tokens of what the model should have written."""
    found = [item.tokens for item in text.known]
    if has_tokenizer(tokenizer.folder):
        found += [tokenizer.encode_part(gap + beginning) for beginning in text.accepted for gap in _SEPARATORS]
    return [tokens for tokens in dict.fromkeys(found) if tokens and _fits(model, tokens)][:MOST_CANDIDATES]
