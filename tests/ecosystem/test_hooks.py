"""Hooks: what profilers, Opacus, offloading and interpretability tools hang on the linears and on the layer."""

from __future__ import annotations

import pytest
import torch
from torch.nn.modules import module as global_hooks

from statemix.ops import projection
from tests.ecosystem.layers import LAYERS, build, by_steps, check, check_changed, inputs, linears


def heard_by(calls, name):
    """A hook that notes its name, whatever it is given."""
    return lambda *_: calls.append(name)


LISTENERS = {
    "forward": lambda module, hook: module.register_forward_hook(hook),
    "forward, always": lambda module, hook: module.register_forward_hook(hook, always_call=True),
    "pre-forward": lambda module, hook: module.register_forward_pre_hook(hook),
    "backward": lambda module, hook: module.register_full_backward_hook(hook),
    "pre-backward": lambda module, hook: module.register_full_backward_pre_hook(hook),
}
EVERYWHERE = {
    "forward": global_hooks.register_module_forward_hook,
    "pre-forward": global_hooks.register_module_forward_pre_hook,
    "backward": global_hooks.register_module_full_backward_hook,
    "pre-backward": global_hooks.register_module_full_backward_pre_hook,
}


def run(layer, x, state, way):
    """One pass forward and backward, by `forward` or by one `step`."""
    y, final = layer(x, state) if way == "forward" else layer.step(x[:, 0], state)
    (y.sum() + final.sum()).backward()


@pytest.mark.parametrize("way", ["forward", "step"])
@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_hook_on_a_linear_runs_once(kind, listener, way):
    layer, calls = build(kind), []
    for name in linears(layer):
        LISTENERS[listener](getattr(layer, name), heard_by(calls, name))
    x, state = inputs(layer)
    run(layer, x.requires_grad_(), state, way)
    assert sorted(calls) == sorted(linears(layer))
    check(layer)


@pytest.mark.parametrize("way", ["forward", "step"])
@pytest.mark.parametrize("listener", EVERYWHERE)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_hook_on_all_modules_hears_every_linear(kind, listener, way):
    layer, calls = build(kind), []
    handle = EVERYWHERE[listener](lambda module, *_: calls.append(module))
    try:
        x, state = inputs(layer)
        run(layer, x.requires_grad_(), state, way)
    finally:
        handle.remove()
    for name in linears(layer):
        assert calls.count(getattr(layer, name)) == 1


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("kind", LAYERS)
def test_hooks_run_on_other_devices(kind, listener, monkeypatch):
    """Without memory, as on a GPU in training, where gates and values of plain linears are one product."""
    monkeypatch.setattr(projection, "choose_backend", lambda *_: "triton")
    layer, calls = build(kind, dtype=torch.float32, device="meta"), []
    for name in linears(layer):
        LISTENERS[listener](getattr(layer, name), heard_by(calls, name))
    x = torch.empty(2, 7, 8, device="meta", requires_grad=True)
    y, final = layer(x)
    if "backward" in listener:
        (y.sum() + final.sum()).backward()
    assert sorted(calls) == sorted(linears(layer))


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_hook_on_the_layer_itself(kind, listener):
    layer, calls = build(kind), []
    LISTENERS[listener](layer, heard_by(calls, "layer"))
    x, state = inputs(layer)
    run(layer, x.requires_grad_(), state, "forward")
    assert calls == ["layer"]


def double(layer, name):
    getattr(layer, name).register_forward_hook(lambda module, arguments, out: 2 * out)


def shift(layer, name):
    getattr(layer, name).register_forward_pre_hook(lambda module, arguments: (arguments[0] + 1,))


def double_by_keyword(layer, name):
    hook = lambda module, arguments, options, out: 2 * out  # noqa: E731
    getattr(layer, name).register_forward_hook(hook, with_kwargs=True)


@pytest.mark.parametrize("change", [double, shift, double_by_keyword], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ["gates", "values", "readout_projection"])
@pytest.mark.parametrize("kind", ["bdlru", "hlru-window", "hlru-newest"])
def test_what_a_hook_returns_is_used(kind, name, change):
    layer = build(kind)
    change(layer, name)
    check_changed(layer, build(kind))
    check(layer)


@pytest.mark.parametrize("name", ["gates", "values", "readout_projection"])
def test_a_backward_hook_may_change_gradients(name):
    layer = build("bdlru")
    getattr(layer, name).register_full_backward_hook(
        lambda module, inner, outer: (torch.zeros_like(inner[0]),)
    )
    check(layer)


def test_a_removed_hook_is_gone():
    layer, calls = build("bdlru"), []
    handles = [getattr(layer, name).register_forward_hook(heard_by(calls, name)) for name in linears(layer)]
    for handle in handles:
        handle.remove()
    x, state = inputs(layer)
    torch.testing.assert_close(layer(x, state), build("bdlru")(x, state), rtol=0, atol=0)
    assert calls == []


@pytest.mark.parametrize("kind", LAYERS)
def test_a_forward_replaced_on_one_linear(kind):
    """As accelerate and patches of attention layers do it: the class stays, the instance's `forward` is another."""
    layer, calls = build(kind), []
    for name in linears(layer):
        linear = getattr(layer, name)
        original = linear.forward
        linear.forward = lambda x, name=name, original=original: (calls.append(name), 2 * original(x))[1]
    check_changed(layer, build(kind))
    check(layer)
    calls.clear()
    x, state = inputs(layer)
    layer(x, state)
    assert sorted(calls) == sorted(linears(layer))


def test_packed_sequences_with_hooks():
    """Called linears see whole windows, also across the bounds of packed sequences."""
    bounds = torch.tensor([0, 1, 1, 5, 7])
    x = torch.randn(1, 7, 8, dtype=torch.float64)
    for kind in LAYERS:
        plain, layer = build(kind), build(kind)
        layer.readout_projection.register_forward_hook(lambda *_: None)
        state = torch.randn(4, 6, 2, dtype=torch.float64)
        torch.testing.assert_close(layer(x, state, cu_seqlens=bounds), plain(x, state, cu_seqlens=bounds))
        torch.testing.assert_close(layer(x, cu_seqlens=bounds), plain(x, cu_seqlens=bounds))


def test_no_time_and_no_batch_with_hooks():
    for kind in LAYERS:
        layer = build(kind)
        for name in linears(layer):
            getattr(layer, name).register_forward_hook(lambda *_: None)
        for B, T in ((2, 0), (0, 3), (0, 0)):
            y, state = layer(torch.randn(B, T, 8, dtype=torch.float64))
            assert y.shape == (B, T, 8) and state.shape == (B, 6, 2)
        y, state = by_steps(layer, torch.randn(0, 3, 8, dtype=torch.float64), layer.initial_state(0))
        assert y.shape == (0, 3, 8) and state.shape == (0, 6, 2)
