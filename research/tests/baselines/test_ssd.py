"""Mamba-2's scan by the kernels of mamba_ssm: where it is chosen, what it is given, and that its numbers are right."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from statemix_research.baselines import ssd, verify
from statemix_research.baselines.mamba2 import Mamba2

CPU = torch.zeros(1)


@pytest.fixture
def installed(monkeypatch):
    """The kernels as if they were there and ran on the CPU, by the plain loop."""

    def kernel(x, dt, a, b, c, chunk_size, initial_states, return_final_states):
        assert return_final_states and chunk_size == ssd.CHUNK
        assert b.shape[2] == c.shape[2] == 1 and a.dtype == dt.dtype == initial_states.dtype == torch.float32
        assert all(one.is_contiguous() for one in (x, dt, b, c, initial_states))
        seen.append(x.dtype)
        wide = (one.float() for one in (x, dt, a, b[:, :, 0], c[:, :, 0]))
        y, after = ssd.reference(*wide, initial_states.transpose(-1, -2))
        return y.to(x.dtype), after.transpose(-1, -2)

    seen = []
    monkeypatch.setattr(ssd, "kernel", lambda: kernel)
    monkeypatch.setattr(ssd, "unusable", lambda device: None)
    return seen


def layer(**options):
    torch.manual_seed(0)
    return Mamba2(16, state_dim=8, head_dim=8, **options)


def test_the_layer_is_the_same_with_the_kernel(installed):
    fast, plain = layer(), layer(backend="chunks")
    x = torch.randn(2, 70, 16)
    state = torch.randn(2, fast.state_size)
    results = []
    for one in (fast, plain):
        leaf = x.clone().requires_grad_()
        y, after = one(leaf, state)
        (y.square().sum() + after.square().sum()).backward()
        results.append([y, after, leaf.grad, *(weight.grad for weight in one.parameters())])
    assert installed == [torch.float32]
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=2e-4, atol=2e-4)


def test_autocast_gives_the_kernel_its_dtype(installed):
    with torch.autocast("cpu", torch.bfloat16):
        layer()(torch.randn(1, 9, 16))
    assert installed == [torch.bfloat16]


def test_where_it_is_chosen(installed, monkeypatch):
    chosen = [ssd.runs(name, CPU, 9) for name in ("auto", "kernel", "chunks", "loop")]
    assert chosen == [True, True, False, False]
    assert (ssd.runs("auto", CPU, 1), ssd.runs("kernel", CPU, 1)) == (False, True)
    assert not ssd.runs("auto", CPU.double(), 9)
    monkeypatch.setattr(ssd, "unusable", lambda device: "no")
    assert not ssd.runs("auto", CPU, 9)


def test_why_it_cannot_be_used(monkeypatch):
    monkeypatch.setattr(ssd, "INSTALLED", False)
    assert "MAMBA_SKIP_CUDA_BUILD=TRUE" in ssd.unusable(torch.device("cuda"))
    monkeypatch.setattr(ssd, "INSTALLED", True)
    assert ssd.unusable(torch.device("cpu")) == "mamba_ssm has no kernels for cpu"
    assert ssd.unusable(torch.device("cuda")) is None


def test_the_comparison_is_of_the_same_scan(installed):
    assert verify._SSD.baseline == "mamba2" and verify.check(verify._SSD, torch.device("cpu")).passed


INTERPRETED = """
import contextlib, types
import torch
from statemix_research.baselines import ssd, verify
torch.cuda.device = lambda *arguments: contextlib.nullcontext()
torch.cuda.get_device_properties = lambda device: types.SimpleNamespace(multi_processor_count=4)
verify.B, verify.T, verify.H, verify.K = 2, 37, 2, 16
verify.HEADS, verify.STATE = (2, 37, 2, 16), (2, 2, 16, 16)
ssd.CHUNK = 16
found = verify.check(verify._SSD, torch.device("cpu"))
print(found)
assert found.passed and found.output_error < 1e-5 and max(found.gradient_errors.values()) < 1e-5
"""


@pytest.mark.skipif(not ssd.INSTALLED, reason=ssd.MISSING)
def test_the_kernels_are_right():
    """Interpreted, with the first of their launch configurations: outputs and gradients against the loop in float64."""
    variables = {**os.environ, "TRITON_INTERPRET": "1", "MAMBA_DETERMINISTIC": "1"}
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED], capture_output=True, text=True, env=variables, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
