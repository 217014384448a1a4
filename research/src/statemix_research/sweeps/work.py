"""What a worker does with a job: train or time in the job's folder, and write down how it went."""

from __future__ import annotations

import contextlib
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
    RunFolder,
    build_device,
    leaving,
    train,
    train_concurrently,
)
from statemix.training.files import write_json
from statemix_research.sweeps.probes import PROBES
from statemix_research.sweeps.store import FAILED, Job, Store
from statemix_research.sweeps.throughput import measure

BUSY = 0.5
"""Seconds between two looks at a run that another process is training."""

_ALONE = threading.Lock()
"""Runs of one process come one after another: the first weights are drawn from the process's own random state."""


class Outcome(NamedTuple):
    """How a job ended: a status of the store or "interrupted", and the error of a failure."""

    key: str
    status: str
    error: str = ""


KINDS: dict[str, Callable[[dict[str, Any], Path], dict[str, Any]]] = {
    "train": lambda content, folder: train(Config.from_dict(content), folder, progress=False),
    "throughput": measure,
}
"""What each kind of job does with its content in its folder; returns the summary that it wrote."""


def execute(job: Job, store: str) -> Outcome:
    """Do a job, or go on with it where it was; waits while another process is at it.

    Never raises for what goes wrong in the work: the traceback goes into the run's history and the outcome says
    "failed". A run that came to its end is not run again.
    """
    place = Store(store)
    with _ALONE:
        try:
            return Outcome(job.key, _work(job, place))
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            place.note(job.key, FAILED, error=text, traceback=traceback.format_exc())
            return Outcome(job.key, FAILED, text)


def execute_packed(jobs: Sequence[Job], store: str, side_by_side: int) -> list[Outcome]:
    """As `execute` for each job, but the trainings run side by side in this process (`train_concurrently`)."""
    place, fresh = Store(store), list[Job]()
    for job in jobs:
        with contextlib.suppress(RunError):  # which `execute` will tell
            if job.kind == "train" and _begin(job, place) is None:
                fresh.append(job)
    with _ALONE:
        summaries = train_concurrently(
            [Config.from_dict(job.content) for job in fresh],
            [place.folder(job.key) for job in fresh],
            concurrency=side_by_side, progress=False,
            ended=lambda number, summary: _note_end(fresh[number], place, summary),
        )  # fmt: skip
    left = leaving() or any(summary["status"] in ("interrupted", "waiting") for summary in summaries)
    failed = {
        job.key: summary["error"]
        for job, summary in zip(fresh, summaries, strict=True)
        if summary["status"] == FAILED and not _is_busy(summary)
    }
    outcomes = []
    for job in jobs:
        if job.key in failed:
            outcomes.append(Outcome(job.key, FAILED, failed[job.key]))
        elif left:
            outcomes.append(Outcome(job.key, "interrupted"))
        else:  # probes; and what another process was training
            outcomes.append(execute(job, store))
    return outcomes


def _is_busy(summary: dict[str, Any]) -> bool:
    """Whether the run "failed" because another process is training it."""
    return str(summary["error"]).startswith(f"{BusyError.__name__}:")


def _note_end(job: Job, store: Store, summary: dict[str, Any]) -> None:
    if summary["status"] != FAILED:
        note_ended(job, store, summary["status"])
    elif not _is_busy(summary):
        store.note(job.key, FAILED, error=summary["error"], traceback=summary["traceback"])


def _work(job: Job, store: Store) -> str:
    summary = _begin(job, store) or _patiently(job, store)
    if summary["status"] in ("interrupted", "diverged"):
        return str(summary["status"])
    for name in job.probes:
        if leaving():
            return "interrupted"
        path = store.probe_path(job.key, name)
        if not path.exists():
            write_json(path, {"run": job.key, **PROBES[name].take(store.folder(job.key))})
    if store.failure(job.key) is not None:
        store.note(job.key, "measured")  # a probe that failed before
    return "finished"


def _begin(job: Job, store: Store) -> dict[str, Any] | None:
    """The summary of a run that came to its end, else None: the work begins.

    A run is reopened for probes of its weights if they were not kept, as those of an imported run are not.
    """
    folder = RunFolder(store.folder(job.key))
    summary = store.summary(job.key)
    if summary is not None:
        on_weights = [name for name in job.probes if PROBES[name].on_weights]
        if (
            summary["status"] == "diverged"
            or folder.weights.exists()
            or all(store.probe_path(job.key, name).exists() for name in on_weights)
        ):
            return summary
        store.reopen(job.key)
    if job.kind == "train" and not folder.config.exists():
        # first, since a folder with a history and no configuration would be a stranger's
        write_json(folder.config, job.content)
    store.note(job.key, "started")
    return None


def _patiently(job: Job, store: Store) -> dict[str, Any]:
    """Do the work, or wait for whoever is at it."""
    is_waiting = False
    while True:
        try:
            summary = KINDS[job.kind](job.content, store.folder(job.key))
        except BusyError:
            if not is_waiting:
                store.note(job.key, "waiting")
            is_waiting = True
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
