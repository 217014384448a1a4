"""The operators inside PyTorch's machinery."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.library import opcheck

from statemix.ops import bdlru_scan, bdlru_step
from tests.ops.cases import BACKENDS, FIRST, inputs, run, step


@pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("recurrence", "name"), FIRST)
def test_opcheck(recurrence, name, backend, packed):
    bounds = torch.tensor([0, 2, 4]) if packed else None
    gates, values, state = inputs(recurrence, B=1 if packed else 2, T=4, sequences=2)
    operator = getattr(torch.ops.statemix, f"{recurrence}_scan").default
    leaves = [x.clone().requires_grad_() for x in (gates, values, state)]
    opcheck(operator, (*leaves, bounds, name, backend))
    states, final = operator(gates, values, state, bounds, name, backend)
    operator = getattr(torch.ops.statemix, f"{recurrence}_scan_backward").default
    arguments = (gates, values, states, state, bounds, torch.ones_like(states), torch.ones_like(final))
    opcheck(operator, (*arguments, name, backend))


def loss_and_gradients(function, tensors):
    leaves = [x.detach().clone().requires_grad_() for x in tensors]
    states, final = function(*leaves)
    (states.sin().sum() + final.sum()).backward()
    return states, final, *(leaf.grad for leaf in leaves)


@pytest.mark.parametrize(("backend", "dynamic"), [("reference", False), ("cpu", True)])
@pytest.mark.parametrize(("recurrence", "name"), FIRST)
def test_compile(recurrence, name, backend, dynamic):
    def function(gates, values, state):
        states, final = run(recurrence, gates * 0.5, values, state, name, backend=backend)
        return states + 1, final

    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for length in (4, 7) if dynamic else (4,):
        tensors = inputs(recurrence, T=length)
        got, want = loss_and_gradients(compiled, tensors), loss_and_gradients(function, tensors)
        for have, exact in zip(got, want, strict=True):
            torch.testing.assert_close(have, exact)


def test_compile_packed_with_inductor():
    """The default compiler, changing sequence lengths, one graph."""

    def function(gates, values, state, bounds):
        states, final = bdlru_scan(gates * 2, values, state, cu_seqlens=bounds)
        return states * 3, final

    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=True)
    for bounds in ([0, 3, 6], [0, 1, 2, 9]):
        gates, values, state = inputs("bdlru", B=1, T=bounds[-1], sequences=len(bounds) - 1)
        cut = torch.tensor(bounds)
        got, want = compiled(gates, values, state, cut), function(gates, values, state, cut)
        for have, exact in zip(got, want, strict=True):
            torch.testing.assert_close(have, exact)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bad_bounds_are_caught_inside_a_compiled_graph(backend):
    gates, values, state = inputs("bdlru", B=1, T=5, sequences=2)
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda *x: bdlru_scan(*x[:3], cu_seqlens=x[3], backend=backend), backend="aot_eager"
    )
    with pytest.raises(ValueError, match="cu_seqlens"):
        compiled(gates, values, state, torch.tensor([0, 7, 5]))


@pytest.mark.parametrize(("recurrence", "name"), FIRST)
def test_export_with_any_length(recurrence, name):
    class Module(torch.nn.Module):
        def forward(self, gates, values, state):
            return run(recurrence, gates, values, state, name)

    tensors = inputs(recurrence, T=6)
    time = torch.export.Dim("T", min=2, max=1000)
    program = torch.export.export(Module(), tensors, dynamic_shapes=({1: time}, {1: time}, None))
    longer = inputs(recurrence, T=11)
    for have, exact in zip(program.module()(*longer), run(recurrence, *longer, name), strict=True):
        torch.testing.assert_close(have, exact)


def test_autocast_takes_the_wider_dtype():
    gates, values, state = inputs("bdlru", dtype=torch.float32)
    with pytest.raises(TypeError, match=r"gates: .*bfloat16.*values"):
        bdlru_scan(gates.bfloat16(), values, state)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states, final = bdlru_scan(gates.bfloat16(), values, state)
        new = bdlru_step(gates[:, 0].bfloat16(), values[:, 0], state)
    assert states.dtype == torch.float32
    assert final.dtype == new.dtype == torch.float32


@pytest.mark.parametrize("dims", [(0, 0, 0), (0, None, 1), (None, 2, None)], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("recurrence", "name"), FIRST)
def test_vmap(recurrence, name, backend, dims):
    one = inputs(recurrence)
    many = [x if d is None else torch.stack([x, 2 * x, -x], dim=d) for x, d in zip(one, dims, strict=True)]

    def function(*tensors):
        return run(recurrence, *tensors, name, backend=backend)

    got = torch.func.vmap(function, in_dims=dims)(*many)
    for k in range(3):
        want = function(*(x if d is None else x.select(d, k) for x, d in zip(many, dims, strict=True)))
        for have, exact in zip(got, want, strict=True):
            torch.testing.assert_close(have[k], exact)


def test_vmap_over_bounds_is_refused():
    gates, values, state = inputs("bdlru", B=1, T=4, sequences=1)
    bounds = torch.tensor([[0, 4], [0, 4]])
    with pytest.raises(ValueError, match="cu_seqlens"):
        torch.func.vmap(lambda b: bdlru_scan(gates, values, state, cu_seqlens=b))(bounds)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("recurrence", "name"), FIRST)
def test_torch_func(recurrence, name, backend):
    """grad, vmap of grad (per-sample gradients) and a Hessian agree with plain autograd."""
    tensors = inputs(recurrence, B=2, T=3, N=1)

    def loss(*tensors):
        states, final = run(recurrence, *tensors, name, backend=backend)
        return states.sin().sum() + final.cos().sum()

    leaves = [x.clone().requires_grad_() for x in tensors]
    loss(*leaves).backward()
    for have, leaf in zip(torch.func.grad(loss, argnums=(0, 1, 2))(*tensors), leaves, strict=True):
        torch.testing.assert_close(have, leaf.grad)

    def of_one(*tensors):
        return loss(*(x.unsqueeze(0) for x in tensors))

    per_sample = torch.func.vmap(torch.func.grad(of_one, argnums=(0, 1, 2)))(*tensors)
    for have, leaf in zip(per_sample, leaves, strict=True):
        torch.testing.assert_close(have, leaf.grad)
    nested = torch.func.jacrev(torch.func.grad(loss))(*tensors)
    plain = torch.autograd.functional.hessian(lambda gates: loss(gates, *tensors[1:]), tensors[0])
    torch.testing.assert_close(nested, plain)


@pytest.mark.parametrize("name", ["softmax", "hard:softmax"])
def test_steps_compile(name):
    for recurrence in ("bdlru", "hlru"):
        gates, values, state = inputs(recurrence, T=1)
        tensors = (gates[:, 0], values[:, 0], state)
        torch._dynamo.reset()
        compiled = torch.compile(partial(step, recurrence, name=name), fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*tensors), step(recurrence, *tensors, name=name))


def test_inference_mode_and_no_grad():
    tensors = inputs("bdlru")
    want = run("bdlru", *tensors)
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            for have, exact in zip(run("bdlru", *tensors), want, strict=True):
                assert torch.equal(have, exact)
