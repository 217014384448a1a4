"""One product for gates and values: when a layer takes it, and what it then does. Numbers: `tests/ops/interpreted.py`,
`test_fused_cuda.py`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from statemix.nn import BDLRU, HLRU
from statemix.ops import projection
from tests.nn.test_layers import CountOperators
from tests.ops.cases import made_by_one_product

LAYERS = {
    "bdlru": lambda **k: BDLRU(6, block_size=4, num_blocks=4, device="meta", **k),
    "hlru": lambda **k: HLRU(6, order=3, num_channels=8, readout="newest", device="meta", **k),
}
"""Without memory, as on a device that is no CPU."""


@pytest.fixture(autouse=True)
def _kernels(monkeypatch):
    monkeypatch.setattr(projection, "choose_backend", lambda *_: "triton")


def joined(layer, x, **options):
    """Whether the gradient of the states that a layer makes of x is that of one product."""
    return made_by_one_product(layer(x, **options)[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", LAYERS)
def test_nothing_is_added_summed_or_put_together_on_the_way_back(kind, dtype):
    layer = LAYERS[kind](dtype=dtype)
    x = torch.empty(2, 5, 6, device="meta", dtype=dtype, requires_grad=True)
    with CountOperators() as counted:
        y, state = layer(x)
    weights = ["cat", "new_zeros", "cat"]
    assert counted.calls == ["new_zeros", *weights, "addmm", f"{kind}_scan", "mm"]
    assert y.shape == x.shape and state.dtype == torch.float32
    with CountOperators() as counted:
        grads = torch.autograd.grad(y, (x, *layer.parameters()), torch.empty_like(y))
    narrowed = ["_to_copy"] * (dtype != torch.float32)  # the bias's
    small = ("zeros", "empty_like")
    assert [name for name in counted.calls if name not in small] == [
        *("mm", "mm"), f"{kind}_scan_fused_backward", *("mm", "mm"), *narrowed
    ]  # fmt: skip
    for grad, leaf in zip(grads, (x, *layer.parameters()), strict=True):
        assert (grad.shape, grad.dtype) == (leaf.shape, leaf.dtype)
        assert grad.is_contiguous()


@pytest.mark.parametrize("kind", LAYERS)
def test_when_it_is_taken(kind):
    layer = LAYERS[kind]()
    x = torch.empty(2, 5, 6, device="meta")
    assert joined(layer, x)
    assert joined(layer, x, state=torch.empty_like(layer.initial_state(2)))
    assert not joined(layer, x[:, :1])
    assert not joined(LAYERS[kind](selective=False), x)
    with torch.no_grad(), CountOperators() as counted:
        layer(x)
    assert "cat" not in counted.calls
    with CountOperators() as counted:
        torch.func.vmap(lambda x: layer(x)[0])(x[None])
    assert "cat" not in counted.calls


@pytest.mark.parametrize(("blocks", "takes"), [(3, False), (5, False), (9, False), (12, True), (65, True)])
def test_odd_rows_are_rounded_up_where_little_is_added(blocks, takes):
    """Values that would begin where no wide copy can; an eighth more blocks at most."""
    layer = BDLRU(6, block_size=3, num_blocks=blocks, device="meta")
    x = torch.empty(2, 5, 6, device="meta", requires_grad=True)
    assert joined(layer, x) is takes
    y, state = layer(x)
    assert (y.shape, state.shape) == (x.shape, (2, blocks, 3))
    for leaf in layer.parameters():
        assert torch.autograd.grad(y, leaf, torch.empty_like(y), retain_graph=True)[0].shape == leaf.shape


def test_other_modules_are_called():
    """A projection that somebody has replaced or listens to is no plain product."""
    x = torch.empty(2, 5, 6, device="meta")

    class Other(nn.Linear):
        pass

    layer = LAYERS["bdlru"]()
    layer.values = Other(6, 16, bias=False, device="meta")
    assert not joined(layer, x)
    layer, calls = LAYERS["bdlru"](), []
    layer.gates.register_forward_hook(lambda *_: calls.append(1))
    assert not joined(layer, x)
    assert calls == [1]


def test_only_gradients_that_are_wanted_are_taken():
    layer = LAYERS["bdlru"]()
    y, _ = layer(torch.empty(2, 5, 6, device="meta"))
    with CountOperators() as counted:
        torch.autograd.grad(y, list(layer.parameters()), torch.empty_like(y))
    assert counted.calls.count("mm") == 3  # two of the read-out
    layer.gates.requires_grad_(False)
    layer.values.requires_grad_(False)
    x = torch.empty(2, 5, 6, device="meta", requires_grad=True)
    y, _ = layer(x)
    with CountOperators() as counted:
        torch.autograd.grad(y, x, torch.empty_like(y))
    assert counted.calls.count("mm") == 2


def test_autocast_widens_nothing():
    layer = LAYERS["bdlru"]()
    x = torch.empty(2, 5, 6, device="meta")
    assert projection.compute_dtype(x) == torch.float32
    x = torch.empty(2, 5, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert projection.compute_dtype(x) == torch.bfloat16
        assert projection.compute_dtype(x.double()) == torch.float64
    assert layer.values.weight.dtype == torch.float32


def test_a_state_or_bounds_of_another_shape_say_so():
    layer, x = LAYERS["bdlru"](), torch.empty(2, 5, 6, device="meta")
    with pytest.raises(ValueError, match=r"initial_state: got shape \[3, 4, 4\]"):
        layer(x, torch.empty(3, 4, 4, device="meta"))
    with pytest.raises(ValueError, match="cu_seqlens: got a batch of B = 2"):
        layer(x, cu_seqlens=torch.empty(3, dtype=torch.int64, device="meta"))
