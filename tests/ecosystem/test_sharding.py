"""FSDP, tensor parallelism and DDP around the linears, in two processes on this machine: the checks of `sharded.py`."""

from __future__ import annotations

import json
import os
import sys
import time

import pytest
import torch.distributed

if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
    pytest.skip("needs torch.distributed with gloo", allow_module_level=True)

from tests.forks import context

LIMIT = 240  # seconds for all checks together: they take some ten, and more where kernels are compiled first


def check(rank, folder):
    """All checks in this process, one of several; its streams are files of the folder."""
    for stream, name in ((1, f"{rank}.jsonl"), (2, f"{rank}.txt")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), stream)
    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    from tests.ecosystem.sharded import main

    main(rank, folder / "meeting")


def outcomes(folder):
    """What every check said, in one process after the other: name -> [text, ...], empty for what holds."""
    from tests.ecosystem.sharded import CHECKS, WORLD  # the names alone; its imports take seconds

    logs = [(folder / f"{rank}.jsonl", folder / f"{rank}.txt") for rank in range(WORLD)]
    processes = [context().Process(target=check, args=(rank, folder)) for rank in range(WORLD)]
    for process in processes:
        process.start()
    end = time.monotonic() + LIMIT
    for process in processes:
        process.join(max(1, end - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
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
