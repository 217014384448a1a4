"""A page, taken apart."""

from __future__ import annotations

import html.parser


class Page(html.parser.HTMLParser):
    """Everything a page would load, its cells, its open tags."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.loads, self.cells, self.open, self.row = [], [], [], []
        self.feed(text)

    def rows(self):
        """The rows of all tables together, by configuration: {column: text}."""
        found, header = {}, []
        for row in self.cells:
            if row[0] == "configuration":
                header = row
            else:
                found.setdefault(row[0], {}).update(zip(header, row, strict=True))
        return found

    def handle_starttag(self, tag, attrs):
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.row.append("")
        if tag == "tr":
            self.row = []
            self.cells.append(self.row)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("td", "th"):
            self.row[-1] = self.row[-1].strip()

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.row[-1] += data
