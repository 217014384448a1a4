"""Text that every machine has: the sources and the documentation of the Python that runs this."""

from __future__ import annotations

import inspect
import platform
import sys
import sysconfig
import tokenize
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from statemix.packs.sources import Documents

SKIPPED = frozenset(
    {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "pydoc_data"}
)
"""Folders that are not of the library, or not on every machine. The topics of pydoc are documents of their own."""


def standard_library() -> Documents:
    """Help topics, the documentation of built-in modules, and sources (their documentation in them), by name.

    About 12 MB; the same documents in the same order wherever the same Python is installed.
    """
    from pydoc_data.topics import topics

    root = Path(sysconfig.get_path("stdlib"))
    files = [path for path in root.rglob("*.py") if not SKIPPED & set(path.relative_to(root).parts)]
    documents = [
        *((f"topic {name}", partial(topics.__getitem__, name)) for name in sorted(topics)),
        *((f"module {name}", partial(_documentation, name)) for name in sorted(sys.builtin_module_names)),
        *((path.relative_to(root).as_posix(), partial(_read_source, path)) for path in sorted(files)),
    ]
    version = f"{platform.python_implementation()} {platform.python_version()}"
    return Documents(
        "stdlib", documents, {"source": "stdlib", "python": version, "documents": len(documents)}
    )


def _read_source(path: Path) -> str:
    """A module's text; nothing for files that are meant not to be read."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (SyntaxError, UnicodeDecodeError):
        return ""


def _documentation(name: str) -> str:
    """The docstrings of a module written in C, which no source holds."""
    module = import_module(name)
    entries = [(name, inspect.getdoc(module) or "")]
    for key, member in sorted(vars(module).items()):
        if _is_documented(key, member):
            entries.append((f"{name}.{key}", inspect.cleandoc(member.__doc__)))
            if inspect.isclass(member):
                entries += _methods(f"{name}.{key}", member)
    return "\n\n".join(f"{title}\n{text}" for title, text in entries if text)


def _methods(title: str, kind: type) -> list[tuple[str, str]]:
    return [
        (f"{title}.{key}", inspect.cleandoc(str(member.__doc__)))
        for key, member in sorted(vars(kind).items())
        if not key.startswith("_") and inspect.isroutine(member) and member.__doc__
    ]


def _is_documented(name: str, member: Any) -> bool:
    """Whether a member is the interpreter's own; programs replace the hooks and add names to the built-in ones."""
    own = inspect.isbuiltin(member) or (
        inspect.isclass(member)
        and member.__module__ in sys.builtin_module_names
        and not member.__flags__ & _HEAP
    )
    named = own and member.__name__ == name and not name.startswith("_") and not name.endswith("hook")
    return named and isinstance(member.__doc__, str)


_HEAP = 1 << 9
"""The flag of a class that was made while the program runs."""
