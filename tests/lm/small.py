"""A small run in a process of its own, in several, and killed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from statemix.lm import resolve_lm_config

ROOT = Path(__file__).parents[2]

SETTINGS = (
    "model.dim=16", "data.length=32", "data.eval_sequences=9", "data.workers=0", "training.steps=24",
    "training.batch_size=8", "training.log_every=1", "training.eval_every=12", "training.checkpoint_every=5",
    "training.warmup=4", "training.tensorboard=off", "training.device=cpu",
)  # fmt: skip


def config(pack, *settings):
    """The configuration of the small run."""
    return resolve_lm_config("tiny", overrides=[f"data.pack={pack}", *SETTINGS, *settings])


def launch(pack, folder, *settings, processes=1, code="", **environment):
    """The processes of a run, as torchrun starts them; `code` runs before the training."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    program = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from tests.lm.small import config\nfrom statemix.lm import train_language_model\n"
        f"{code}\ntrain_language_model(config(sys.argv[1], *sys.argv[3:]), sys.argv[2], progress=False)"
    )
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    started = []
    for rank in range(processes):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", program, str(pack), str(folder), *settings],
                env={**os.environ, "PYTHONPATH": paths, **(place if processes > 1 else {}), **environment},
                stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
    return started


def finish(started, codes=None):
    """Wait for processes; their error streams. Their exit codes must be `codes`, all 0 by default."""
    errors = [process.communicate(timeout=400)[1] for process in started]
    found = [process.returncode for process in started]
    assert found == (codes or [0] * len(started)), errors
    return errors


def run(*arguments, **options):
    """A run to its end, in processes of its own."""
    return finish(launch(*arguments, **options))


def kill_at(step, started, folder, victim=0):
    """Kill one process by SIGKILL once the metrics have a step; wait for all."""
    deadline = time.monotonic() + 300
    while max(losses(folder), default=0) < step:
        assert all(process.poll() is None for process in started), [p.communicate()[1] for p in started]
        assert time.monotonic() < deadline, "the step was never reached"
        time.sleep(0.002)
    started[victim].send_signal(signal.SIGKILL)
    for process in started:
        process.communicate(timeout=120)
    return [process.returncode for process in started]


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
