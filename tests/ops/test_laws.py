"""The laws of the design: stability, zero rows, NaN, threads, and memory that does not grow with T."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from statemix.ops import normalize
from tests.ops.cases import BACKENDS, by_name, inputs, run
from tests.ops.loops import BOUNDED, HARD, SIGNED


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [*BOUNDED, *HARD])
@pytest.mark.parametrize("recurrence", ["bdlru", "hlru"])
def test_the_state_never_exceeds_what_went_in(recurrence, name, backend):
    """Proposition 1: the infinity norm of h_t is at most that of the values so far and the initial state."""
    gates, values, state = inputs(recurrence, B=3, T=200, N=4, m=4, dtype=torch.float32, seed=1)
    states, _ = run(recurrence, gates * 5, values, state, name, backend=backend)
    flat = values.reshape(3, 200, -1).abs().amax(-1).cummax(1).values
    bound = torch.maximum(flat, state.reshape(3, -1).abs().amax(-1, keepdim=True))
    assert (states.reshape(3, 200, -1).abs().amax(-1) <= bound * (1 + 1e-5)).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [*SIGNED, *(f"hard:{name}" for name in SIGNED)])
@pytest.mark.parametrize("recurrence", ["bdlru", "hlru"])
def test_a_row_of_zeros_is_zeros_with_zero_gradient(recurrence, name, backend):
    gates, values, state = inputs(recurrence, T=4)
    gates[:, 1] = 0
    gates.requires_grad_()
    states, final = run(recurrence, gates, values, state, name, backend=backend)
    assert (states[:, 1] == 0).all()
    (states.sum() + final.sum()).backward()
    assert (gates.grad[:, 1] == 0).all()
    assert torch.isfinite(gates.grad).all()
    assert (normalize(torch.zeros(2, 3), **by_name(name)) == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [*BOUNDED, *HARD, "none"])
@pytest.mark.parametrize("recurrence", ["bdlru", "hlru"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_nan_in_nan_out(recurrence, name, backend, dtype):
    """A NaN in any input reaches the states of its own block from its step on, and of no other block."""
    for place in range(3):
        tensors = inputs(recurrence, B=2, T=6, N=3, m=2, dtype=dtype)
        if place == 2:
            tensors[2][1, 2] = float("nan")
        else:
            tensors[place][1, 3, 2] = float("nan")
        states, final = run(recurrence, *tensors, name, backend=backend)
        start = 0 if place == 2 else 3
        assert torch.isnan(states[1, start:, 2]).all()
        assert torch.isnan(final[1, 2]).any()
        clean = torch.ones(states.shape[:3], dtype=torch.bool)
        clean[1, start:, 2] = False
        assert torch.isfinite(states[clean]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_reaches_the_gradients(backend):
    gates, values, state = inputs("bdlru", T=4)
    gates[0, 2, 1, 0, 0] = float("nan")
    for tensor in (gates, values, state):
        tensor.requires_grad_()
    run("bdlru", gates, values, state, backend=backend)[0].sum().backward()
    assert torch.isnan(gates.grad[0, 2, 1, 0]).any()
    assert torch.isfinite(gates.grad[1]).all()


@pytest.mark.parametrize("name", ["softmax", "hard:softmax"])
def test_the_number_of_threads_does_not_change_a_bit(name):
    tensors = inputs("bdlru", B=8, T=64, N=70, m=3, dtype=torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaves = [x.clone().requires_grad_() for x in tensors]
            states, final = run("bdlru", *leaves, name, backend="cpu")
            (states.sum() + final.sum()).backward()
            results.append([states, final, *(leaf.grad for leaf in leaves)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


MEMORY = """
import os, resource, sys, torch
from statemix.ops import bdlru_scan, hlru_scan

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def leaves(inner, T, dtype):
    gates = torch.zeros(1, T, *inner, 32, dtype=dtype).movedim(-1, 2)
    values = torch.zeros(1, T, *inner[:-1], 32, dtype=dtype).movedim(-1, 2)
    return gates.requires_grad_(), values.requires_grad_()

def extra(scan, inner, T, dtype):
    def both(gates, values, weight):
        scan(gates, values, backend="cpu")[0].backward(weight)

    torch.set_num_threads(2)
    small = leaves(inner, 2048, dtype)
    both(*small, torch.zeros_like(small[1]))  # compiles, starts the threads
    gates, values = leaves(inner, T, dtype)
    weight = torch.zeros_like(values)
    gates.data.normal_(), values.data.normal_(), weight.normal_()
    before = peak()
    both(gates, values, weight)
    size = lambda x: x.numel() * x.element_size()
    needed = size(gates) + 2 * size(values)  # both gradients and the states
    return peak() - before - needed, size(gates)

import statemix.ops.cpu.scans  # once, before the forks
for name, scan, inner, T in (("bdlru", bdlru_scan, (4, 5), 6_250), ("hlru", hlru_scan, (5,), 25_000)):
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        if os.fork() == 0:  # the peak is that of a process
            print(name, dtype, *extra(scan, inner, T * 4 // dtype.itemsize, dtype), flush=True)
            os._exit(0)
        os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_extra_memory_does_not_grow_with_time():
    """Peak memory of forward + backward beyond inputs, outputs and gradients: below 4 MB at any T.

    The normalised gates alone would be as large as the gates: 16 MB here.
    """
    done = subprocess.run([sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 6, done.stderr
    for line in lines:
        *_, extra, gates = line.split()
        assert int(gates) > 15e6
        assert int(extra) < 4e6, line
