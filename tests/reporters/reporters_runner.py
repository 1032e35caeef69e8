"""The runner's parser of workflow commands, ported: what a line of stdout or stderr makes it do."""

from __future__ import annotations

import re

REGISTERED = {
    "stop-commands",
    "set-env",
    "add-path",
    "set-output",
    "save-state",
    "add-mask",
    "add-matcher",
    "remove-matcher",
    "debug",
    "warning",
    "error",
    "notice",
    "group",
    "endgroup",
    "echo",
    "internal-set-repo-path",
}
_DATA = (("%0D", "\r"), ("%0A", "\n"), ("%25", "%"))
_PROPERTY = (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%"))


def lines(text: str) -> list[str]:
    """Lines as the runner reads them: a lone carriage return ends one too."""
    return re.split(r"\r\n|\r|\n", text)


def command(line: str) -> tuple[str, dict[str, str], str] | None:
    """The command of a line, in the new form or in the old one, or None.

    Stricter than the runner: escape sequences and other characters without width are skipped, as a comparison that
    follows the locale may do, and a command need not be registered to count in the old form.
    """
    trimmed = re.sub(r"^(?:\s|\x1b\[[0-9;]*m|[\u200b-\u200f\u2060\ufeff\x00])*", "", line)
    if trimmed.startswith("::") and (end := trimmed.find("::", 2)) >= 0:
        name, _, rest = trimmed[2:end].partition(" ")
        if name in REGISTERED:
            pairs = (pair.partition("=") for pair in rest.split(",") if pair)
            return (
                name,
                {key.strip(): _decoded(value, _PROPERTY) for key, _, value in pairs},
                _decoded(trimmed[end + 2 :], _DATA),
            )
    old = re.search(r"##\[([^\]]*)\](.*)", line)
    return (old[1], {}, old[2]) if old else None


def commands(text: str) -> list[tuple[str, dict[str, str], str]]:
    """All commands of a stream."""
    return [found for line in lines(text) if (found := command(line)) is not None]


def _decoded(text: str, table: tuple[tuple[str, str], ...]) -> str:
    for code, character in table:
        text = text.replace(code, character)
    return text
