"""FSDP, tensor parallelism and DDP around the linears, in two processes on this machine: the checks of `sharded.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch.distributed

if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
    pytest.skip("needs torch.distributed with gloo", allow_module_level=True)

ROOT = Path(__file__).parents[2]
LIMIT = 240  # seconds for all checks together: they take some ten, and more where kernels are compiled first


def outcomes(folder):
    """What every check said, in one process after the other: name -> [text, ...], empty for what holds."""
    from tests.ecosystem.sharded import CHECKS, WORLD  # the names alone; its imports take seconds

    loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    command = [sys.executable, "-m", "tests.ecosystem.sharded"]
    logs = [(folder / f"{rank}.jsonl", folder / f"{rank}.txt") for rank in range(WORLD)]
    processes = []
    for rank, (out, err) in enumerate(logs):
        with out.open("w") as stdout, err.open("w") as stderr:
            arguments = [*command, str(rank), str(folder / "meeting")]
            environment = {**os.environ, **loopback}
            processes.append(
                subprocess.Popen(arguments, cwd=ROOT, env=environment, stdout=stdout, stderr=stderr)
            )
    end = time.monotonic() + LIMIT
    for process in processes:
        try:
            process.wait(timeout=max(1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    said = {name: [] for name in CHECKS}
    for out, err in logs:
        lines = {line["check"]: line["trouble"] for line in map(json.loads, out.read_text().splitlines())}
        for name, texts in said.items():
            texts.append(lines.get(name, f"was not reached: {err.read_text()[-2000:]}"))
    return said


def test_split_over_two_processes(tmp_path):
    """One test for all checks, so that the processes start once however many workers run the tests."""
    failed = {name: texts for name, texts in outcomes(tmp_path).items() if any(texts)}
    assert not failed, "\n".join(f"{name}: {text}" for name, texts in failed.items() for text in texts)
