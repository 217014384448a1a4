"""Compiling ahead: once for every build, before its runs begin, and no failure of it stops a sweep."""

from __future__ import annotations

import datetime
import functools
import multiprocessing
import time
import types

import pytest
import torch
from statemix_research.sweeps import (
    Store,
    ahead,
    default_compilers,
    executors,
    jobs_of,
    make_plan,
    run_all,
    run_sweep,
    sweep,
)
from statemix_research.sweeps.ahead import Ahead, build_of, compile_steps
from statemix_research.sweeps.executors import Processes

from research.tests.sweeps.helpers import compile_and_tell, events, experiment


@pytest.fixture
def jobs():
    """Two models, two seeds, two rates: two builds."""
    return jobs_of(make_plan(experiment(steps=6, rates=(1e-2, 1e-3)), "full").cells)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where `compile_and_tell` tells."""
    work = functools.partial(compile_and_tell, tmp_path)
    monkeypatch.setattr(sweep, "Ahead", functools.partial(Ahead, work=work))
    monkeypatch.setattr(ahead, "is_compiled", lambda job: job.kind == "train")  # as on a GPU
    return tmp_path


def compiled(place):
    """(time, block size) of every compilation."""
    lines = (place / "compiled").read_text().splitlines()
    return [(float(line.split()[0]), int(line.split()[1])) for line in lines]


def test_a_build_is_all_but_rates_seeds_and_biases(jobs):
    assert [build_of(job) for job in jobs] == [build_of(jobs[0])] * 4 + [build_of(jobs[-1])] * 4
    for change in (
        {"task": {"length": 7}}, {"model": {"depth": 3}}, {"mixer": {"normalization": "relu"}},
        {"training": {"batch_size": 17}},
    ):  # fmt: skip
        (section, values), *_ = change.items()
        content = {**jobs[0].content, section: {**jobs[0].content[section], **values}}
        assert build_of(jobs[0]._replace(content=content)) != build_of(jobs[0])


def test_each_build_is_compiled_once_before_its_runs_begin(jobs, place):
    store = Store(place / "s")
    left = []
    with Processes(2) as executor:
        run_sweep(jobs, store, executor, compilers=1, watch=lambda now: left.append(now.compiling))
    assert [size for _, size in compiled(place)] == [1, 3]
    assert (left[0], left[-1]) == (2, 0)
    for job in jobs:
        (started,) = events(store, job.key, "started")
        (when,) = (when for when, size in compiled(place) if size == job.content["mixer"]["block_size"])
        begun = datetime.datetime.fromisoformat(
            started["time"]
        ).timestamp()  # whole seconds; compiling takes two
        assert begun >= int(when)
        assert store.status(job) == "finished"


@pytest.mark.parametrize("ill", ["raises", "dies"])
def test_what_cannot_be_compiled_is_run_all_the_same(jobs, place, ill):
    (place / ill).touch()
    with Processes(1) as executor:
        progress = run_sweep(jobs, Store(place / "s"), executor, compilers=2, packed=2)
    assert progress.counts["finished"] == len(jobs)
    assert sorted(size for _, size in compiled(place)) == [1, 3]


def test_asked_to_leave_compilers_leave_at_once(jobs, place):
    (place / "hangs").touch()
    begun = time.monotonic()

    def impatient(progress):
        if (place / "compiled").exists():
            raise KeyboardInterrupt

    with Processes(1) as executor, pytest.raises(KeyboardInterrupt):
        run_sweep(jobs, Store(place / "s"), executor, compilers=1, watch=impatient)
    assert time.monotonic() - begun < 60
    assert not multiprocessing.active_children()
    assert not list((place / "s").glob("*/summary.json"))


def test_nothing_is_compiled_for_what_is_trained_or_timed_alone(jobs, place):
    store = Store(place / "s")
    with Processes(2) as executor:
        run_sweep(jobs, store, executor)
        timed = [job._replace(measures=("pace",)) for job in jobs[:1]]
        progress = run_all(timed, store, executor, compilers=2)
    assert progress.counts["finished"] == 1
    assert not (place / "compiled").exists()


def test_a_time_limit_saves_and_leaves(place):
    store = Store(place / "s")
    todo = jobs_of(make_plan(experiment(steps=3000), "full").cells)
    with Processes(1) as executor, pytest.raises(KeyboardInterrupt):
        run_sweep(todo, store, executor, until=time.monotonic() + 4)
    (left,) = (job for job in todo if store.folder(job.key).exists())
    assert [line["status"] for line in events(store, left.key, "ended")] == ["interrupted"]
    assert store.status(left) == "unfinished"


def test_first_steps_are_taken(jobs, monkeypatch):
    taken, advance = [], ahead.Runner.advance

    def noted(self, count):
        advance(self, count)
        taken.append(self.step)

    monkeypatch.setattr(ahead.Runner, "advance", noted)
    compile_steps(jobs[0].content)
    assert taken == [ahead.STEPS]


def test_what_nobody_compiles_waits_for_nothing(jobs):
    one = Ahead(jobs, 2)  # on a CPU
    assert one.left == 0
    assert all(one.ready(job) for job in jobs)


def test_compilers_by_default():
    assert default_compilers("tcp://somewhere:1") == 0
    if not torch.cuda.is_available():
        assert default_compilers(None) == 0
    with pytest.raises(ValueError, match="compilers: got -1"):
        run_sweep([], Store("nowhere"), None, compilers=-1)


@pytest.mark.parametrize(
    ("cards", "gigabytes", "cores", "wanted"), [(2, 80, 32, 24), (1, 80, 16, 15), (1, 16, 16, 4)]
)
def test_compilers_leave_cores_and_memory_to_the_trainings(monkeypatch, cards, gigabytes, cores, wanted):
    card = types.SimpleNamespace(total_memory=gigabytes << 30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: card)
    monkeypatch.setattr(executors, "cores", lambda: cores)
    assert default_compilers(None) == wanted
