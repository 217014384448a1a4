"""Hooks of mkdocs: the generated pages in the navigation, a table of settings, equations as MathML."""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parents[1]

FIRST = ("index", "claims")
"""Pages of docs/reproduce/ that stand before the others, which are sorted by name."""

SETTINGS = "<!-- settings -->"
"""Where a page shows every setting of a run."""

RECORDS = "<!-- records -->"
"""Where a page shows every record of the benchmarks."""

FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL
)


def on_config(config: Any) -> Any:
    """Let the generated pages of docs/reproduce/ follow the index of that section."""
    folder = Path(config.docs_dir) / "reproduce"
    names = sorted(page.stem for page in folder.glob("*.md"))
    ordered = [name for name in FIRST if name in names]
    ordered += [name for name in names if name not in FIRST]
    for section in config.nav:
        if "reproduce/index.md" in next(iter(section.values())):
            section["Reproducing the paper"] = [
                f"reproduce/{name}.md" for name in ordered
            ]
    return config


def on_page_markdown(markdown: str, page: Any, **rest: Any) -> str:
    """Put tables made of the code and of the records where a page wants them; wide tables get the page's width."""
    for mark, write in ((SETTINGS, settings), (RECORDS, records)):
        if mark in markdown:
            markdown = markdown.replace(mark, write())
    folder, _, name = page.file.src_uri.partition("/")
    if folder == "reproduce" and name != "index.md":
        page.meta["hide"] = ["toc"]
        markdown = unbroken(markdown)
    return markdown


def unbroken(markdown: str) -> str:
    """Names such as BD-LRU m = 4 stay on one line."""
    return re.sub(r"(?<=LRU) m = (\d+)", "\u00a0m\u00a0=\u00a0\\1", markdown)


def records() -> str:
    """What `python -m benchmarks report` prints of every record, without links."""
    sys.path.insert(0, str(ROOT))  # the benchmarks are not installed
    from benchmarks.records import read_record
    from benchmarks.report import make_page

    paths = sorted((ROOT / "benchmarks" / "records").glob("*.json"))
    page = make_page({str(path): read_record(path) for path in paths}, ROOT)
    page = re.sub(r"\[([^\]]+)\]\([^)]+\.json\)", r"`\1`", page)
    return unbroken(page)


def settings() -> str:
    """Every setting of tasks, layers, models and training as Markdown tables, from where they are declared."""
    from statemix.training.settings import groups

    lines = []
    for title, rows in groups().items():
        if title.startswith("mixer.name=") and title[11:] not in ("bdlru", "hlru"):
            continue  # mixers of other packages
        lines += [
            f"### {title}",
            "",
            "| setting | default | meaning |",
            "|---|---|---|",
        ]
        for row in rows:
            meaning = html.escape(
                f"{row.meaning}; {row.unit}" if row.unit else row.meaning, quote=False
            )
            lines.append(f"| `{row.name}` | `{row.default}` | {meaning} |")
        lines.append("")
    return "\n".join(lines)


def on_page_content(content: str, **_: Any) -> str:
    """TeX between dollars becomes MathML, which browsers show by themselves."""
    return FORMULA.sub(
        lambda found: _mathml(found[1], html.unescape(found[2])), content
    )


def _mathml(element: str, tex: str) -> str:
    return convert(tex, display="block" if element == "div" else "inline")
