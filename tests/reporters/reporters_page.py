"""Reading a page as a strict reader does: every element closed, every attribute known."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """The elements of a page with their attributes, its ids and what it says.

    Fails where an element is closed that is not open, or left open; SVG elements may close themselves.
    """

    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.comments: list[str] = []
        self._open: list[str] = []
        self._words: list[tuple[tuple[str, ...], str]] = []
        self.feed(markup)
        self.close()
        assert self._open == [], self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len({*names}), (tag, names)
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, tag
        assert self._open[-1] == tag, (self._open, tag, self.getpos())
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._words.append((tuple(self._open), data))

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}

    def attributes(self) -> set[str]:
        return {name for _, given in self.elements for name in given}

    def values(self, name: str) -> list[str]:
        return [given[name] for _, given in self.elements if name in given]

    def text(self, inside: str = "body") -> str:
        return "".join(words for where, words in self._words if inside in where and "style" not in where)
