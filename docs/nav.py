"""A hook of mkdocs: the generated pages of docs/reproduce/ follow the index of that section."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FIRST = ("index", "claims")
"""Pages that stand before the others, which are sorted by name."""


def on_config(config: Any) -> Any:
    """Extend the section that holds reproduce/index.md by the other pages of its folder."""
    folder = Path(config.docs_dir) / "reproduce"
    names = sorted(page.stem for page in folder.glob("*.md"))
    ordered = [name for name in FIRST if name in names] + [
        name for name in names if name not in FIRST
    ]
    pages = [f"reproduce/{name}.md" for name in ordered]
    for section in config.nav:
        if "reproduce/index.md" in next(iter(section.values())):
            section["Reproducing the paper"] = pages
    return config
