"""SIGTERM and SIGHUP to a sweep, to its driver or to all its processes: what is under way is saved."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest
from statemix_research.sweeps import Store, jobs_of, make_plan, run_sweep
from statemix_research.sweeps.executors import Processes, interruptible

from research.tests.sweeps.helpers import events, experiment

ROOT = Path(__file__).parents[3]

PATH = os.pathsep.join(str(ROOT / part) for part in ("src", "research/src", "."))

DRIVER = """
import signal, sys
from statemix_research.sweeps import Store, executor_of, jobs_of, make_plan, run_sweep
from statemix_research.sweeps.executors import Processes
from research.tests.sweeps.helpers import experiment

if __name__ == "__main__":
    address = sys.argv[2:]
    with executor_of(None, address[0]) if address else Processes(2) as executor:
        try:
            run_sweep(jobs_of(make_plan(experiment(steps=20000), "full").cells), Store(sys.argv[1]), executor)
        except KeyboardInterrupt:
            sys.exit(130)
"""


def started(tmp_path, *arguments, before=None):
    """A driver in a session of its own, once two of its runs have saved something."""
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "store"), *arguments],
        env={**os.environ, "PYTHONPATH": PATH}, start_new_session=True, preexec_fn=before,
    )  # fmt: skip
    deadline = time.monotonic() + 90
    while len(list((tmp_path / "store").glob("*/checkpoint/state.safetensors"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def assert_saved(store):
    """Both runs that were under way noted that they were interrupted, after they had saved."""
    jobs = jobs_of(make_plan(experiment(steps=20000), "full").cells)
    begun = [job for job in jobs if store.folder(job.key).exists()]
    assert len(begun) == 2
    for job in begun:
        assert [line["status"] for line in events(store, job.key, "ended")] == ["interrupted"]
        assert store.folder(job.key).joinpath("checkpoint/state.safetensors").exists()
        assert store.status(job) == "unfinished"


@pytest.mark.slow
def test_a_batch_system_that_ends_all_processes_has_them_save(tmp_path):
    driver = started(tmp_path)
    os.killpg(driver.pid, signal.SIGTERM)
    assert driver.wait(60) == 130
    assert_saved(Store(tmp_path / "store"))


@pytest.mark.slow
def test_a_terminal_that_closes_has_them_save(tmp_path):
    """SIGHUP to all processes, and nothing can be written to the terminal any more."""
    store = tmp_path / "store"
    arguments = [
        "-m",
        "statemix_research",
        "run",
        "fig3",
        "training.steps=20000",
        "training.checkpoint_every=5",
    ]
    options = ["--preset", "small", "--store", str(store), "--workers", "1"]
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, *arguments, *options], stdin=inside, stdout=inside, stderr=inside, start_new_session=True,
        env={**os.environ, "PYTHONPATH": PATH, "TERM": "xterm"},
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(inside)
    deadline = time.monotonic() + 90
    while not list(store.glob("*/checkpoint/state.safetensors")) and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            os.read(terminal, 65536)
    os.close(terminal)
    assert process.wait(60) == 130
    (folder,) = store.iterdir()
    assert [line["status"] for line in events(Store(store), folder.name, "ended")] == ["interrupted"]
    assert (folder / "checkpoint" / "state.safetensors").exists()


@pytest.mark.slow
def test_what_nohup_ignores_stays_ignored(tmp_path):
    """SIGHUP; SIGTERM to the driver alone still saves."""
    driver = started(tmp_path, before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    os.killpg(driver.pid, signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        driver.wait(1)
    os.kill(driver.pid, signal.SIGTERM)
    assert driver.wait(60) == 130
    assert_saved(Store(tmp_path / "store"))


def test_a_worker_that_was_asked_to_leave_is_replaced(tmp_path):
    """It would give back every further job after a step."""
    store, todo = Store(tmp_path), jobs_of(make_plan(experiment(steps=200, seeds=(0,)), "full").cells)
    asked: list[int] = []

    def ask(progress):
        for job in todo:
            if not asked and (store.folder(job.key) / "checkpoint/state.safetensors").exists():
                asked.append(events(store, job.key, "started")[-1]["pid"])
                os.kill(asked[0], signal.SIGTERM)

    with Processes(1) as executor:
        progress = run_sweep(todo, store, executor, watch=ask)
    assert (progress.counts["finished"], progress.interrupted, progress.deaths) == (2, 1, 0)
    workers = {line["pid"] for job in todo for line in events(store, job.key, "started")}
    assert len(workers) == 2
    assert asked[0] in workers


def test_handlers_are_put_back_and_those_of_others_are_left():
    mine = lambda *_: None  # noqa: E731
    before = signal.signal(signal.SIGHUP, mine)
    try:
        with interruptible():
            assert signal.getsignal(signal.SIGHUP) is mine
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGHUP) is mine
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_take_no_handlers():
    failures: list[BaseException] = []

    def sweep():
        try:
            with interruptible():
                pass
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=sweep)
    thread.start()
    thread.join()
    assert not failures
