"""The one place where foreign strings are made harmless, one function per sink.

Tensor names, configuration values, generated text and ids come from a checkpoint or a pull request. Each sink has its
own way of being abused: XML cannot hold every character, the runner obeys workflow commands in any line of stdout and
stderr, GitHub turns text into links and mentions, a terminal obeys escape sequences. What is dangerous is made
visible rather than deleted, so that two different names never read the same.
"""

from __future__ import annotations

import re

ELLIPSIS = "…"

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")

# XML 1.0 minus what the junit-xml library would delete without a trace (C1 controls, noncharacters).
_NOT_XML = re.compile(
    "[^\t\n\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufdcf\ufde0-\ufffd"
    + "".join(f"{chr(plane << 16)}-{chr((plane << 16) + 0xFFFD)}" for plane in range(1, 17))
    + "]"
)

# Controls, line separators, surrogates, and all that takes no room or turns the reading direction: a reader cannot
# see them, and a comparison that follows the locale (as the runner's does) skips them.
_INVISIBLE = (
    "\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\U000e0000-\U000e0fff"
)
_CONTROL = re.compile(f"[{_INVISIBLE}\n]")
_CONTROL_BUT_NEWLINE = re.compile(f"[{_INVISIBLE}]")
_LEGACY_COMMAND = "##["
_COMMAND = re.compile(r"((?:\A|[\r\n])(?:[^\S\r\n]|\x1b\[[0-9;]*m)*)::")


def xml(text: str) -> str:
    """Text that any XML 1.0 parser takes: colours stripped, the rest of the illegal shown as ``#x1B``."""
    if _is_harmless(text):
        return text
    plain = _ANSI.sub("", text).replace("\r\n", "\n")
    return _NOT_XML.sub(lambda match: f"#x{ord(match[0]):02X}", plain)


def one_line(text: str, limit: int | None = None) -> str:
    """Text on one line, every invisible character shown as in a Python literal, cut to ``limit`` characters."""
    visible = text if _is_harmless(text) else _CONTROL.sub(_escape_sequence, text)
    return shorten(visible, limit) if limit is not None else visible


def shorten(text: str, limit: int) -> str:
    """The first ``limit`` characters, the last of them an ellipsis when something was cut."""
    return text if len(text) <= limit else text[: limit - 1] + ELLIPSIS


def terminal(text: str) -> str:
    """One line for stdout or stderr: nothing invisible in it, and nothing that the runner would take for a command."""
    return log(one_line(text))


def log(text: str) -> str:
    """Whole lines for stdout or stderr, their own colours kept, with every workflow command broken.

    The runner takes ``##[`` anywhere in a line, and ``::`` where a line starts once its white space is trimmed. A
    wrapped line can start in the middle of a name, hence this runs over the finished text.
    """
    return _COMMAND.sub(r"\1\\::", text.replace(_LEGACY_COMMAND, r"##\["))


def command_data(text: str) -> str:
    """The message of a workflow command. Line breaks survive; ``%`` is encoded first, as the runner decodes it last."""
    visible = log(_CONTROL_BUT_NEWLINE.sub(_escape_sequence, text))
    return visible.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def command_property(text: str) -> str:
    """The value of a workflow command's property, which also ends at a colon or a comma."""
    visible = one_line(text).replace(_LEGACY_COMMAND, r"##\[")
    return visible.replace("%", "%25").replace(":", "%3A").replace(",", "%2C")


def markdown(text: str, limit: int = 300) -> str:
    """A code span: GitHub makes no mention, link, reference or HTML of what is in it.

    The fence is longer than any run of backticks inside. For a table, use ``markdown_cell``.
    """
    return _code_span(one_line(text, limit))


def markdown_cell(text: str, limit: int = 300) -> str:
    """A code span that may stand in a table, where a pipe ends the cell even inside a span.

    A pipe is escaped as tables demand. Behind a backslash, where renderers disagree about who escapes whom, it
    becomes a broken bar.
    """
    return _code_span(one_line(text, limit).replace("\\|", "\\\N{BROKEN BAR}").replace("|", r"\|"))


def _is_harmless(text: str) -> bool:
    """Nearly all text is, and reports are written after every check."""
    return text.isascii() and text.isprintable()


def _code_span(content: str) -> str:
    if not content.strip():
        return "(empty)"
    if "`" not in content and content[0] != " " != content[-1]:
        return f"`{content}`"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", content)), default=0))
    pad = " " if content[0] in " `" or content[-1] in " `" else ""
    return f"{fence}{pad}{content}{pad}{fence}"


def _escape_sequence(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
