"""Documents, tokens and speed of what is being prepared: a line that moves on a terminal, else a line now and then."""

from __future__ import annotations

import contextlib
import time
from contextlib import AbstractContextManager
from typing import Any

from statemix.extras import installed
from statemix.waiting import Lines, is_watched

UNKNOWN = 1 << 62
"""The total of a source whose end nobody knows."""


class Progress:
    """A context. wanted: True shows it, False does not, None does on a terminal where rich is installed."""

    def __init__(self, wanted: bool | None, total_tokens: int | None) -> None:
        self.documents = self.tokens = self.bytes = 0
        self._total, self._begun = total_tokens, time.monotonic()
        self._live: Any = None
        self._lines: Lines | None = None
        if is_watched() and wanted is not False and installed("rich"):
            from rich.console import Console
            from rich.live import Live

            plain = Console(stderr=True, markup=False, highlight=False)
            self._live = Live(console=plain, get_renderable=self.__str__, refresh_per_second=4)
        elif wanted:
            self._lines = Lines(self.__str__, total_tokens or UNKNOWN)
        self._shown: AbstractContextManager[Any] = self._live or self._lines or contextlib.nullcontext()

    def __enter__(self) -> Progress:
        self._shown.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._shown.__exit__(*error)

    def begin(self, documents: int, tokens: int) -> None:
        """So much was there before; it does not count in the speed."""
        self.documents, self.tokens, self._begun = documents, tokens, time.monotonic()

    def add(self, documents: int, tokens: int, size: int) -> None:
        """So much more; size in bytes of UTF-8."""
        self.documents, self.tokens, self.bytes = (
            self.documents + documents,
            self.tokens + tokens,
            self.bytes + size,
        )
        if self._lines is not None:
            self._lines.moved(self.tokens)

    def __str__(self) -> str:
        of = f" of {self._total:,}" if self._total else ""
        speed = self.bytes / 1e6 / max(1e-9, time.monotonic() - self._begun)
        return f"{self.documents:,} documents, {self.tokens:,}{of} tokens, {speed:.1f} MB/s"
