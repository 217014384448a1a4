"""Sweeps for real: killed workers, a killed driver, failures, divergence; nothing lost, nothing run twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future
from pathlib import Path

import pytest
import torch
from statemix_research.sweeps import Store, executor_of, jobs_of, make_plan, run_all, run_sweep, work
from statemix_research.sweeps.executors import PRELOADED, Processes
from statemix_research.sweeps.store import Job
from statemix_research.sweeps.sweep import DEATHS
from statemix_research.sweeps.work import Outcome, execute, execute_packed

from research.tests.sweeps.helpers import ctrl_c, deadly, events, experiment, heard, imported
from statemix.training import Config, RunFolder, train

ROOT = Path(__file__).parents[3]


def jobs(**axes):
    return jobs_of(make_plan(experiment(**axes), "full").cells)


def kill_one(store, keys, victims):
    """In a thread: kill -9 the first worker that has saved a checkpoint."""
    deadline = time.monotonic() + 90
    while not victims and time.monotonic() < deadline:
        for key in keys:
            if list((store.path / key).glob("checkpoint/state.safetensors")):
                line = events(store, key, "started")[-1]
                os.kill(line["pid"], signal.SIGKILL)
                victims.append(key)
                return
        time.sleep(0.005)


def assert_each_once(store, keys):
    for key in keys:
        assert len(events(store, key, "ended")) == 1, store.attempts(key)
        assert store.summary(key)["status"] == "finished"


def assert_as_alone(job, store, tmp_path):
    train(Config.from_dict(job.content), tmp_path / "alone" / job.key)
    for name in ("metrics.jsonl", "model.safetensors"):
        alone = (tmp_path / "alone" / job.key / name).read_bytes()
        assert (store.folder(job.key) / name).read_bytes() == alone


@pytest.mark.skipif(torch.cuda.is_available(), reason="there each begins on its own")
def test_workers_begin_with_all_that_is_slow_to_import():
    with Processes(1) as executor:
        assert executor.submit(imported, PRELOADED).result() == PRELOADED


def test_workers_do_not_pass_on_what_compilers_say_of_themselves():
    with Processes(1) as executor:
        assert executor.submit(heard).result() == ["the disk is nearly full"]


def test_a_killed_worker_costs_nothing(tmp_path):
    store, todo = Store(tmp_path / "store"), jobs(steps=100)
    victims: list[str] = []
    keys = [job.key for job in todo]
    killer = threading.Thread(target=kill_one, args=(store, keys, victims))
    killer.start()
    with Processes(2) as executor:
        progress = run_sweep(todo, store, executor)
    killer.join()
    assert (progress.counts["finished"], progress.counts["failed"], progress.deaths) == (4, 0, 1)
    assert_each_once(store, keys)
    started = {key: len(events(store, key, "started")) for key in keys}
    assert started == {key: 2 if key in victims else 1 for key in keys}
    (victim,) = victims
    assert_as_alone(next(job for job in todo if job.key == victim), store, tmp_path)


@pytest.mark.slow
def test_side_by_side_a_killed_worker_costs_nothing(tmp_path):
    """Two workers, two runs in each at a time; one is killed while its runs are half done."""
    store, todo = Store(tmp_path / "store"), jobs(steps=100, seeds=(0, 1, 2))
    victims: list[str] = []
    keys = [job.key for job in todo]
    killer = threading.Thread(target=kill_one, args=(store, keys, victims))
    killer.start()
    with Processes(2) as executor:
        progress = run_sweep(todo, store, executor, packed=2)
    killer.join()
    assert (progress.counts["finished"], progress.deaths, progress.ended, progress.left) == (6, 1, 6, 0)
    assert_each_once(store, keys)
    workers = {key: {line["pid"] for line in store.attempts(key)} for key in keys}
    assert max(map(len, workers.values())) == 2  # the victim went on in another one
    for job in [*todo[:2], *(job for job in todo if job.key in victims)]:
        assert_as_alone(job, store, tmp_path)


@pytest.mark.slow
def test_side_by_side_what_is_trained_is_seen_before_the_worker_is_done(tmp_path):
    """Three runs of five are dealt: two short ones, and one that takes many looks."""
    short, (long, *_) = jobs(steps=6), jobs(steps=500, seeds=(0,))
    seen = []
    with Processes(1) as executor:
        todo = [*short[:2], long, *short[2:]]
        run_sweep(todo, Store(tmp_path), executor, packed=2, watch=lambda now: seen.append(set(now.trained)))
    assert {job.key for job in short[:2]} in seen


def test_side_by_side_each_ends_in_its_own_way(tmp_path):
    """One finished before, one that diverges, one whose folder is damaged, one that fails on the way."""
    settings = ["training.lr=1e30", "training.warmup=0", "training.gradient_clip=0"]
    diverging = jobs_of(make_plan(experiment(steps=40, seeds=(0,)), "full", settings).cells)[0]
    done, good, damaged, failing = jobs(steps=40)
    store = Store(tmp_path)
    execute(done, str(tmp_path))
    store.folder(damaged.key).mkdir()
    (store.folder(damaged.key) / "config.json").write_text("{")
    (store.folder(failing.key) / "metrics.jsonl").mkdir(parents=True)  # cannot be written
    (store.folder(failing.key) / "config.json").write_text(json.dumps(failing.content))
    todo = [done, good, damaged, failing, diverging]
    outcomes = execute_packed(todo, str(tmp_path), 3)
    assert [one.key for one in outcomes] == [job.key for job in todo]
    assert [one.status for one in outcomes] == ["finished", "finished", "failed", "failed", "diverged"]
    assert [store.status(job) for job in todo] == [one.status for one in outcomes]
    for job, outcome in zip(todo, outcomes, strict=True):
        if outcome.status == "failed":
            assert outcome.error == store.failure(job.key)["error"]
            assert "Traceback" in store.failure(job.key)["traceback"]
        else:
            assert len(events(store, job.key, "ended")) == 1


@pytest.mark.slow
def test_side_by_side_asked_to_leave_all_are_saved(tmp_path):
    """Ctrl-C: what is under way is saved, nothing is lost, the same sweep goes on."""
    store, todo = Store(tmp_path / "store"), jobs(steps=100)
    with Processes(1) as executor, pytest.raises(KeyboardInterrupt):
        run_sweep(todo, store, executor, packed=2, watch=ctrl_c(store, 1))
    assert sum(store.status(job) == "unfinished" for job in todo) >= 2
    assert "interrupted" in {line["status"] for job in todo for line in events(store, job.key, "ended")}
    with Processes(1) as executor:
        progress = run_sweep(todo, store, executor, packed=2)
    assert progress.counts["finished"] == 4
    for job in todo[:2]:
        assert_as_alone(job, store, tmp_path)


@pytest.mark.parametrize("packed", [1, 2])
def test_a_time_limit_before_the_workers_have_begun(packed, tmp_path):
    """They leave as soon as they are there."""
    store, todo = Store(tmp_path), jobs(steps=100_000)
    with Processes(2) as executor, pytest.raises(KeyboardInterrupt):
        run_sweep(todo, store, executor, packed=packed, until=time.monotonic() + 0.1)
    assert {store.status(job) for job in todo} <= {"missing", "unfinished"}
    assert not [line for job in todo for line in events(store, job.key, "failed")]


def test_a_time_limit_while_another_process_is_at_the_run(tmp_path):
    """Who waits for a run leaves without it."""
    store, (job, *_) = Store(tmp_path), jobs(steps=100_000)
    store.folder(job.key).mkdir()

    def ctrl_c_at_waiting(_):
        if events(store, job.key, "waiting"):
            raise KeyboardInterrupt

    with (
        RunFolder(store.folder(job.key)).locked(),
        Processes(1) as executor,
        pytest.raises(KeyboardInterrupt),
    ):
        run_sweep([job], store, executor, watch=ctrl_c_at_waiting)
    assert store.status(job) == "unfinished"


class Instant(Executor):
    """Two workers that finish all they are given at once; notes how much that was."""

    workers = 2

    def __init__(self):
        self.given = []

    def submit(self, work, given, *_):
        done = [given] if isinstance(given, Job) else given
        self.given.append(len(done))
        future, outcomes = Future(), [Outcome(job.key, "finished") for job in done]
        future.set_result(outcomes[0] if isinstance(given, Job) else outcomes)
        return future


@pytest.mark.parametrize(
    ("count", "packed", "given"),
    [(100, 4, [25, 19, 14, 11, 8, 6, 5, 4, 4, 4]), (6, 8, [3, 3]), (3, 1, [1, 1, 1]), (400, 4, [32] * 9)],
)
def test_no_worker_holds_what_others_could_do(count, packed, given, tmp_path):
    """At first half of what there is, then less and less: who is done early takes from what is left."""
    todo = [Job(f"job{k}", "train", {}, ()) for k in range(count)]
    executor = Instant()
    run_sweep(todo, Store(tmp_path), executor, packed=packed)
    assert executor.given[: len(given)] == given
    assert sum(executor.given) == count


class Refusing(Instant):
    """Workers that refuse all they are given, and live."""

    def submit(self, work, given, *_):
        future = Future()
        future.set_exception(TypeError("not this"))
        return future


def test_what_a_worker_refuses_is_no_death(tmp_path):
    store, job = Store(tmp_path), Job("job", "train", {}, ())
    progress = run_sweep([job], store, Refusing())
    assert (progress.counts["failed"], progress.deaths) == (1, 0)
    assert store.failure("job")["error"] == "TypeError: not this"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there the setting is possible")
def test_side_by_side_what_a_worker_cannot_do_fails_for_its_own_reason(tmp_path):
    """A bundle that is refused as a whole is tried run by run; no worker died of it."""
    plan = make_plan(experiment(steps=10), "full", ["training.capture=graph"])
    impossible, possible = jobs_of(plan.cells)[0], jobs(steps=10)[1]
    store = Store(tmp_path)
    with Processes(1) as executor:
        progress = run_sweep([impossible, possible], store, executor, packed=2)
    assert (progress.counts["finished"], progress.counts["failed"], progress.deaths) == (1, 1, 0)
    assert "'graph' needs a CUDA device" in store.failure(impossible.key)["error"]
    assert store.status(possible) == "finished"


def test_side_by_side_what_others_train_is_waited_for(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    (job, other, *_), store = jobs(steps=10), Store(tmp_path)
    train(Config.from_dict(job.content), store.folder(job.key))
    summary = (store.folder(job.key) / "summary.json").read_text()
    (store.folder(job.key) / "summary.json").unlink()
    with (store.folder(job.key) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        worker = threading.Thread(target=execute_packed, args=([job, other], str(tmp_path), 2))
        worker.start()
        while not events(store, job.key, "waiting"):
            time.sleep(0.01)
        (store.folder(job.key) / "summary.json").write_text(summary)
    worker.join()
    assert [store.status(one) for one in (job, other)] == ["finished", "finished"]
    assert events(store, job.key, "failed") == events(store, job.key, "ended") == []


def test_a_job_that_keeps_killing_its_worker_fails_alone(tmp_path):
    store, todo = Store(tmp_path), jobs(steps=10)
    (tmp_path / "deadly").write_text(todo[0].key)
    with Processes(2) as executor:
        progress = run_sweep(todo, store, executor, work=deadly)
    assert (progress.counts["finished"], progress.counts["failed"], progress.deaths) == (3, 1, DEATHS)
    assert len(events(store, todo[0].key, "started")) == DEATHS
    assert "died again and again: BrokenProcessPool" in store.failure(todo[0].key)["error"]
    assert_each_once(store, [job.key for job in todo[1:]])


DRIVER = """
import sys
from statemix_research.sweeps import Store, jobs_of, make_plan, run_sweep
from statemix_research.sweeps.executors import Processes
from research.tests.sweeps.helpers import experiment
if __name__ == "__main__":
    with Processes(2) as executor:
        run_sweep(jobs_of(make_plan(experiment(steps=100), "full").cells), Store(sys.argv[1]), executor)
"""


@pytest.mark.slow
def test_a_killed_driver_takes_its_workers_along_and_the_next_goes_on(tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    store, todo = Store(tmp_path / "store"), jobs(steps=100)
    path = os.pathsep.join(str(ROOT / part) for part in ("src", "research/src", "."))
    process = subprocess.Popen(
        [sys.executable, str(script), str(store.path)], env={**os.environ, "PYTHONPATH": path}
    )
    while process.poll() is None and not list(store.path.glob("*/checkpoint/state.safetensors")):
        time.sleep(0.005)
    process.kill()
    process.wait()
    before = {job.key: len(events(store, job.key, "started")) for job in todo}
    assert sum(before.values()) > 0
    assert [job for job in todo if store.status(job) == "unfinished"]
    with Processes(2) as executor:
        progress = run_sweep(todo, store, executor)
    assert progress.counts["finished"] == 4
    assert_each_once(store, [job.key for job in todo])
    with Processes(2) as executor:
        again = run_sweep(todo, store, executor)
    assert (again.found, again.ended) == (4, 0)


def test_a_failure_keeps_its_traceback_and_is_retried_on_request(tmp_path):
    store, (job, *_) = Store(tmp_path), jobs(steps=10)
    (tmp_path / job.key).mkdir()
    (tmp_path / job.key / "config.json").write_text("{")
    outcome = execute(job, str(tmp_path))
    assert outcome.status == "failed"
    assert "cannot read" in outcome.error
    assert "Traceback" in store.failure(job.key)["traceback"]

    class Nobody:
        workers = 1

        def submit(self, *arguments):
            raise AssertionError("nothing was to be run")

    assert run_sweep([job], store, Nobody()).counts["failed"] == 1
    (tmp_path / job.key / "config.json").unlink()
    with Processes(1) as executor:
        progress = run_sweep([job], store, executor, retry=True)
    assert progress.counts["finished"] == 1
    assert store.status(job) == "finished"
    assert store.failure(job.key) is None
    assert len(events(store, job.key, "failed")) == 1  # its history stays


def test_a_diverged_run_is_recorded_and_not_run_again(tmp_path):
    settings = ["training.lr=1e30", "training.warmup=0", "training.gradient_clip=0"]
    job = jobs_of(make_plan(experiment(steps=40), "full", settings).cells)[0]
    assert execute(job, str(tmp_path)).status == "diverged"
    store = Store(tmp_path)
    assert store.status(job) == "diverged"
    assert execute(job, str(tmp_path)).status == "diverged"
    assert len(events(store, job.key, "ended")) == 1


def timed_jobs(**axes):
    return [job._replace(probes=("step_time", "spectrum")) for job in jobs(steps=10, **axes)]


class Watch:
    """How many jobs ran at once, and the most workers, at every look."""

    def __init__(self):
        self.running, self.workers = [], []

    def __call__(self, progress):
        self.running.append(len(progress.running))
        self.workers.append(progress.workers)


def test_timings_come_once_nothing_else_runs(tmp_path):
    store, todo, watch = Store(tmp_path), timed_jobs(), Watch()
    with Processes(2) as executor:
        progress = run_all(todo, store, executor, packed=2, watch=watch)
        again = run_all(todo, store, executor, packed=2)
    assert [store.status(job) for job in todo] == ["finished"] * 4
    assert (progress.found, progress.counts["finished"], progress.left) == (0, 4, 0)
    assert (again.found, again.counts["finished"], again.ended) == (4, 4, 0)
    assert_each_once(store, [job.key for job in todo])
    others = ("summary.json", "spectrum.json", "attempts.jsonl")
    last = max((store.folder(job.key) / name).stat().st_mtime_ns for job in todo for name in others)
    for job in todo:
        assert store.probed(job.key, "step_time")["milliseconds_per_step"] > 0
        assert store.probe_path(job.key, "step_time").stat().st_mtime_ns > last
    assert max(watch.running) > 1
    first = watch.workers.index(1)  # the timings begin
    assert set(watch.workers[:first]) == {2}
    assert set(watch.workers[first:]) == {1}
    assert max(watch.running[first:]) == 1


def test_alone_jobs_run_one_at_a_time(tmp_path):
    store, todo, watch = Store(tmp_path), timed_jobs(seeds=(0,)), Watch()
    with Processes(2) as executor:
        progress = run_all(todo, store, executor, alone=True, packed=2, watch=watch)
        again = run_all(todo, store, executor, alone=True)
    assert max(watch.running) == 1
    assert (progress.found, progress.counts["finished"], progress.ended) == (0, 2, 2)
    assert (again.found, again.ended) == (2, 0)
    assert all(store.probed(job.key, "step_time") for job in todo)


def test_a_timing_that_failed_is_retried_on_request(tmp_path):
    store, (job, damaged, *_) = Store(tmp_path), timed_jobs()
    with Processes(1) as executor:
        run_sweep([job._replace(probes=("spectrum",))], store, executor)
        store.note(job.key, "failed", error="no pace", traceback="Traceback")
        store.folder(damaged.key).mkdir()
        (store.folder(damaged.key) / "config.json").write_text("{")
        todo = [job, damaged]
        left = run_all(todo, store, executor)
        assert (left.counts["finished"], left.counts["failed"]) == (0, 2)
        assert store.probed(job.key, "step_time") is None
        retried = run_all(todo, store, executor, retry=True)
    assert (retried.found, retried.counts["finished"], retried.counts["failed"]) == (1, 1, 1)
    assert store.probed(job.key, "step_time") is not None
    assert store.failure(job.key) is None
    assert len(events(store, damaged.key, "failed")) == 2  # once in each sweep, not again for its timing


def test_executors_are_checked(tmp_path):
    with pytest.raises(ValueError, match="packed: got 0, expected at least 1"):
        run_sweep([], Store(tmp_path), None, packed=0)
    with pytest.raises(ValueError, match="workers: got 0"):
        Processes(0)
    with pytest.raises(ValueError, match="--workers or --scheduler"):
        executor_of(2, "tcp://127.0.0.1:1")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="which is a file"):
        Store(tmp_path / "file")


def test_a_history_goes_on_after_a_line_that_was_cut_off(tmp_path):
    store = Store(tmp_path)
    store.note("key", "started")
    with (tmp_path / "key" / "attempts.jsonl").open("a") as file:
        file.write('{"event": "en')
    store.note("key", "failed", error="why")
    assert [line["event"] for line in store.attempts("key")] == ["started", "failed"]
    assert store.failure("key")["error"] == "why"


def test_an_end_is_noted_once_by_who_brought_it(tmp_path):
    """A worker that comes to a run that another has just ended does not say that it was trained here."""
    store, job = Store(tmp_path), jobs(steps=10)[0]
    assert execute(job, str(tmp_path)).status == "finished"
    store.folder(job.key).joinpath("attempts.jsonl").unlink()
    for event, facts in (("started", {}), ("ended", {"status": "finished", "hardware": {"device": "there"}})):
        store.note(job.key, event, **facts)
    work.note_ended(job, store, "finished")
    assert len(events(store, job.key, "ended")) == 1
