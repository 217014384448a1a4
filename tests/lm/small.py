"""A small run in a process of its own, in several, and killed."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from pathlib import Path

import torch

from statemix.lm import resolve_lm_config, train_language_model
from tests.forks import context

SETTINGS = (
    "model.dim=16", "data.length=32", "data.eval_sequences=9", "data.workers=0", "training.steps=24",
    "training.batch_size=8", "training.log_every=1", "training.eval_every=12", "training.checkpoint_every=5",
    "training.warmup=4", "training.tensorboard=off", "training.device=cpu",
)  # fmt: skip


def config(pack, *settings):
    """The configuration of the small run."""
    return resolve_lm_config("tiny", overrides=[f"data.pack={pack}", *SETTINGS, *settings])


def train(pack, folder, settings, code, environment, errors):
    """A run in this process, with its error stream in a file; `code` runs before it."""
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.environ.update(environment)
    torch.set_num_threads(1)
    exec(code, {})
    train_language_model(config(pack, *settings), folder, progress=False)


def launch(pack, folder, *settings, processes=1, code=""):
    """The processes of a run, with torchrun's environment; `code` runs before the training."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in range(processes):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        errors = str(Path(folder).parent / f"errors-{port}-{rank}")
        arguments = (str(pack), str(folder), settings, code, place if processes > 1 else {}, errors)
        process = context().Process(target=train, args=arguments, name=errors)
        process.start()
        started.append(process)
    return started


def errors_of(process):
    """What a process has written to its error stream."""
    return Path(process.name).read_text() if Path(process.name).exists() else ""


def finish(started, codes=None):
    """Wait for processes; their error streams. Their exit codes must be `codes`, all 0 by default."""
    for process in started:
        process.join(400)
    errors = [errors_of(process) for process in started]
    assert [process.exitcode for process in started] == (codes or [0] * len(started)), errors
    return errors


def run(*arguments, **options):
    """A run to its end, in processes of its own."""
    return finish(launch(*arguments, **options))


def kill_at(step, started, folder, victim=0):
    """Kill one process by SIGKILL once the metrics have a step; wait for all. Their exit codes."""
    deadline = time.monotonic() + 300
    while max(losses(folder), default=0) < step:
        assert all(process.exitcode is None for process in started), [errors_of(one) for one in started]
        assert time.monotonic() < deadline, "the step was never reached"
        time.sleep(0.002)
    started[victim].kill()
    for process in started:
        process.join(120)
    return [process.exitcode for process in started]


def lines(folder, kind):
    """The lines of metrics of a kind; one that is being written is left out."""
    path = Path(folder) / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    found = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in found if line["kind"] == kind]


def losses(folder):
    """{step: (loss, gradient norm, learning rate)}."""
    return {
        line["step"]: (line["loss"], line["gradient_norm"], line["lr"]) for line in lines(folder, "train")
    }


def weights(folder):
    """The digest of the final weights."""
    return hashlib.sha256((Path(folder) / "model.safetensors").read_bytes()).hexdigest()
