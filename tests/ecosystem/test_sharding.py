"""FSDP, tensor parallelism and DDP around the linears, in two processes on this machine: the checks of `sharded.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed

if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
    pytest.skip("needs torch.distributed with gloo", allow_module_level=True)

from tests.ecosystem.sharded import CHECKS, WORLD

ROOT = Path(__file__).parents[2]
LIMIT = 180  # seconds for all checks together: they take some thirty


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What every check said, in one process after the other: name -> [text, ...], empty for what holds."""
    meeting = tmp_path_factory.mktemp("group") / "meeting"
    loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.ecosystem.sharded", str(rank), str(meeting)],
            cwd=ROOT, env={**os.environ, **loopback}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in range(WORLD)
    ]  # fmt: skip
    said = {name: [] for name in CHECKS}
    for process in processes:
        try:
            out, err = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
        lines = {line["check"]: line["trouble"] for line in map(json.loads, out.splitlines())}
        for name, texts in said.items():
            texts.append(lines.get(name, f"was not reached: {err[-2000:]}"))
    return said


@pytest.mark.parametrize("check", CHECKS)
def test_split_over_two_processes(check, outcomes):
    assert outcomes[check] == [""] * WORLD, "\n".join(outcomes[check])
