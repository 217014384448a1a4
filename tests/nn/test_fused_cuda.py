"""Gates and values from one product, on a GPU: against float64, and the kernel's outputs against those it has apart."""

from __future__ import annotations

import copy

import pytest
import torch

from statemix.nn import BDLRU, HLRU
from statemix.ops import projection
from statemix.ops import triton as backend
from statemix.ops.layout import split_gates_values
from tests.ops.cases import made_by_one_product, relative
from tests.ops.test_triton_cuda import BOUNDS, cut, decide, launches, one_launch, poisoned

__all__ = ["poisoned"]  # uninitialised memory is NaN in every test

pytestmark = pytest.mark.gpu

KINDS = ["bdlru", "hlru"]


def problem(recurrence, B, T, N, m, dtype=torch.float32, bounds=None, seed=0):
    """What the gradient of a scan takes, gates and values side by side."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator).cuda()

    inner = (N, m) if recurrence == "bdlru" else (N,)
    width = torch.Size(inner).numel()
    state, grad_final = (draw(B if bounds is None else len(bounds) - 1, N, m) for _ in range(2))
    joined, grads = draw(B, T, (m + 2) * width).to(dtype), draw(B, T, *inner).to(dtype)
    bounds = None if bounds is None else torch.tensor(bounds, device="cuda")
    gates, values = split_gates_values(joined, inner)
    states, _ = backend.forward(recurrence, gates, values, state, bounds, "softmax")
    return joined, states, state, bounds, grads, grad_final, "softmax"


def check(recurrence, arguments):
    """Side by side as apart, bit by bit; the sums as those of float64. Returns all three."""
    joined, states, *rest = arguments
    got = backend.backward_fused(recurrence, *arguments)
    gates, values = split_gates_values(joined, states.shape[2:])
    d_gates, d_values, d_state = backend.backward(recurrence, gates, values, states, *rest)
    have_gates, have_values = split_gates_values(got[0], states.shape[2:])
    assert torch.equal(have_gates, d_gates)
    assert torch.equal(have_values, d_values)
    assert torch.equal(got[2], d_state)
    # What is stored, added up; the kernel adds before it rounds.
    wanted = d_gates.double().sum((0, 1)).movedim(-1, 0).flatten()
    assert got[1].dtype == torch.float32
    assert relative(got[1], wanted) <= BOUNDS[joined.dtype][1]
    return got


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize(("recurrence", "direction", "m", "launch"), list(launches()))
def test_every_launch_of_the_table(recurrence, direction, m, launch, dtype, monkeypatch):
    if direction == "forward":
        pytest.skip("reads only")
    T = 16 * launch.num_workers + 3 * launch.block_t + 5
    decide(monkeypatch, one_launch(direction, launch))
    check(recurrence, problem(recurrence, 2, T, 32, m, dtype))


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 8, 16])
@pytest.mark.parametrize("recurrence", KINDS)
def test_every_way(recurrence, m, dtype, monkeypatch):
    """Long and short sequences, packed ones, chunks, odd rows, the portable kernels."""
    check(recurrence, problem(recurrence, 3, 200, 40, m, dtype))
    check(recurrence, problem(recurrence, 5, 3, 8, m, dtype))
    check(recurrence, problem(recurrence, 2, 150, 5, m, dtype))
    check(recurrence, problem(recurrence, 1, 400, 16, m, dtype, bounds=[0, 0, 170, 171, 400, 400]))
    check(recurrence, problem(recurrence, 1, 30, 16, m, dtype, bounds=[0, 1, 2, 3, 30]))
    check(recurrence, problem(recurrence, 0, 30, 16, m, dtype))
    with monkeypatch.context() as patch:
        cut(patch, 64)
        check(recurrence, problem(recurrence, 1, 200, 16, m, dtype))
    decide(monkeypatch, lambda *key: None)
    check(recurrence, problem(recurrence, 2, 37, 20, m, dtype))


@pytest.mark.parametrize("recurrence", KINDS)
def test_the_kernel_sums_where_it_is_worth_it(recurrence, monkeypatch):
    from statemix.ops.triton.hopper.launch import HopperKernels

    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("portable kernels")
    monkeypatch.setattr("statemix.ops.triton.dispatch._WHOLE", {})  # a call that is known asks no more
    found, empty_sums = [], HopperKernels.empty_sums
    monkeypatch.setattr(HopperKernels, "empty_sums", lambda *a: found.append(empty_sums(*a)) or found[-1])
    check(recurrence, problem(recurrence, 2, 200, 16, 4))
    check(recurrence, problem(recurrence, 1, 30, 16, 4, bounds=[0, 1, 2, 3, 30]))
    assert [sums is None for sums in found] == [False, True]
    assert found[0].isfinite().all()


@pytest.mark.parametrize("recurrence", KINDS)
def test_same_bits_twice_and_with_other_neighbours(recurrence):
    joined, states, state, _, grads, grad_final, name = problem(recurrence, 5, 200, 16, 4, torch.bfloat16)
    first = check(recurrence, (joined, states, state, None, grads, grad_final, name))
    second = check(recurrence, (joined, states, state, None, grads, grad_final, name))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
    few = [x[:2].contiguous() for x in (joined, states, state, grads, grad_final)]
    alone = check(recurrence, (*few[:3], None, *few[3:], name))
    assert torch.equal(first[0][:2], alone[0])
    assert torch.equal(first[2][:2], alone[2])


LAYERS = {
    "bdlru": lambda **k: BDLRU(64, block_size=4, gate_bias=-0.5, device="cuda", **k),
    "hlru": lambda **k: HLRU(64, order=3, num_channels=64, device="cuda", **k),
    "hlru odd": lambda **k: HLRU(64, order=3, num_channels=61, device="cuda", **k),
}


def call(layer, x, state, bounds, grads):
    """(y, state), and all gradients; whether one product made gates and values."""
    leaves = [x.detach().requires_grad_(), state.detach().requires_grad_()]
    outputs = layer(*leaves, bounds)
    grads = [grad.to(out.dtype) for grad, out in zip(grads, outputs, strict=True)]
    return made_by_one_product(outputs[1]), [
        *outputs,
        *torch.autograd.grad(outputs, [*leaves, *layer.parameters()], grads),
    ]


@pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_in_training(kind, dtype, packed, monkeypatch):
    """Against float64, and not farther from it than gates and values apart."""
    torch.manual_seed(0)
    layer = LAYERS[kind](dtype=dtype)
    exact = copy.deepcopy(layer).double().cpu()
    bounds = torch.tensor([0, 70, 70, 200], device="cuda") if packed else None
    B, S = (1, 3) if packed else (2, 2)
    x, state = torch.randn(B, 200, 64, device="cuda", dtype=dtype), torch.randn_like(layer.initial_state(S))
    grads = [torch.randn(x.shape, device="cuda"), torch.randn(state.shape, device="cuda")]
    one, got = call(layer, x, state, bounds, grads)
    again = call(layer, x, state, bounds, grads)[1]
    wide = [grad.to(dtype if k == 0 else torch.float32).double().cpu() for k, grad in enumerate(grads)]
    _, want = call(
        exact, x.double().cpu(), state.double().cpu(), None if bounds is None else bounds.cpu(), wide
    )
    with monkeypatch.context() as patch:
        patch.setattr("statemix.ops.projection.can_fuse", lambda *_: False)
        apart = call(layer, x, state, bounds, grads)
    assert one and not apart[0]
    for have, twice, other, true in zip(got, again, apart[1], want, strict=True):
        assert torch.equal(have, twice)
        error = relative(have.cpu(), true)
        assert error < max(2 * relative(other.cpu(), true), 1e-5)


@pytest.mark.parametrize("kind", LAYERS)
def test_second_derivatives(kind):
    torch.manual_seed(0)
    layer = LAYERS[kind]()
    exact = copy.deepcopy(layer).double().cpu()

    def second(layer, x):
        leaves = [x.detach().requires_grad_(), *layer.parameters()]
        y, _ = layer(leaves[0])
        first = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), leaves)

    x = torch.randn(2, 20, 64, device="cuda")
    for have, true in zip(second(layer, x), second(exact, x.double().cpu()), strict=True):
        assert relative(have.cpu(), true) < 1e-4


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("half", [False, True], ids=["plain", "autocast"])
@pytest.mark.parametrize("kind", LAYERS)
def test_compiled_and_captured(kind, half):
    torch.use_deterministic_algorithms(False)
    torch.manual_seed(0)
    layer, x = LAYERS[kind](), torch.randn(2, 200, 64, device="cuda")
    leaves = list(layer.parameters())
    torch._dynamo.reset()

    def gradients(layer):
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=half):
            y, _ = layer(x)
        return [y.detach(), *torch.autograd.grad(y, leaves, torch.ones_like(y))]

    want, bound = gradients(layer), 2e-2 if half else 1e-4
    for have, true in zip(gradients(torch.compile(layer, fullgraph=True)), want, strict=True):
        assert relative(have, true) < bound
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):  # what is captured ran on a side stream before
        gradients(layer)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = gradients(layer)
    graph.replay()
    first = [x.clone() for x in got]
    graph.replay()
    for have, twice, true in zip(first, got, want, strict=True):
        assert torch.equal(have, twice)
        assert relative(have, true) < bound


def test_it_is_taken_in_training_alone():
    layer, x = LAYERS["bdlru"](), torch.randn(2, 20, 64, device="cuda")
    maps = [projection.LinearMap(linear.weight, linear.bias) for linear in (layer.gates, layer.values)]
    assert projection.fusing_backend(x, *maps, "softmax", "auto") == "triton"
    assert projection.fusing_backend(x, *maps, "softmax", "reference") is None
    assert projection.fusing_backend(x.double(), *maps, "softmax", "auto") is None
    assert projection.fusing_backend(x[:, :1], *maps, "softmax", "auto") is None
    with torch.no_grad():
        assert projection.fusing_backend(x, *maps, "softmax", "auto") is None
