"""What a worker does with a job: train or time in the job's folder, and write down how it went."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from statemix.environment import describe
from statemix.training import (
    FINAL,
    BusyError,
    Config,
    RunError,
    build_device,
    leaving,
    train,
    train_concurrently,
)
from statemix.training.files import write_json
from statemix_research.sweeps.probes import PROBES
from statemix_research.sweeps.store import FAILED, Job, Store
from statemix_research.sweeps.throughput import measure as measure_throughput

BUSY = 0.5
"""Seconds between two looks at a run that another process is training."""

_ALONE = threading.Lock()
"""Runs of one process come one after another: the first weights are drawn from the process's own random state."""


class Outcome(NamedTuple):
    """How a job ended: a status of the store or "interrupted", and the error of a failure."""

    key: str
    status: str
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
    "failed". A run that came to its end is not run again.
    """
    with _ALONE:
        place = Store(store)
        try:
            status = _work(job, place)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            place.note(job.key, FAILED, error=text, traceback=traceback.format_exc())
            return Outcome(job.key, FAILED, text)
        return Outcome(job.key, status)


def execute_packed(jobs: Sequence[Job], store: str, side_by_side: int) -> list[Outcome]:
    """As `execute` for each job, but the trainings run side by side in this process (`train_concurrently`)."""
    place = Store(store)
    fresh = [job for job in jobs if job.kind == "train" and _begin(job, place)]
    with _ALONE:
        summaries = train_concurrently(
            [Config.from_dict(job.content) for job in fresh],
            [place.folder(job.key) for job in fresh],
            concurrency=side_by_side, progress=False,
            ended=lambda number, summary: _note_end(fresh[number], place, summary),
        )  # fmt: skip
    trained = {job.key: summary for job, summary in zip(fresh, summaries, strict=True)}
    left = leaving() or any(summary["status"] in ("interrupted", "waiting") for summary in summaries)
    outcomes = []
    for job in jobs:
        summary = trained.get(job.key, {"status": "finished"})
        if summary["status"] == FAILED and not _busy(summary):
            outcomes.append(Outcome(job.key, FAILED, summary["error"]))
        elif left:
            outcomes.append(Outcome(job.key, "interrupted"))
        else:  # probes; and what another process was training
            outcomes.append(execute(job, store))
    return outcomes


def _begin(job: Job, store: Store) -> bool:
    """Whether a training is left to do; what is wrong with its folder is left to `execute` to tell."""
    try:
        if _take_up(job, store) is not None:
            return False
        _keep_config(job, store.folder(job.key))
        store.note(job.key, "started")
    except RunError:
        return False
    return True


def _busy(summary: dict[str, Any]) -> bool:
    """Whether the run "failed" because another process is training it."""
    return str(summary["error"]).startswith(f"{BusyError.__name__}:")


def _note_end(job: Job, store: Store, summary: dict[str, Any]) -> None:
    if summary["status"] != FAILED:
        note_ended(job, store, summary["status"])
    elif not _busy(summary):
        store.note(job.key, FAILED, error=summary["error"], traceback=summary["traceback"])


def _work(job: Job, store: Store) -> str:
    folder = store.folder(job.key)
    summary = _take_up(job, store)
    if summary is None:
        if job.kind == "train":
            _keep_config(job, folder)
        summary = _patiently(job, store)
    if summary["status"] in ("interrupted", "diverged"):
        return str(summary["status"])
    for name in job.probes:
        if leaving():
            return "interrupted"
        if not store.probe_path(job.key, name).exists():
            write_json(store.probe_path(job.key, name), {"run": job.key, **PROBES[name].take(folder)})
    if store.failure(job.key) is not None:
        store.note(job.key, "measured")  # a probe that failed before
    return "finished"


def _take_up(job: Job, store: Store) -> dict[str, Any] | None:
    """The summary of a run that came to its end, else None: the work is to be done.

    A run is reopened for probes of its weights if they were not kept, as those of an imported run are not.
    """
    summary = store.summary(job.key)
    kept = (store.folder(job.key) / "model.safetensors").exists()
    if summary is None or summary["status"] == "diverged" or kept:
        return summary
    on_weights = [name for name in job.probes if PROBES[name].on_weights]
    if all(store.probe_path(job.key, name).exists() for name in on_weights):
        return summary
    store.reopen(job.key)
    return None


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
            if leaving():
                return {"status": "interrupted"}
        else:
            note_ended(job, store, summary["status"])
            return summary


def note_ended(job: Job, store: Store, status: str) -> None:
    """Note how a run ended and where, unless another process that brought it to its end has."""
    told = [line for line in store.attempts(job.key) if line["event"] in ("started", "ended")]
    if not (told and told[-1]["event"] == "ended" and told[-1]["status"] in FINAL):
        is_training = job.kind == "train"
        device = build_device(Config.from_dict(job.content)) if is_training else job.content["device"]
        store.note(job.key, "ended", status=status, hardware=describe(str(device)))
