"""Files of packages as text: a reader turns the bytes of one file into units, each a list of paragraphs.

A paragraph has no empty line. HTML and wrapped text lose their line breaks; what is preformatted keeps them.
"""

from __future__ import annotations

import gzip
import html
import json
import re
import string
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import PurePosixPath
from typing import Any

Units = Iterator[list[str]]
"""Parts of a file that belong together: a page, an entry of a dictionary, a description."""

Members = Callable[[str], bytes]
"""Gives another file of the same package."""

BLOCKS = frozenset((
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "div", "dl",
    "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header",
    "hr", "li", "main", "ol", "p", "pre", "section", "summary", "table", "tbody", "tfoot", "thead", "tr",
    "ul",
))  # fmt: skip
"""HTML elements before and after which a paragraph ends."""

HIDDEN = frozenset(("head", "nav", "script", "style", "svg", "template"))
"""HTML elements without text that is read."""

SOURCE_NOTE = re.compile(r"^\s*\[[^\]\n]*(?:Webster|PJC|WordNet|Century Dict)[^\]\n]*\]\s*$", re.MULTILINE)
"""Lines of a dictionary that name the source of an entry."""

SYNONYMS = re.compile(r"\[(?:syn|ant|also):\s[^]]*\]")
"""Of WordNet: words that have the same definition, which stands with each of them."""

POD_CODE = re.compile(r"([A-Z])(?:<<+ (.*?) >>+|<([^<>]*)>)", re.DOTALL)
"""Formatting of Perl's documentation: B<bold>, C<< code >>, L<text|link>, E<gt>."""

POD_SIGNS = {"lt": "<", "gt": ">", "verbar": "|", "sol": "/"}
"""Escapes of Perl's documentation that are signs."""


def join_lines(text: str) -> str:
    """Words with one blank between them."""
    return " ".join(text.split())


def blocks(text: str) -> list[str]:
    """The paragraphs of plain text, as empty lines part them, with their own line breaks."""
    return [part.strip("\n") for part in re.split(r"\n(?:[ \t]*\n)+", text) if part.strip()]


class _Page(HTMLParser):
    """The paragraphs of an HTML page."""

    def __init__(self) -> None:
        super().__init__()
        self.paragraphs: list[str] = []
        self._data: list[str] = []
        self._hidden = ""
        self._depth = self._preformatted = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._hidden:
            self._depth += tag == self._hidden
            return
        if tag in BLOCKS:
            self.end_paragraph()
        elif tag in ("br", "td", "th"):
            self._data.append("\n" if tag == "br" else " ")
        if tag in HIDDEN or ("role", "navigation") in attrs:
            self._hidden, self._depth = tag, 1
        self._preformatted += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if self._hidden:
            self._depth -= tag == self._hidden
            if self._depth == 0:
                self._hidden = ""
            return
        if tag in BLOCKS:
            self.end_paragraph()
        if tag == "pre":
            self._preformatted = max(0, self._preformatted - 1)

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._data.append(data)

    def end_paragraph(self) -> None:
        text = "".join(self._data).replace("¶", "")
        self._data.clear()
        if self._preformatted:
            self.paragraphs += blocks(text)
        elif text := join_lines(text):
            self.paragraphs.append(text)


def html_paragraphs(text: str) -> list[str]:
    """The text of an HTML page or fragment, paragraph by paragraph; scripts, styles and navigation left out."""
    page = _Page()
    page.feed(text)
    page.close()
    page.end_paragraph()
    return page.paragraphs


def read_html(data: bytes, path: str, others: Members) -> Units:
    """A page of HTML: one unit."""
    yield html_paragraphs(_decode(data))


def read_pod(data: bytes, path: str, others: Members) -> Units:
    """A page of Perl's documentation: one unit, without commands and formatting codes."""
    paragraphs = []
    for block in blocks(_decode(data)):
        text = re.sub(r"^=\w+\s*", "", block) if block.startswith("=") else block
        before = None
        while before != text:  # codes lie inside each other
            before, text = text, POD_CODE.sub(_pod_text, text)
        paragraphs.append(text if block[:1].isspace() else join_lines(text))
    yield paragraphs


def _pod_text(found: re.Match[str]) -> str:
    """What a formatting code shows."""
    text = found[2] or found[3] or ""
    shown = {"X": "", "Z": "", "E": html.unescape(f"&{text};"), "L": text.partition("|")[0]}
    return POD_SIGNS.get(text, shown["E"]) if found[1] == "E" else shown.get(found[1], text)


def read_dictionary(data: bytes, path: str, others: Members) -> Units:
    """A dictionary of the DICT protocol, with its index beside it: an entry is a unit.

    Entries with the same definition, as synonyms have them, are one.
    """
    text = gzip.decompress(data)
    rows = _decode(others(f"{PurePosixPath(path).with_suffix('').with_suffix('')}.index")).splitlines()
    places = {tuple(map(_base64, row.split("\t")[1:3])) for row in rows if not row.startswith("00")}
    known: set[str] = set()
    for start, size in sorted(places):
        entry = SOURCE_NOTE.sub("", _decode(text[start : start + size])).translate({123: None, 125: None})
        entry = SYNONYMS.sub("", entry)
        definition = join_lines(entry.partition("\n")[2]) or entry
        if definition not in known:
            known.add(definition)
            yield [join_lines(part) for part in blocks(entry)]


def _base64(digits: str) -> int:
    """A number of a dictionary's index."""
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
    number = 0
    for digit in digits:
        number = number * 64 + alphabet.index(digit)
    return number


def read_sayings(data: bytes, path: str, others: Members) -> Units:
    """A file of sayings, parted by lines of a percent sign: each is a unit."""
    for part in re.split(r"^%+\n", _decode(data), flags=re.MULTILINE):
        yield [block.expandtabs() for block in blocks(part)]


def read_descriptions(data: bytes, path: str, others: Members) -> Units:
    """A translation index of Debian: each package's description is a unit."""
    for record in _decode(data).split("\n\n"):
        name = re.search(r"^Package: (.*)$", record, re.MULTILINE)
        found = re.search(r"^Description-en: (.*(?:\n .*)*)", record, re.MULTILINE)
        if name and found:
            title, _, text = found[1].partition("\n")
            parts = re.split(r"^ \.$", text, flags=re.MULTILINE)
            yield [f"{name[1]}: {title}", *filter(None, map(_description_part, parts))]


def _description_part(text: str) -> str:
    """Lines that are indented further stand for themselves, as lists do."""
    listed = re.search(r"^ +(?:[*+o-] |  )", text, re.MULTILINE)
    lines = [line.strip() for line in text.splitlines()]
    return "\n".join(filter(None, lines)) if listed else " ".join(filter(None, lines))


def read_interface(data: bytes, path: str, others: Members) -> Units:
    """A JSON description of a web service: every documentation string of it is a unit."""
    yield from (html_paragraphs(text) for text in _documentation(json.loads(_decode(data))))


def _documentation(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for one in value:
            yield from _documentation(one)
    elif isinstance(value, dict):
        texts = [value.get(key) for key in ("documentation", "description")]
        texts += value.get("enumDescriptions", []) if isinstance(value.get("enumDescriptions"), list) else []
        yield from (text for text in texts if isinstance(text, str))
        for one in value.values():
            yield from _documentation(one)


def _decode(data: bytes) -> str:
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


READERS: dict[str, Callable[[bytes, str, Members], Units]] = {
    "html": read_html,
    "pod": read_pod,
    "dictionary": read_dictionary,
    "sayings": read_sayings,
    "descriptions": read_descriptions,
    "interface": read_interface,
}
"""Name -> function (content, path, other files) -> units."""
