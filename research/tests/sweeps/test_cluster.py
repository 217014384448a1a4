"""The same sweeps on a Dask cluster, one of its workers killed on the way."""

from __future__ import annotations

import os
import signal
import threading

import pytest

pytest.importorskip("distributed")

from statemix_research.sweeps import Store, executor_of, jobs_of, make_plan, run_all, run_sweep

from research.tests.sweeps.helpers import ctrl_c, events, experiment
from research.tests.sweeps.test_signals import assert_saved, started
from research.tests.sweeps.test_sweeps import assert_each_once, kill_one

pytestmark = pytest.mark.filterwarnings(
    "ignore"
)  # Dask's own: ports, versions, unclosed streams of killed workers


@pytest.fixture(scope="module")
def address():
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster:
        yield cluster.scheduler_address


@pytest.mark.slow
def test_a_driver_that_is_terminated_has_the_workers_save(tmp_path, address):
    driver = started(tmp_path, address)
    os.kill(driver.pid, signal.SIGTERM)
    assert driver.wait(60) == 130
    assert_saved(Store(tmp_path / "store"))


def test_no_scheduler_there():
    with pytest.raises(OSError, match=r"tcp://127\.0\.0\.1:1"):
        executor_of(None, "tcp://127.0.0.1:1")


@pytest.mark.slow
def test_asked_to_leave_the_workers_save(tmp_path, address):
    """A time limit reaches jobs of a scheduler's workers too; then they are free for the next sweep."""
    store = Store(tmp_path)
    todo = jobs_of(make_plan(experiment(steps=3000), "full").cells)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(todo, store, executor_of(None, address), watch=ctrl_c(store, 2))
    begun = [job for job in todo if events(store, job.key, "started")]
    assert len(begun) == 2
    for job in begun:
        assert [line["status"] for line in events(store, job.key, "ended")] == ["interrupted"]
        assert store.folder(job.key).joinpath("checkpoint/state.safetensors").exists()
    brief = jobs_of(make_plan(experiment(steps=10), "full").cells)
    assert run_all(brief, store, executor_of(None, address)).counts["finished"] == 4


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(tmp_path, address):
    """The last test: the cluster starts another worker in its own time."""
    store = Store(tmp_path)
    todo = jobs_of(make_plan(experiment(steps=200), "full").cells)
    keys, victims = [job.key for job in todo], []
    killer = threading.Thread(target=kill_one, args=(store, keys, victims))
    killer.start()
    executor = executor_of(None, address)
    try:
        progress = run_sweep(todo, store, executor)
    finally:
        executor.shutdown()
        killer.join()
    assert len(victims) == 1
    assert (progress.counts["finished"], progress.counts["failed"]) == (4, 0)
    assert_each_once(store, keys)
