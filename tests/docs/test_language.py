"""Prose speaks the field's words: documentation, docstrings, comments, messages and help texts alike."""

from __future__ import annotations

import functools
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

ALWAYS = ("research/results", "benchmarks/records", "tests/docs/test_language.py")
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


@functools.cache
def prose(name):
    """Lines of a file that a person reads: of code the strings and comments alone."""
    return list(_lines(name, (ROOT / name).read_text()))


def _lines(name, text):
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


NAMED = (
    r"\b[mnBTNDSVp] = \d+(?:(?:,| and| to| or) \d+)*",  # layers and shapes
    r"\b(?:[A-Z][a-z]*|table|figure|part) \d+\b",  # Figure 3, Python 3
    r"\b\d{4}-\d\d-\d\d\b",
    r"[A-Za-z][\w.-]*\d[\w.]*",  # S5, float32, H100
)
"""Digits that are a name."""

NUMBER = re.compile(r"(?<![\w.])\d[\d ]*(?:\.\d+)?(?:e-?\d+)?")
JOINED = re.compile(rf"{NUMBER.pattern} ?(?:±|–|to|of|/|×|and)(?= ?\d)")
"""The first half of one number: a spread, a range, a share, a size."""


def sentences(text):
    """The sentences of a page of Markdown: no code, tables, headings, equations or addresses."""
    text = re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"\$[^$]*\$|`[^`]*`|\]\([^)]*\)|<code>.*?</code>|<[^>]*>", "", text, flags=re.DOTALL)
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )|\n(?=[#|])", text):
        if not block.lstrip().startswith(("|", "#")):
            yield from re.split(r"(?<=[.!?:])\**\s+(?=[A-Z\d(\[*])", " ".join(block.split()))


def count_numbers(sentence):
    for name in NAMED:
        sentence = re.sub(name, "", sentence)
    return len(NUMBER.findall(JOINED.sub("", sentence)))


GENERATED = ("docs/reproduce", "docs/records.md")


@pytest.mark.parametrize("folder", ["docs", "research/notes"])
def test_more_than_two_numbers_make_a_table(folder):
    pages = [path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.md")]
    pages = [page for page in pages if not page.startswith(GENERATED)]
    heavy = [
        f"{page}: {sentence}"
        for page in pages
        for sentence in sentences((ROOT / page).read_text())
        if count_numbers(sentence) > 2
    ]
    assert heavy == []


def test_numbers_are_counted():
    assert count_numbers("With m = 4 and 8, S5 scores 0.868 ± 0.065 (3–5 seeds, 1e-3).") == 3
    assert count_numbers("See Figure 3: float32 takes 20 000 of 40 000 steps.") == 1
    assert list(sentences("# 1 2 3\n\n| 1 | 2 |\n\nOne. Two `1 2 3`.")) == ["One.", "Two ."]


def test_the_search_finds():
    word = re.compile(list(PRIVATE)[-1])
    assert [text for text in ("is at .868", "(.5", "± .07") if not word.search(text)] == []
    assert [text for text in ("0.868", "x.5", "file.123", "…/.1.2", "v2.11.0") if word.search(text)] == []
    assert len(files()) > 25
