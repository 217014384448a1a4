"""Scans where only autograd looks: without torch's dispatcher, and with it again where somebody looks."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from statemix.ops.lagged import lagged, window
from statemix.ops.zeros import shared_zeros
from tests.ops.cases import BACKENDS, FIRST, RECURRENCES, inputs, run

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Names(TorchDispatchMode):
    """The names of the operators that are called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.names.append(function.overloadpacket.__name__)
        return function(*arguments, **(options or {}))


def gradients(outputs, leaves, which):
    """Of the sum of sines of some of the outputs."""
    loss = sum(outputs[k].sin().sum() for k in which)
    return torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("which", [(0,), (1,), (0, 1)], ids=["states", "final", "both"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("recurrence", "name"), FIRST)
def test_the_same_bits_as_the_operator(recurrence, name, backend, which):
    """Whichever outputs have a gradient."""
    leaves = [x.requires_grad_() for x in inputs(recurrence)]
    outputs = run(recurrence, *leaves, name, backend=backend)
    operator = getattr(torch.ops.statemix, f"{recurrence}_scan")
    expected = operator(*leaves, None, name, backend)
    assert type(outputs[0].grad_fn).__name__ == "DirectScanBackward"
    assert type(expected[0].grad_fn).__name__ == "ScanBackward"
    assert all(map(torch.equal, outputs, expected))
    assert all(map(torch.equal, gradients(outputs, leaves, which), gradients(expected, leaves, which)))


@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_operators_are_called_where_somebody_looks(recurrence):
    leaves = [x.requires_grad_() for x in inputs(recurrence)]
    direct = run(recurrence, *leaves)
    with Names() as seen:
        outputs = run(recurrence, *leaves)
        gradients(outputs, leaves, (0,))
        gradients(direct, leaves, (0,))
    assert seen.names.count(f"{recurrence}_scan") == 1
    assert seen.names.count(f"{recurrence}_scan_backward") == 2
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        gradients(run(recurrence, *leaves), leaves, (0,))
    assert f"statemix::{recurrence}_scan_backward" in {event.name for event in profile.events()}


@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_many_gradients_at_once(recurrence):
    """`is_grads_batched`, by a mapping that is none of torch.func's."""
    leaves = [x.requires_grad_() for x in inputs(recurrence)]
    states, _ = run(recurrence, *leaves)
    several = torch.stack([torch.ones_like(states), torch.randn_like(states)])
    got = torch.autograd.grad(states, leaves, several, is_grads_batched=True, retain_graph=True)
    for k in range(2):
        want = torch.autograd.grad(states, leaves, several[k], retain_graph=True)
        for have, exact in zip(got, want, strict=True):
            torch.testing.assert_close(have[k], exact)


@pytest.mark.parametrize("length", [1, 3, 9])
@pytest.mark.parametrize("taps", [2, 4])
@pytest.mark.parametrize("begins", [False, True], ids=["zeros", "state"])
def test_a_window_is_the_states_of_some_steps_ago(taps, length, begins):
    options = {"dtype": torch.float64, "requires_grad": True}
    states, state = torch.randn(2, length, 3, **options), torch.randn(2, 3, 4, **options)
    leaves, initial = ([states, state], state) if begins else ([states], None)
    got = window(states, taps, initial)
    want = torch.stack([states, *(lagged(states, lag, initial, None) for lag in range(1, taps))], dim=2)
    assert torch.equal(got, want)
    grad = torch.randn_like(got)
    for have, exact in zip(*(torch.autograd.grad(x, leaves, grad) for x in (got, want)), strict=True):
        torch.testing.assert_close(have, exact)
    torch.autograd.gradcheck(lambda *x: window(x[0], taps, initial), leaves)
    torch.autograd.gradgradcheck(lambda *x: window(x[0], taps, initial), leaves)


def test_zeros_on_a_cpu_are_made_anew():
    like = torch.empty(1, dtype=torch.bfloat16)
    zeros = shared_zeros(like, (2, 3), torch.float32)
    zeros += 1
    assert (shared_zeros(like, (2, 3), torch.float32) == 0).all()


@gpu
@pytest.mark.gpu
def test_zeros_on_a_gpu_are_shared_by_a_stream():
    like, shape = torch.empty(1, device="cuda"), (2, 3)

    def zeros():
        return shared_zeros(like, shape, torch.float32)

    first, side = zeros(), torch.cuda.Stream()
    assert zeros() is first and (first == 0).all()
    with torch.cuda.stream(side):
        assert zeros() is not first
        assert zeros() is zeros()
    with torch.inference_mode():
        assert not zeros().is_inference()
    with Names() as seen:
        assert zeros() is not first
    assert seen.names == ["new_zeros"]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        captured = zeros()
    assert captured is not first
    captured.fill_(3)
    graph.replay()
    assert (captured == 0).all()
