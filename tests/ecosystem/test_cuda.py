"""On a GPU as on the CPU: called sub-modules, states of their own, one token, forward mode."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from statemix.nn import BDLRU, HLRU
from tests.ops.cases import RECURRENCES, inputs, relative, run

pytestmark = pytest.mark.gpu

LAYERS = {
    "bdlru": lambda: BDLRU(32, block_size=4, device="cuda"),
    "hlru-window": lambda: HLRU(32, order=3, num_channels=16, device="cuda"),
    "hlru-newest": lambda: HLRU(32, order=4, num_channels=16, readout="newest", device="cuda"),
    "bdlru-free": lambda: BDLRU(32, block_size=4, selective=False, device="cuda"),
}
LINEARS = ("gates", "values", "readout_projection")


def doubled(module: nn.Module, arguments: object, output: torch.Tensor) -> torch.Tensor:
    return 2 * output


CHANGES = {
    "hook": lambda one: one.register_forward_hook(doubled),
    "prune": lambda one: prune.random_unstructured(one, "weight", 0.5),
    "weight_norm": lambda one: parametrizations.weight_norm(one),
}


def twin(layer, kind):
    """The same parameters on the CPU, in float64."""
    other = LAYERS[kind]().cpu().double()
    other.load_state_dict(layer.state_dict())
    return other


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", LAYERS)
def test_changed_linears_are_called(kind, change):
    layer = LAYERS[kind]()
    other = twin(layer, kind)
    for name in LINEARS:
        if hasattr(layer, name):
            torch.manual_seed(0)
            CHANGES[change](getattr(layer, name))
            if change == "prune":
                mask = getattr(layer, name).weight_mask.cpu().double()
                prune.custom_from_mask(getattr(other, name), "weight", mask)
            else:
                CHANGES[change](getattr(other, name))
    x = torch.randn(2, 40, 32, device="cuda", requires_grad=True)
    y, _ = layer(x)
    want = other(x.detach().cpu().double())
    assert relative(y.cpu(), want[0]) < 1e-2  # TF32 may be on
    y.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    with torch.no_grad():
        carried = None
        for t in range(5):
            token, carried = layer.step(x[:, t], carried)
            assert relative(token.cpu(), want[0][:, t]) < 1e-2


@pytest.mark.parametrize("kind", LAYERS)
def test_a_carried_state_may_be_changed_in_training(kind):
    layer = LAYERS[kind]()
    x = torch.randn(3, 40, 32, device="cuda")
    _, state = layer(x)
    assert state.is_contiguous() and not state._is_view()
    state[torch.tensor([True, False, True], device="cuda")] = 0
    y, state = layer(x, state)
    state.mul_(2).detach_()
    y.relu_().sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("kind", LAYERS)
def test_resetting_on_the_device(kind):
    layer = LAYERS[kind]()
    torch.manual_seed(3)
    fresh = LAYERS[kind]()
    with torch.device("meta"):
        layer = LAYERS[kind]().to("meta")
    layer.to_empty(device="cuda")
    torch.manual_seed(3)
    layer.reset_parameters()
    for have, want in zip(layer.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(have, want)


@pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_tangents(recurrence, packed):
    tensors = [
        x.cuda()
        for x in inputs(recurrence, 1, 50, 8, 4, sequences=3 if packed else None, dtype=torch.float32)
    ]
    options = {"cu_seqlens": torch.tensor([0, 7, 7, 50], device="cuda")} if packed else {}
    tangents = tuple(torch.randn_like(x) for x in tensors)
    have = torch.func.jvp(lambda *t: run(recurrence, *t, **options), tuple(tensors), tangents)
    wide = tuple(x.cpu().double() for x in tensors), tuple(x.cpu().double() for x in tangents)
    cpu = {key: value.cpu() for key, value in options.items()}
    want = torch.func.jvp(lambda *t: run(recurrence, *t, **cpu), *wide)
    for got, exact in zip((*have[0], *have[1]), (*want[0], *want[1]), strict=True):
        assert relative(got.cpu(), exact) < 1e-5


@pytest.mark.parametrize("kind", LAYERS)
def test_forward_mode_of_a_layer_in_training(kind):
    """The fused product of a GPU layer has no tangent of its own: the ordinary way is taken."""
    layer = LAYERS[kind]()
    x = torch.randn(2, 40, 32, device="cuda")
    _, tangent = torch.func.jvp(lambda x: layer(x)[0], (x,), (x,))
    with torch.autograd.forward_ad.dual_level():
        y, _ = layer(torch.autograd.forward_ad.make_dual(x, x))
        dual = torch.autograd.forward_ad.unpack_dual(y).tangent
    torch.testing.assert_close(dual, tangent)
    other = twin(layer, kind)
    want = torch.func.jvp(lambda x: other(x)[0], (x.cpu().double(),), (x.cpu().double(),))[1]
    assert relative(tangent.cpu(), want) < 1e-2
