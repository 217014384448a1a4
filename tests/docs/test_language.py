"""Prose speaks the field's words: documentation, docstrings, comments, messages and help texts alike."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRIVATE = {
    r"\brivals?\b": "baseline",
    r"\bcontestants?\b": "baseline",
    r"\bours\b": "statemix, BD-LRU, H-LRU",
    r"\basked\b": "target, requested",
    r"\breached\b": "result",
    r"found or not": "solved",
    r"\bwhat was run\b|\bthat was run\b|\bwere run on\b": "runs",
    r"(?<![\w./:*\\)\]])\.\d+(?![\w.])": "a decimal with a leading zero",
}
"""What nobody outside the project would say, and what to write instead."""

ALWAYS = ("research/notes", "research/results", "benchmarks/records", "tests/docs/test_language.py")
"""Quotations and data."""

OLD_NAMES = {
    ("src/statemix/cli/app.py", '"rivals"'),
    ("research/src/statemix_research/sweeps/rows.py", r'r"(\d+) were asked"'),
    ("research/src/statemix_research/sweeps/rows.py", r'r"one of (\d+) numbers was asked"'),
}
"""Strings that name what older versions called something."""


def files():
    found = [
        ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "mkdocs.yml")
    ]
    for folder in ("docs", "src", "research", "benchmarks", "tools", "examples"):
        found += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md", ".html")]
    names = [path.relative_to(ROOT).as_posix() for path in found]
    return [name for name in names if not name.startswith(ALWAYS) and "/tests/" not in name]


def prose(name):
    """Lines of a file that a person reads: of code the strings and comments alone."""
    text = (ROOT / name).read_text()
    if not name.endswith(".py"):
        yield from enumerate(re.sub(r"`[^`\n]*`", "``", text).splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.STRING, tokenize.COMMENT) or token.type == getattr(
            tokenize, "FSTRING_MIDDLE", -1
        ):
            yield from enumerate(token.string.splitlines(), token.start[0])


@pytest.mark.parametrize("pattern", PRIVATE)
def test_no_private_words(pattern):
    word = re.compile(pattern, re.IGNORECASE)
    lines = [(name, n, line.strip()) for name in files() for n, line in prose(name) if word.search(line)]
    said = [f"{name}:{n}: {line}" for name, n, line in lines if (name, line) not in OLD_NAMES]
    assert said == [], f"write {PRIVATE[pattern]!r}"


def test_the_search_finds():
    word = re.compile(list(PRIVATE)[-1])
    assert [text for text in ("is at .868", "(.5", "± .07") if not word.search(text)] == []
    assert [text for text in ("0.868", "x.5", "file.123", "…/.1.2", "v2.11.0") if word.search(text)] == []
    assert len(files()) > 25
