"""First and second derivatives in float64, and the fast backend's against the definition's."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from statemix.ops import normalize
from tests.ops.cases import (
    BACKENDS,
    FIRST,
    HARD_CASES,
    LAYOUTS,
    RECURRENCES,
    inputs,
    names,
    relative,
    restride,
    run,
)

CASES = [(r, n) for r in RECURRENCES for n in names(r)]


def away_from_kinks(gates, recurrence):
    """Finite differences need a gate's sign to stay as it is."""
    return gates if recurrence == "affine" else gates + 0.1 * gates.sign()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("recurrence", "name"), CASES)
def test_gradcheck(recurrence, name, backend):
    gates, values, state = inputs(recurrence, B=2, T=3, N=2, m=2, seed=3)
    arguments = [x.requires_grad_() for x in (away_from_kinks(gates, recurrence), values, state)]
    assert gradcheck(lambda *x: run(recurrence, *x, name, backend=backend), arguments)


SECOND = [(*case, "reference") for case in CASES] + [(r, names(r)[0], "cpu") for r in RECURRENCES]


@pytest.mark.parametrize(("recurrence", "name", "backend"), SECOND)
def test_gradgradcheck(recurrence, name, backend):
    """Second derivatives are the loop's on every backend."""
    gates, values, state = inputs(recurrence, B=1, T=2, N=1, m=2, seed=4)
    arguments = [x.requires_grad_() for x in (away_from_kinks(gates, recurrence), values, state)]
    assert gradgradcheck(lambda *x: run(recurrence, *x, name, backend=backend), arguments)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_gradcheck_packed(recurrence, backend):
    gates, values, state = (x.requires_grad_() for x in inputs(recurrence, B=1, T=5, N=2, m=2, sequences=3))
    bounds = torch.tensor([0, 1, 1, 5])
    assert gradcheck(
        lambda *x: run(recurrence, *x, cu_seqlens=bounds, backend=backend), (gates, values, state)
    )


def gradients(recurrence, tensors, name, backend, which=(0, 1), dtype=torch.float64):
    leaves = [x.detach().to(dtype if i < 2 else torch.float64 if dtype == torch.float64 else torch.float32)
              .requires_grad_() for i, x in enumerate(tensors)]  # fmt: skip
    outputs = run(recurrence, *leaves, name, backend=backend)
    weights = [torch.linspace(-1, 2, out.numel(), dtype=torch.float64).view(out.shape) for out in outputs]
    sum((outputs[i].double() * weights[i]).sum() for i in which).backward()
    return [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("which", [(0,), (1,), (0, 1)], ids=["states", "final", "both"])
@pytest.mark.parametrize(("recurrence", "name"), CASES + HARD_CASES)
def test_cpu_gradients_are_the_definitions(recurrence, name, which):
    tensors = inputs(recurrence, B=2, T=41, N=5, m=3)
    want = gradients(recurrence, tensors, name, "reference", which)
    for have, exact in zip(gradients(recurrence, tensors, name, "cpu", which), want, strict=True):
        assert relative(have, exact) < 1e-13
    for have, exact in zip(
        gradients(recurrence, tensors, name, "cpu", which, torch.float32), want, strict=True
    ):
        assert have.dtype == torch.float32
        assert relative(have, exact) < 5e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("recurrence", "name"), FIRST)
def test_half_precision_gradients(recurrence, name, dtype):
    tensors = [x.to(dtype).double() for x in inputs(recurrence, B=2, T=41, N=5, m=3)]
    want = gradients(recurrence, tensors, name, "reference")
    for have, exact in zip(gradients(recurrence, tensors, name, "cpu", dtype=dtype), want, strict=True):
        assert relative(have, exact) < 8e-3


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("recurrence", "name"), FIRST)
def test_gradients_in_any_layout(recurrence, name, layout):
    """Inputs and the incoming gradient strided as they please."""
    tensors = inputs(recurrence, B=2, T=9, N=4, m=3)
    want = None
    for kind in ("contiguous", layout):
        leaves = [x.detach().requires_grad_() for x in tensors]
        states, final = run(recurrence, *(restride(leaf, kind) for leaf in leaves), name, backend="cpu")
        weight = restride(torch.linspace(0, 1, states.numel(), dtype=torch.float64).view(states.shape), kind)
        states.backward(weight, retain_graph=True)
        final.sum().backward()  # an expanded gradient: strides of zero
        have = [leaf.grad for leaf in leaves]
        want = want or have
    for got, exact in zip(have, want, strict=True):
        assert torch.equal(got, exact)


@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_only_what_is_asked_for(recurrence):
    for asked in range(3):
        tensors = list(inputs(recurrence))
        tensors[asked].requires_grad_()
        run(recurrence, *tensors, backend="cpu")[0].sum().backward()
        assert [x.grad is not None for x in tensors] == [i == asked for i in range(3)]


def straight_through(recurrence, gates, values, state, name, **options):
    """A scan of hard rows stated once more: no normalisation, rows that are hard forward and soft backward."""
    soft = normalize(gates, name.removeprefix("hard:"))
    largest = soft.abs().argmax(-1, keepdim=True)
    hard = torch.zeros_like(soft).scatter(-1, largest, soft.gather(-1, largest).sign())
    options["backend"] = "reference"
    return run(recurrence, (hard - soft).detach() + soft, values, state, "none", **options)


BOUNDS = torch.tensor([0, 5, 5, 11])


@pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("recurrence", "name"), HARD_CASES)
def test_hard_rows_are_straight_through(recurrence, name, backend, packed):
    """First and second derivatives."""
    options = {"cu_seqlens": BOUNDS} if packed else {}
    sizes = {"B": 1, "T": 11, "sequences": 3} if packed else {"B": 2, "T": 6}
    tensors = inputs(recurrence, N=3, m=3, **sizes)
    results = []
    for scan, extra in ((run, {"backend": backend}), (straight_through, {})):
        leaves = [x.clone().requires_grad_() for x in tensors]
        states, final = scan(recurrence, *leaves, name, **options, **extra)
        loss = states.sin().sum() + final.cos().sum()
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        second = torch.autograd.grad(sum(x.square().sum() for x in first), leaves)
        results.append((states, final, *first, *second))
    for have, exact in zip(*results, strict=True):
        assert relative(have, exact) < 1e-12


@pytest.mark.parametrize("name", ["hard:softmax", "hard:linear"])
@pytest.mark.parametrize("recurrence", ["bdlru", "hlru"])
def test_hard_rows_across_tiles(recurrence, name):
    """More blocks than a work item has, more steps than a tile, and an order longer than a tile."""
    for sizes in ({"T": 19, "N": 70, "m": 2}, {"T": 9, "N": 65, "m": 16}):
        tensors = inputs(recurrence, B=1, **sizes)
        want = gradients(recurrence, tensors, name, "reference")
        for have, exact in zip(gradients(recurrence, tensors, name, "cpu"), want, strict=True):
            assert relative(have, exact) < 1e-13
