"""Layers called while the interpreter ends, from threads that outlive the main one, and after a fork."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import weakref

import pytest

pytest.importorskip("numba")

from statemix.ops.cpu import workers
from statemix.ops.cpu.workers import Workers, share

PRELUDE = """
import atexit, os, sys, threading, time
from concurrent.futures import ThreadPoolExecutor

def report(who):
    print(f"{who} {call()}\\n", end="", flush=True)  # one write: threads print side by side

atexit.register(report, "registered before torch")
import torch
torch.set_num_threads(2)
from statemix import BDLRU, hlru_scan

def call():
    layer, x = BDLRU(64, block_size=2), torch.randn(4, 64, 64)  # enough work for two threads
    layer(x)[0].square().mean().backward()
    gates = torch.randn(2, 3, 4, 3, requires_grad=True)
    hlru_scan(gates, torch.randn(2, 3, 4))[0].sum().backward()
    return all(bool(torch.isfinite(p.grad).all()) for p in (*layer.parameters(), gates) if p.grad is not None)

atexit.register(report, "registered after")

def outlive():
    threading.main_thread().join()
    time.sleep(0.1)
    report("thread")
"""

ENDINGS = {
    "a thread's first use": ("threading.Thread(target=outlive).start()", ["thread True"]),
    "an executor goes on": (
        "call(); pool = ThreadPoolExecutor(2)\n"
        "for _ in range(2): pool.submit(lambda: (time.sleep(0.2), report('thread')))",
        ["thread True"] * 2,
    ),
    "an error while a daemon waits": (
        "threading.Thread(target=lambda: (call(), time.sleep(99)), daemon=True).start(); call(); sys.exit(3)",
        [],
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_layers_run_until_the_interpreter_is_gone(ending):
    body, lines = ENDINGS[ending]
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + body], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [*lines, "registered after True", "registered before torch True"]
    assert done.returncode == (3 if "an error" in ending else 0)


FORKED = """
import multiprocessing, os, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
import torch
torch.set_num_threads(2)
from statemix import bdlru_scan

def call():
    gates = torch.randn(2, 64, 64, 2, 3, requires_grad=True)
    bdlru_scan(gates, torch.randn(2, 64, 64, 2))[0].sum().backward()
    assert torch.isfinite(gates.grad).all()

def child():
    torch.set_num_threads(1)  # as a worker of a DataLoader does: torch's own threads do not survive a fork
    call()

if __name__ == "__main__":
    call()
    pid = os.fork()
    if pid == 0:
        child()
        os._exit(7)
    codes = [os.waitpid(pid, 0)[1] >> 8]
    for method in ("fork", "forkserver"):
        process = multiprocessing.get_context(method).Process(target=child)
        process.start()
        process.join()
        codes.append(process.exitcode)
    print(codes)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_child_processes_run_scans(tmp_path):
    script = tmp_path / "forked.py"
    script.write_text(FORKED)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("[7, 0, 0]\n", "", 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_starts_threads_of_its_own():
    def names():
        seen, meet = set(), threading.Barrier(2, timeout=20)
        share(lambda first, last: (meet.wait(), seen.add(threading.current_thread().name)), [0, 1, 2])
        return len(seen)

    assert names() == 2
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = names()
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] >> 8 == 2


CUTS = list(range(0, 45, 5))
SHARES = list(zip(CUTS[:-1], CUTS[1:], strict=True))


def collect(pool, callers=1):
    """What the shares of several callers were, and by how many threads they were taken."""
    seen, by = [[] for _ in range(callers)], set()

    def kernel(first, last, mine):
        by.add(threading.current_thread().name)
        time.sleep(0.001)
        mine.append((first, last))

    threads = [threading.Thread(target=pool.run, args=(kernel, CUTS, (mine,))) for mine in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [sorted(mine) for mine in seen], by


def test_every_share_is_done_once(monkeypatch):
    monkeypatch.setattr(workers, "MAX_THREADS", 3)
    pool = Workers()
    for _ in range(3):
        done, by = collect(pool, callers=4)
        assert done == [SHARES] * 4
    assert sum(name.startswith("statemix") for name in by) <= 3


def refuse(*_):
    raise RuntimeError("can't create new thread at interpreter shutdown")


def test_without_new_threads_the_caller_does_it_all(monkeypatch):
    pool = Workers()
    seen = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        pool.run(lambda first, last: seen.append((first, last)), CUTS, ())
    assert seen == SHARES


def test_a_handler_that_interrupts_the_hiring_does_its_work_alone():
    """The executor's own lock would wait for ever."""
    pool, by = Workers(), set()
    with pool._lock:
        pool.run(lambda first, last: by.add(threading.current_thread()), CUTS, ())
    assert by == {threading.current_thread()}


def test_an_executor_that_has_ended_leaves_all_to_the_caller():
    pool, seen = Workers(), []
    pool._pool.shutdown()
    pool.run(lambda first, last: seen.append((first, last)), CUTS, ())
    assert seen == SHARES


def test_an_error_in_any_share_reaches_the_caller_when_all_are_over():
    over = []

    def kernel(first, last):
        time.sleep(0.002)
        if first == 20:
            raise ValueError("share 20")
        over.append(first)

    with pytest.raises(ValueError, match="share 20"):
        Workers().run(kernel, CUTS, ())
    assert sorted(over) == [first for first, _ in SHARES if first != 20]


class Big:
    """Stands for a tensor."""


def test_a_finished_job_keeps_nothing_alive(monkeypatch):
    """Not even where its workers come late or are held up elsewhere."""
    monkeypatch.setattr(workers, "MAX_THREADS", 1)
    pool, held, go = Workers(), threading.Event(), threading.Event()

    def hold(first, last):
        if threading.current_thread().name.startswith("statemix"):
            held.set()
            go.wait(20)
        else:
            held.wait(20)

    holding = threading.Thread(target=pool.run, args=(hold, [0, 1, 2], ()))
    holding.start()
    assert held.wait(20)
    big = Big()
    gone = weakref.ref(big)
    pool.run(lambda first, last, thing: None, CUTS, (big,))
    del big
    gc.collect()
    assert gone() is None
    go.set()
    holding.join()
