"""One product for gates and values: when a layer takes it, and what it then does. Numbers: `tests/ops/interpreted.py`,
`test_fused_cuda.py`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from statemix.nn import BDLRU, HLRU
from statemix.ops import projection
from tests.nn.test_layers import CountOperators

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
    _, state = layer(x, **options)
    return "ProjectedScan" in type(state.grad_fn).__name__


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


def test_odd_rows_are_left_apart():
    """Values that would begin where no wide copy can."""
    assert not joined(
        BDLRU(6, block_size=3, num_blocks=3, device="meta"), torch.empty(2, 5, 6, device="meta")
    )


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
