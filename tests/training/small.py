"""A configuration that trains in a second, and a way to run it in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from statemix.training import Config, resolve_config
from tests.forks import context

try:
    import fcntl
except ImportError:  # a system without such locks
    fcntl = None  # type: ignore[assignment]

SETTINGS = (
    "task.name=cyclic", "task.n=3", "task.length=6", "mixer.name=bdlru", "mixer.block_size=3", "mixer.num_blocks=4",
    "model.dim=8", "model.depth=1", "training.steps=60", "training.batch_size=16", "training.warmup=5",
    "training.lr=0.01", "training.train_examples=200", "training.eval_examples=40", "training.eval_every=20",
    "training.log_every=8", "training.checkpoint_every=10", "training.eval_lengths=[12]",
    "training.tensorboard=off", "training.device=cpu",
)  # fmt: skip


def small(*settings: str) -> Config:
    return resolve_config(overrides=[*SETTINGS, *settings])


def assert_same(one: Path, other: Path) -> None:
    """Two runs wrote the same bytes."""
    for name in ("metrics.jsonl", "model.safetensors", "config.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def shared_folder(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """A folder that is built once in a session, by whichever worker needs it first; not to be changed."""
    base = factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with root.with_suffix(".lock").open("w") as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            half = root.with_suffix(".half")
            half.mkdir()
            build(half)
            half.rename(root)
    return root


PREAMBLE = f"""
import os, signal, sys
import torch
torch.set_num_threads(1)
from statemix.training import RunError, resolve_config, train
import statemix.training.loop as loop
settings = {SETTINGS!r}
"""


def _run(code: str, arguments: list[str], out: str, err: str) -> None:
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.argv[1:] = arguments
    exec(PREAMBLE + code, {"__name__": "__main__"})


def python(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `code` after the preamble in a process of its own; `sys.argv[1:]` are the arguments."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        words = [str(word) for word in arguments]
        process = context().Process(target=_run, args=(code, words, str(out), str(err)))  # type: ignore[attr-defined]
        process.start()
        process.join(120)
        if process.is_alive():
            process.kill()
            raise TimeoutError(err.read_text())
        return subprocess.CompletedProcess([code, *words], process.exitcode, out.read_text(), err.read_text())
