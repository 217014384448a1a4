"""The fast memory formats: N innermost on the CPU, gate planes outermost elsewhere; fake tensors tell the truth."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from statemix.ops import dispatch
from statemix.ops.layout import empty_fast, in_fast_format, to_fast_order
from tests.ops.cases import BACKENDS, RECURRENCES, inputs, names, run

B, T, N, M = 2, 7, 5, 3
GATES = {  # shape, strides on the CPU (B, T, i, j, N), strides elsewhere (B, T, j, N, i)
    "bdlru": ((B, T, N, 3, 4), (420, 60, 1, 20, 5), (420, 60, 3, 1, 15)),
    "hlru": ((B, T, N, 4), (140, 20, 1, 5), (140, 20, 1, 5)),
    "affine": ((B, T, N, 3, 3), (315, 45, 1, 15, 5), (315, 45, 3, 1, 15)),
}
VALUES = {  # B, T, i, N on the CPU; B, T, N, i elsewhere
    "bdlru": ((B, T, N, 3), (105, 15, 1, 5), (105, 15, 3, 1)),
    "hlru": ((B, T, N), (35, 5, 1), (35, 5, 1)),
    "affine": ((B, T, N, 3), (105, 15, 1, 5), (105, 15, 3, 1)),
}
STATE = ((B, N, M), (15, 3, 1), (15, 3, 1))  # S, N, i everywhere
PLACES = {"cpu": 1, "meta": 2, "cuda": 2}


def expected(recurrence, device):
    """Shapes and strides of gates, values and state."""
    place = PLACES[device]
    return [(case[0], case[place]) for case in (GATES[recurrence], VALUES[recurrence], STATE)]


def found(*tensors):
    return [(tuple(x.shape), x.stride()) for x in tensors]


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_the_formats(recurrence, device):
    roles = ("gates", "values", "state")
    tensors = [x.to(device) for x in inputs(recurrence, B, T, N, M)]
    fast = [in_fast_format(x, role) for x, role in zip(tensors, roles, strict=True)]
    assert found(*fast) == expected(recurrence, device)
    assert found(*map(empty_fast, tensors, roles)) == expected(recurrence, device)
    for tensor, role in zip(fast, roles, strict=True):
        assert in_fast_format(tensor, role) is tensor
        assert to_fast_order(tensor, role).is_contiguous()
        assert not tensor._is_view()
    if device == "cpu":
        assert all(torch.equal(x, y) for x, y in zip(fast, tensors, strict=True))


def operators(recurrence, gates, values, state, backend="reference"):
    """What the forward and the gradient operator return, the latter as (gates, values, state)."""
    forward = getattr(torch.ops.statemix, f"{recurrence}_scan")
    backward = getattr(torch.ops.statemix, f"{recurrence}_scan_backward")
    rest = (names(recurrence)[0], backend)
    states, final = forward(gates, values, state, None, *rest)
    gradients = backward(gates, values, states, state, None, values, state, *rest)
    return (states, final), gradients


@torch.no_grad()
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_fake_tensors(recurrence, device):
    """No GPU is needed to know what its operators return."""
    with FakeTensorMode():
        tensors = [torch.empty(x.shape, device=device) for x in inputs(recurrence, B, T, N, M)]
        outputs, gradients = operators(recurrence, *tensors)
    assert found(*outputs) == expected(recurrence, device)[1:]
    assert found(*gradients) == expected(recurrence, device)
    assert {x.device.type for x in (*outputs, *gradients)} == {device}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_what_the_operators_return_on_the_cpu(recurrence, backend):
    outputs, gradients = operators(recurrence, *inputs(recurrence, B, T, N, M), backend=backend)
    assert found(*outputs) == expected(recurrence, "cpu")[1:]
    assert found(*gradients) == expected(recurrence, "cpu")


@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_what_the_operators_return_elsewhere(recurrence):
    """Below the dispatcher, on tensors without data: the loop's results, brought into the format."""
    gates, values, state = (x.to("meta") for x in inputs(recurrence, B, T, N, M))
    rest = (names(recurrence)[0], "reference")
    outputs = dispatch.forward(recurrence, gates, values, state, None, *rest)
    arguments = (gates, values, outputs[0], state, None, values, state)
    gradients = dispatch.backward(recurrence, *arguments, *rest)
    assert found(*outputs) == expected(recurrence, "meta")[1:]
    assert found(*gradients) == expected(recurrence, "meta")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_what_the_operators_return_on_a_gpu(recurrence, dtype):
    tensors = [x.cuda() for x in inputs(recurrence, B, T, N, M, dtype=dtype)]
    chosen = dispatch.choose_backend("auto", tensors[1].device, dtype)
    outputs, gradients = operators(recurrence, *tensors, backend=chosen)
    assert found(*outputs) == expected(recurrence, "cuda")[1:]
    assert found(*gradients) == expected(recurrence, "cuda")


@pytest.mark.parametrize(("N", "m"), [(1, 1), (2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_steps_return_copies(backend, N, m):
    """T = 0: the final state equals the initial one, and is not it; so for its gradient."""
    gates, values, state = inputs("bdlru", T=0, N=N, m=m)
    (_, final), (*_, d_state) = operators("bdlru", gates, values, state, backend)
    for result in (final, d_state):  # the gradient that comes in is the state, too
        assert torch.equal(result, state)
        assert result.data_ptr() != state.data_ptr()


@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_public_operations_on_fake_gpu_tensors(recurrence):
    with FakeTensorMode(), torch.no_grad():
        gates, values, state = (torch.empty(x.shape, device="cuda") for x in inputs(recurrence, B, T, N, M))
        for given in (state, None):
            assert found(*run(recurrence, gates, values, given)) == expected(recurrence, "cuda")[1:]
