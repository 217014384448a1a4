"""Plain lines about what is under way: when they are due, and what they say of compilers."""

from __future__ import annotations

import io
import sys
import threading
import time
import types

import pytest

from statemix import waiting
from statemix.waiting import COMPILING, Lines, compiling


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is moved."""
    now = [100.0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: now[0])
    return now


def test_a_line_is_due_at_every_tenth_and_after_a_while(clock):
    def due(lines, done):
        lines.done = done
        return lines.is_due()

    lines = Lines(str, 200)
    assert [step for step in range(1, 201) if due(lines, step)] == list(range(20, 201, 20))
    lines = Lines(str, 1000, 500)
    assert not due(lines, 501)
    clock[0] += waiting.INTERVAL
    assert due(lines, 502)
    assert not due(lines, 503)
    assert due(lines, 600)


def test_a_reader_that_left_and_no_stream_at_all_stop_nothing(monkeypatch):
    class Left(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    for stream in (Left(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        with Lines(lambda: "line", 2) as lines:
            lines.moved(1)


def test_time_alone_makes_a_line(monkeypatch, capsys):
    monkeypatch.setattr(waiting, "INTERVAL", 0.0)
    with Lines(lambda: "still here", 10):
        for _ in range(100):
            time.sleep(0.05)
            if capsys.readouterr().err.startswith("still here\n"):
                break
        else:
            pytest.fail("nothing was said")


def in_module(name, function):
    """`function` called by one that says it is of module `name`."""
    module = types.ModuleType(name)
    exec("def call(function):\n    return function()", module.__dict__)
    return module.call(function)


def test_compilers_are_seen_at_work_in_every_thread():
    assert not compiling()
    assert in_module("numba.core.compiler_machinery", compiling)
    assert in_module("triton.compiler.compiler", compiling)
    assert in_module("torch._inductor.compile_fx", compiling)
    assert not in_module("numba.core.caching", compiling)
    begun, over = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=in_module, args=("numba.core.compiler", lambda: begun.set() or over.wait(10))
    )
    thread.start()
    begun.wait(10)
    try:
        assert compiling()
    finally:
        over.set()
        thread.join()
    assert not compiling()


def test_that_kernels_are_compiled_is_said_once_before_the_first_step(monkeypatch, capsys):
    monkeypatch.setattr(waiting, "PATIENCE", 0.0)
    monkeypatch.setattr(waiting, "compiling", lambda: True)
    with Lines(lambda: "x", 10):
        for _ in range(100):
            time.sleep(0.05)
            if said := capsys.readouterr().err:
                break
        time.sleep(0.6)
    assert said + capsys.readouterr().err == f"{COMPILING}\n"
