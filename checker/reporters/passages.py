"""Two continuations of one prompt side by side, cut to length around the place where they first differ."""

from __future__ import annotations

from dataclasses import dataclass

from checker.reporters import figures, measured
from checker.reporters.escape import ELLIPSIS, one_line

_CHARACTERS = 600  # of a text, on either side of the first difference
_PROMPT = 600
_WORD = 40  # characters that are marked, at most


@dataclass(frozen=True, kw_only=True, slots=True)
class TextView:
    """A prompt and what followed; each side in three parts, the middle one being where they first differ."""

    prompt: str
    sides: tuple[tuple[str, tuple[str, str, str]], ...]
    verdict: str  # "yes", "no" or "" where nothing was to be accepted
    notes: tuple[str, ...]


def text_view(text: measured.Text) -> TextView:
    """The view of one continuation, every invisible character made visible."""
    sides = [("quantized", _parts(text.text, text.same))]
    notes = []
    if text.baseline is not None and text.same is not None:
        sides.append(("baseline", _parts(text.baseline, text.same)))
        notes.append(_sameness(text, text.same))
    if text.agreement is not None:
        notes.append(f"agreement {figures.percent(text.agreement)}")
    return TextView(
        prompt=one_line(text.prompt, _PROMPT),
        sides=tuple(sides),
        verdict="" if text.accepted is None else "yes" if text.accepted else "no",
        notes=tuple(notes),
    )


def _sameness(text: measured.Text, same: int) -> str:
    if text.text == text.baseline:
        return "both are the same"
    return f"the same for {figures.plural(same, 'character')}" if same else "different from the first character on"


def _parts(text: str, same: int | None) -> tuple[str, str, str]:
    """Before, at and after the first difference: the rest of its word, or all of it before where there is none."""
    if same is None or same >= len(text):
        return _visible(text[:_CHARACTERS], more=len(text) - _CHARACTERS), "", ""
    end = same + 1
    while end < len(text) and end - same < _WORD and (text[same:end].isspace() or not text[end].isspace()):
        end += 1
    before, after = text[max(0, same - _CHARACTERS) : same], text[end : end + _CHARACTERS]
    lead = ELLIPSIS if len(before) < same else ""
    return lead + _visible(before), _visible(text[same:end]), _visible(after, more=len(text) - end - len(after))


def _visible(text: str, more: int = 0) -> str:
    """The text line by line, everything invisible in it made visible."""
    shown = "\n".join(one_line(line) for line in text.split("\n"))
    return f"{shown}{ELLIPSIS} and {more:,} more characters" if more > 0 else shown
