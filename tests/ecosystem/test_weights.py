"""Weights that are computed, masked, replaced or put in from outside."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.utils import parametrizations, parametrize, prune

from tests.ecosystem.layers import (
    LAYERS,
    build,
    by_calls,
    by_steps,
    check,
    check_changed,
    check_copies,
    inputs,
    linears,
)

pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")


class Halved(nn.Module):
    """A parametrization."""

    def forward(self, weight):
        return weight / 2


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


class Scaled(nn.Linear):
    """A linear layer with a forward of its own."""

    def forward(self, x):
        return 2 * super().forward(x)


class Int8(nn.Module):
    """A linear layer whose weight is no number that a product takes as it is."""

    def __init__(self, linear):
        super().__init__()
        scale = linear.weight.detach().abs().amax() / 127
        self.register_buffer("weight", (linear.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x):
        return nn.functional.linear(x, self.weight.to(x.dtype) * self.scale, self.bias)


class Table(nn.Module):
    """A linear map without any parameter or buffer."""

    def __init__(self, linear):
        super().__init__()
        self.function = copy.deepcopy(linear).requires_grad_(False).forward

    def forward(self, x):
        return 2 * self.function(x)


def scaled(linear):
    other = Scaled(linear.in_features, linear.out_features, linear.bias is not None).to(linear.weight.dtype)
    other.load_state_dict(linear.state_dict())
    return other


def lazy(linear):
    return nn.LazyLinear(linear.out_features, linear.bias is not None, dtype=linear.weight.dtype)


def old_weight_norm(linear):
    linear = nn.utils.weight_norm(linear)
    linear.weight_g.data.mul_(2)
    return linear


def new_weight_norm(linear):
    linear = parametrizations.weight_norm(linear)
    linear.parametrizations.weight.original0.data.mul_(2)
    return linear


CHANGES = {
    "prune": lambda linear: prune.l1_unstructured(linear, "weight", 0.5),
    "prune rows": lambda linear: prune.ln_structured(linear, "weight", 0.5, n=2, dim=0),
    "prune, removed": lambda linear: prune.remove(prune.l1_unstructured(linear, "weight", 0.5), "weight"),
    "weight_norm, old": old_weight_norm,
    "weight_norm": new_weight_norm,
    "spectral_norm, old": lambda linear: nn.utils.spectral_norm(linear).eval(),
    "spectral_norm": lambda linear: parametrizations.spectral_norm(linear).eval(),
    "orthogonal": lambda linear: parametrizations.orthogonal(linear),
    "parametrize": lambda linear: parametrize.register_parametrization(linear, "weight", Halved()),
    "sub-class": scaled,
    "sequence": lambda linear: nn.Sequential(linear, Doubled()),
    "int8": Int8,
    "no parameters": Table,
    "checkpointed": lambda linear: checkpoint_wrapper(scaled(linear)),
    "lazy": lazy,
}
"""A linear layer -> what takes its place."""

MADE_ON_THE_FLY = ("weight_norm", "spectral_norm", "orthogonal", "parametrize")
"""Parametrized modules, whose classes torch makes on the fly and refuses to pickle."""


def change(layer, how):
    """The layer with every linear changed; a module that draws its weights at the first call has been called."""
    for name in linears(layer):
        setattr(layer, name, CHANGES[how](getattr(layer, name)))
    if how == "lazy":
        by_calls(layer, *inputs(layer))
    return layer


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("kind", LAYERS)
def test_changed_linears(kind, how):
    layer = change(build(kind), how)
    check_changed(layer, build(kind), least=1e-4)
    check(layer)
    check_copies(layer, pickled=how not in MADE_ON_THE_FLY)


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_first_state_has_the_layers_dtype(kind, how):
    """Where no parameter of the replaced modules says it, another one of the layer does, or the default is taken."""
    layer = change(build(kind, dtype=torch.float32), how) if how != "lazy" else build(kind, torch.float32)
    x, _ = inputs(layer, dtype=torch.float32)
    state = layer.initial_state(2)
    assert (state.shape, state.dtype, state.device.type) == ((2, 6, 2), torch.float32, "cpu")
    torch.testing.assert_close(layer(x, state), layer(x))
    assert layer.step(x[:, 0], state)[1].dtype == torch.float32


def test_spectral_norm_iterates_once_a_call():
    """In training every call of the linear moves the estimate once: `forward` calls it once."""
    layer, linear = build("bdlru"), build("bdlru").values
    layer.values, linear = (
        parametrizations.spectral_norm(layer.values),
        parametrizations.spectral_norm(linear),
    )
    linear.load_state_dict(layer.values.state_dict())
    x, state = inputs(layer)
    layer(x, state)
    linear(x)
    assert torch.equal(layer.values.parametrizations.weight[0]._u, linear.parametrizations.weight[0]._u)


@pytest.mark.parametrize("name", ["gates", "values", "readout_projection"])
@pytest.mark.parametrize("kind", ["bdlru", "hlru-window"])
def test_one_replaced_linear_among_plain_ones(kind, name):
    layer = build(kind)
    setattr(layer, name, scaled(getattr(layer, name)))
    check_changed(layer, build(kind))
    check(layer)


@pytest.mark.parametrize("kind", LAYERS)
def test_weights_from_outside(kind):
    """`functional_call` with other weights, plain tensors as they are."""
    plain, other = build(kind), build(kind)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(2)
    x, state = inputs(plain)
    weights = {name: p.detach() for name, p in other.named_parameters()}
    for call in (torch.func.functional_call, torch.nn.utils.stateless._functional_call):
        torch.testing.assert_close(call(plain, weights, (x, state)), other(x, state))


@pytest.mark.parametrize("kind", LAYERS)
def test_a_frozen_layer_and_one_in_parts(kind):
    """Without gradients to weights the input still gets its own; half a layer may be trained."""
    layer = build(kind).requires_grad_(False)
    check(layer)
    layer.readout_projection.requires_grad_(True)
    check(layer)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_bias_where_there_was_none(kind):
    """`nn.Linear` itself, of another kind: a read-out and values with a bias."""
    layer = build(kind)
    for name in ("values", "readout_projection"):
        plain = getattr(layer, name)
        linear = nn.Linear(plain.in_features, plain.out_features, dtype=plain.weight.dtype)
        linear.weight = plain.weight
        setattr(layer, name, linear)
    check_changed(layer, build(kind))
    check(layer)


@pytest.mark.parametrize("kind", ["bdlru", "hlru-window"])
def test_a_weight_that_two_modules_share(kind):
    layer, twin = build(kind), build(kind)
    for name in linears(layer):
        getattr(twin, name).weight = getattr(layer, name).weight
    x, state = inputs(layer)
    (layer(x, state)[0] + twin(x, state)[0]).sin().sum().backward()
    check(layer)


@pytest.mark.parametrize("kind", ["bdlru", "hlru-window"])
def test_changed_linears_compile(kind):
    for how in ("parametrize", "sub-class", "sequence"):
        layer = change(build(kind), how)
        torch._dynamo.reset()
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        x, state = inputs(layer)
        torch.testing.assert_close(compiled(x, state), layer(x, state))


@pytest.mark.parametrize("how", ["parametrize", "sub-class", "sequence", "int8", "prune"])
@pytest.mark.parametrize("kind", LAYERS)
def test_changed_linears_under_autocast(kind, how):
    layer = change(build(kind, dtype=torch.float32), how)
    x, state = inputs(layer, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, final = layer(x, state)
        steps = by_steps(layer, x, state)
        want = by_calls(layer, x, state)
    assert (y.dtype, final.dtype) == (torch.bfloat16, torch.float32)
    for have in ((y, final), steps):
        torch.testing.assert_close(have, want, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("kind", ["bdlru", "hlru-window"])
def test_a_cached_parametrization_is_computed_once(kind):
    layer = change(build(kind), "parametrize")
    calls = []
    for name in linears(layer):
        module = getattr(layer, name).parametrizations.weight[0]
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    with parametrize.cached():
        check(layer, trained=False)
    assert calls == list(linears(layer))
