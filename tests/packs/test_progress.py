"""What is shown while text is prepared."""

from __future__ import annotations

import re

import pytest

from statemix.packs import progress as progress_module
from tests.packs.small import prepare

LINE = r"\d{1,3}(,\d{3})* documents, \d{1,3}(,\d{3})* of 60,000 tokens, \d+\.\d MB/s"


def test_a_log_gets_a_line_now_and_then(tmp_path, capsys):
    prepare(tmp_path / "pack", max_tokens=60_000, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 10
    assert [line for line in lines if not re.fullmatch(LINE, line)] == []


@pytest.mark.parametrize("wanted", [False, None])
def test_nothing_is_shown_unasked(tmp_path, capsys, wanted):
    prepare(tmp_path / "pack", progress=wanted)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_line_that_moves(tmp_path, capsys, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setattr(progress_module, "is_watched", lambda: True)
    prepare(tmp_path / "pack", max_tokens=60_000, progress=None)
    shown = capsys.readouterr().err
    assert re.search(LINE, shown)


def test_what_was_there_before_is_no_speed():
    shown = progress_module.Progress(False, None)
    shown.begin(10, 5_000)
    shown.add(2, 1_000, 3_000_000)
    shown._begun -= 2.0
    text = str(shown)
    assert text.startswith("12 documents, 6,000 tokens, ")
    assert 1.0 < float(text.split()[-2]) <= 1.5
