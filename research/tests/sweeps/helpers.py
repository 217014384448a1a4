"""Tiny grids, and work that kills or fails; everything here can be imported by a worker."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path

from statemix_research.paper.experiment import Experiment
from statemix_research.sweeps.grid import Sweep
from statemix_research.sweeps.store import Job, Store
from statemix_research.sweeps.work import Outcome, execute

QUICK = ("training.steps=4", "training.warmup=1", "training.lr=0.01", "training.seed=0")
"""Settings that make every run of a small preset a matter of seconds."""

TRAINING = {
    "steps": 60, "batch_size": 16, "warmup": 5, "train_examples": 64, "eval_examples": 32, "eval_every": 20,
    "log_every": 10, "checkpoint_every": 10, "eval_lengths": [], "device": "cpu",
}  # fmt: skip


def sweep(steps=60, seeds=(0, 1), **axes):
    """S3, two models, one rate."""
    settings = {"task": {"length": 6}, "model": {"dim": 8}, "training": {**TRAINING, "steps": steps}}
    chosen = {
        "sizes": (("state", 6),),
        "rates": (1e-2,),
        "depths": (1,),
        "seeds": seeds,
        "settings": settings,
    }
    return Sweep(**{"tasks": ("s3",), "models": ("bdlru-1", "bdlru-3"), **chosen, **axes})


def experiment(**axes):
    return Experiment("tiny", "Tiny", "Nothing.", {"full": (sweep(**axes),), "small": (sweep(**axes),)})


def deadly(job: Job, store: str) -> Outcome:
    """Kills its worker, always, for the jobs listed beside the store; works for the others."""
    if job.key in Path(store, "deadly").read_text().split():
        Store(store).note(job.key, "started")
        os.kill(os.getpid(), signal.SIGKILL)
    return execute(job, store)


def events(store: Store, key: str, event: str):
    return [line for line in store.attempts(key) if line["event"] == event]


def ctrl_c(store: Store, runs: int):
    """A `watch` that is Ctrl-C as soon as so many runs have saved something."""

    def watch(_):
        if len(list(store.path.glob("*/checkpoint/state.safetensors"))) >= runs:
            raise KeyboardInterrupt

    return watch


def imported(names):
    """Which modules a worker has before it has done anything."""
    return [name for name in names if name in sys.modules]


def heard():
    """What a worker lets pass of a compiler's words about itself, and of others."""
    with warnings.catch_warnings(record=True) as caught:
        for text in ("TensorFloat32 tensor cores", "\nOnline softmax is disabled", "the disk is nearly full"):
            warnings.warn(text, stacklevel=1)
    return [str(one.message) for one in caught]
