"""Gates and values from one product, against the loop in float64. Run by `test_triton_interpreter.py`."""

from __future__ import annotations

import math

import pytest
import torch

from statemix.nn import BDLRU, HLRU
from statemix.ops import projection
from tests.ops.cases import made_by_one_product, relative
from tests.ops.interpreted import GRADIENTS, problem

LAYERS = {
    "bdlru": lambda **k: BDLRU(6, block_size=2, num_blocks=4, gate_bias=-0.5, **k),
    "hlru": lambda **k: HLRU(6, order=3, num_channels=8, **k),
    "hlru odd": lambda **k: HLRU(6, order=3, num_channels=11, **k),
}
"""The odd one is rounded up to what fuses."""


@pytest.fixture
def fusing(monkeypatch):
    """Gates and values from one product, as on a GPU (and memory that nobody has written is NaN)."""
    monkeypatch.setattr(projection, "n_innermost", lambda _: False)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def layer_problem(kind, packed):
    """A layer, the same in float64 as a loop, (x, state), bounds, and gradients of what comes out."""
    torch.manual_seed(0)
    layer = LAYERS[kind](backend="triton")
    exact = LAYERS[kind](backend="reference").double()
    exact.load_state_dict(layer.state_dict())
    B, S = (1, 3) if packed else (2, 2)
    given = (torch.randn(B, 5, 6), torch.randn(S, *layer.initial_state(1).shape[1:]))
    bounds = torch.tensor([0, 2, 2, 5]) if packed else None
    return layer, exact, given, bounds, tuple(torch.randn(x.shape) for x in given)


def call_layer(layer, given, bounds, grads, again=False):
    """(y, state), all gradients, and (again) those of their squares."""
    given = [x.detach().requires_grad_() for x in given]
    leaves = [*given, *layer.parameters()]
    outputs = layer(*given, bounds)
    first = torch.autograd.grad(outputs, leaves, grads, create_graph=again)
    second = torch.autograd.grad(sum((g**2).sum() for g in first), leaves) if again else ()
    return made_by_one_product(outputs[1]), [*outputs, *first, *second]


@pytest.mark.parametrize(("kind", "packed", "again"), [
    *((kind, packed, True) for kind in LAYERS for packed in (False, True)),
    ("bdlru", False, False), ("hlru odd", True, False),
])  # fmt: skip
def test_fused_gradients(kind, packed, again, fusing):
    layer, exact, given, bounds, grads = layer_problem(kind, packed)
    one_product, got = call_layer(layer, given, bounds, grads, again)
    wide = [[x.double() for x in tensors] for tensors in (given, grads)]
    other, want = call_layer(exact, wide[0], bounds, wide[1], again)
    assert one_product and not other
    for have, true in zip(got, want, strict=True):
        assert relative(have, true) < GRADIENTS


@pytest.mark.parametrize(("recurrence", "rows"), [("bdlru", (4, 2)), ("hlru", (8,))])
def test_fused_hard_rows(recurrence, rows, fusing):
    torch.manual_seed(0)
    gates = torch.randn(3 * math.prod(rows), 6), torch.randn(3 * math.prod(rows))
    given = (torch.randn(2, 5, 6), *gates, torch.randn(math.prod(rows), 6), torch.randn(2, rows[0], 2))
    grads, results = [torch.randn(2, 5, *rows), torch.randn(2, rows[0], 2)], []
    for backend, dtype in (("triton", torch.float32), ("reference", torch.float64)):
        leaves = x, weight, bias, values, state = [one.to(dtype).requires_grad_() for one in given]
        maps = projection.LinearMap(weight, bias), projection.LinearMap(values, None)
        outputs = projection.projected_scan(
            recurrence, x, *maps, state, (rows[0], 2), normalization="softmax", hard=True, cu_seqlens=None,
            backend=backend,
        )  # fmt: skip
        assert made_by_one_product(outputs[1]) == (backend == "triton")
        results.append([*outputs, *torch.autograd.grad(outputs, leaves, [one.to(dtype) for one in grads])])
    for have, true in zip(*results, strict=True):
        assert relative(have, true) < GRADIENTS


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("kind", ["bdlru", "hlru odd"])
def test_fused_compiles_whole(kind, fusing):
    layer, _, given, _, grads = layer_problem(kind, False)
    torch.use_deterministic_algorithms(False)
    torch._dynamo.reset()
    half = kind == "bdlru"  # either recurrence, either precision
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        ways = [way(*(x.clone().requires_grad_() for x in given)) for way in (layer, compiled)]
    assert ways[0][0].dtype == (torch.bfloat16 if half else torch.float32)
    results = [
        [*out, *torch.autograd.grad(out, list(layer.parameters()), (grads[0].to(out[0].dtype), grads[1]))]
        for out in ways
    ]
    for plain, whole in zip(*results, strict=True):
        assert torch.equal(plain, whole)


def test_fused_operator_is_what_it_says():
    _, values, state, grads, grad_final = problem("hlru", B=2, T=3, N=4, m=2)
    joined = torch.randn(2, 3, 4 * values[0, 0].numel())
    arguments = (joined, values, state, None, grads, grad_final, "softmax", "triton")
    torch.library.opcheck(torch.ops.statemix.hlru_scan_fused_backward, arguments)
