"""What a worker does with a job: train or measure in the job's folder, and write down how it went."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from statemix.bench.environment import describe
from statemix.experiments.measures import MEASURES
from statemix.experiments.store import FAILED, Job, Store
from statemix.experiments.throughput import measure as measure_throughput
from statemix.training import Config, train
from statemix.training.build import device_of
from statemix.training.files import BusyError, write_json

BUSY = 0.5
"""Seconds between two looks at a run that another process is training."""

_ALONE = threading.Lock()
"""Runs of one process come one after another: the first weights are drawn from the process's own random state."""


class Outcome(NamedTuple):
    """How a job ended: a status of the store or "interrupted", the seconds it took, and the error of a failure."""

    key: str
    status: str
    seconds: float
    error: str = ""


def _train(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    return train(Config.from_dict(content), folder, progress=False)


KINDS: dict[str, Callable[[dict[str, Any], Path], dict[str, Any]]] = {
    "train": _train,
    "throughput": measure_throughput,
}
"""What each kind of job does with its content in its folder; returns the summary that it wrote."""


def execute(job: Job, store: str) -> Outcome:
    """Do a job, or go on with it where it was; waits while another process is at it.

    Never raises for what goes wrong in the work: the traceback goes into the run's history and the outcome says
    "failed". A run that is at its end is not run again.
    """
    with _ALONE:
        begun, place = time.perf_counter(), Store(store)
        try:
            status = _work(job, place)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            place.note(job.key, FAILED, error=text, traceback=traceback.format_exc())
            return Outcome(job.key, FAILED, time.perf_counter() - begun, text)
        return Outcome(job.key, status, time.perf_counter() - begun)


def _work(job: Job, store: Store) -> str:
    folder = store.folder(job.key)
    summary = store.summary(job.key)
    if summary is None:
        if job.kind == "train":
            _keep_config(job, folder)
        summary = _patiently(job, store)
    if summary["status"] in ("interrupted", "diverged"):
        return str(summary["status"])
    for name in job.measures:
        if not store.measure_path(job.key, name).exists():
            write_json(store.measure_path(job.key, name), MEASURES[name](folder))
    return "finished"


def _keep_config(job: Job, folder: Path) -> None:
    """The configuration first: a folder with a history and no configuration would be a stranger's."""
    if not (folder / "config.json").exists():
        write_json(folder / "config.json", job.content)


def _patiently(job: Job, store: Store) -> dict[str, Any]:
    """Do the work, or wait for whoever is at it."""
    store.note(job.key, "started")
    waiting = False
    while True:
        try:
            summary = KINDS[job.kind](job.content, store.folder(job.key))
        except BusyError:
            if not waiting:
                store.note(job.key, "waiting")
            waiting = True
            time.sleep(BUSY)
            done = store.summary(job.key)
            if done is not None:
                return done  # the other one brought it to its end
        else:
            store.note(job.key, "ended", status=summary["status"], **_place(job))
            return summary


def _place(job: Job) -> dict[str, Any]:
    """Where it ran."""
    device = device_of(Config.from_dict(job.content)) if job.kind == "train" else job.content["device"]
    return {"hardware": describe(str(device))}
