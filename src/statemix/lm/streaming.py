"""From token ids to text as it comes: never half a character, nothing behind a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from statemix.packs import Tokenizer

UNKNOWN = "\ufffd"
"""What bytes that are no character, or not one yet, are decoded as."""

CONTEXT = 8
"""Tokens before the new ones that are decoded with them: some tokenizers drop the first space of what they decode."""

MISSING = 3
"""The most bytes of an unfinished character; some tokenizers show each as `UNKNOWN`."""


class TextStream:
    """The text of token ids that come one by one.

    Characters whose bytes are not all there are held back; joined, the parts are what the tokenizer decodes at once.

    >>> from statemix.packs import ByteTokenizer
    >>> stream = TextStream(ByteTokenizer())
    >>> [stream.add(byte) for byte in "né".encode()]
    ['n', '', 'é']
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown = 0
        """Characters of the text of `_ids` that were given away."""

    def add(self, token: int) -> str:
        """What one more token makes certain."""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        tail = text[-MISSING:]
        certain = text[: len(text) - len(tail) + len(tail.rstrip(UNKNOWN))]
        part = certain[self._shown :]
        self._shown = max(self._shown, len(certain))
        if certain == text and len(self._ids) > 2 * CONTEXT:
            self._ids = self._ids[-CONTEXT:]
            self._shown = len(self._tokenizer.decode(self._ids))
        return part

    def end(self) -> str:
        """What is left: characters that never became whole, as U+FFFD."""
        return self._tokenizer.decode(self._ids)[self._shown :]


class StopStrings:
    """Text up to the first of some strings; what may be the beginning of one is held back.

    >>> stops = StopStrings(["end"])
    >>> [stops.add(part) for part in ("the e", "ast e", "nd.")], stops.found
    (['the ', 'east ', ''], True)
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = tuple(strings)
        self._held = ""
        self.found = False

    def add(self, part: str) -> str:
        """What one more part of the text makes certain."""
        text = self._held + part
        places = [place for place in map(text.find, self._strings) if place >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        longest = max(map(len, self._strings), default=1) - 1
        keep = next((n for n in range(min(longest, len(text)), 0, -1) if self._may_begin(text[-n:])), 0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def end(self) -> str:
        """What is left."""
        return self._held

    def _may_begin(self, tail: str) -> bool:
        return any(string.startswith(tail) for string in self._strings)
