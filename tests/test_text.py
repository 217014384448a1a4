"""Text for people."""

from __future__ import annotations

import pytest

from statemix.text import duration, encoded, visible

SHOWN = {
    "a[b]c [red] :smile:": "a[b]c [red] :smile:",
    "ü→名": "ü→名",
    "\x1b[31m": "\\x1b[31m",
    "a\nb\tc\r": "a\\nb\\tc\\r",
    "\x9b2J\x7f": "\\x9b2J\\x7f",
    "\u2028\u2029\x85": "\\u2028\\u2029\\x85",
    "\u202etxt": "\\u202etxt",
    "\udcff": "\\xff",
    "\udcc3\udcbc": "ü",
    "\ud800": "\\ud800",  # noqa: F601 - ruff takes all halves of characters for one
}


@pytest.mark.parametrize("text", SHOWN, ids=ascii)
def test_visible(text):
    assert visible(text) == SHOWN[text]
    assert visible(visible(text)) == SHOWN[text]


def test_what_is_kept():
    assert visible("a\nb\x1b", keep="\n") == "a\nb\\x1b"


def test_encoded_can_be_written_and_keeps_the_rest():
    assert encoded("a\n\x1b\udcc3\udcbc\udcff") == "a\n\x1bü\\xff"


def test_durations():
    assert [duration(s) for s in (-1, 0.4, 59, 60, 185, 3600, 7800)] == [
        "0 s", "0 s", "59 s", "1 min 00 s", "3 min 05 s", "1 h 00 min", "2 h 10 min",
    ]  # fmt: skip
