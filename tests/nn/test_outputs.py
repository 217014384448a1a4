"""What the scans and layers return belongs to the caller: storage of its own, plainly contiguous states, free to be
changed in place in the middle of training, as with `torch.nn.GRU`."""

from __future__ import annotations

import pytest
import torch

from statemix.ops import bdlru_step, hlru_step
from tests.nn.test_layers import LAYERS
from tests.ops.cases import BACKENDS, RECURRENCES, inputs, run

X = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(0))
DONE = torch.tensor([True, False, True])


def build(kind, backend="auto"):
    torch.manual_seed(0)
    return LAYERS[kind](backend=backend)


def whole(layer):
    return layer(X)


def token(layer):
    return layer.step(X[:, 0], layer.initial_state(3))


WAYS = {"forward": whole, "step": token}

CHANGES = {
    "index": lambda state: state.__setitem__(DONE, 0),
    "masked": lambda state: state.masked_fill_(DONE[:, None, None], 0),
    "mul": lambda state: state.mul_(torch.where(DONE, 0.0, 1.0)[:, None, None]),
    "zero": lambda state: state.zero_(),
    "copy": lambda state: state.copy_(torch.ones_like(state)),
    "detach": lambda state: state.detach_(),
    "add": lambda state: state.add_(1),
    "clamp": lambda state: state.clamp_(-0.1, 0.1),
    "row": lambda state: state[0].fill_(0),
}
"""What a training loop does to a carried state between two pieces of a sequence."""


EVERY_WAY = [(kind, backend, way, "index") for kind in LAYERS for backend in BACKENDS for way in WAYS]
EVERY_CHANGE = [(kind, "auto", "forward", change) for kind in ("bdlru", "hlru-window") for change in CHANGES]


@pytest.mark.parametrize(("kind", "backend", "way", "change"), EVERY_WAY + EVERY_CHANGE)
def test_a_carried_state_may_be_changed_in_training(kind, backend, way, change):
    """The gradients are those of the same change made on a copy."""
    layer = build(kind, backend)

    def gradients(copied):
        y, state = WAYS[way](layer)
        state = state.clone() if copied else state
        CHANGES[change](state)
        z, _ = layer(X, state)
        return torch.autograd.grad((y.sin() + y).sum() + z.sin().sum(), list(layer.parameters()))

    for have, exact in zip(gradients(copied=False), gradients(copied=True), strict=True):
        torch.testing.assert_close(have, exact)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", LAYERS)
def test_outputs_may_be_changed_in_training(kind, way):
    """An activation in place behind the layer; the state is another tensor and stays."""
    layer = build(kind)
    y, state = WAYS[way](layer)
    want = y.detach().relu(), state.detach().clone()
    y.mul_(2).relu_()
    torch.testing.assert_close((y / 2, state), want)
    (y.sum() + state.sum()).backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())
    y, state = WAYS[way](layer)
    y.detach_()
    assert not y.requires_grad and state.requires_grad


SIZES = [(2, 7), (2, 1), (2, 0), (0, 3)]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_the_final_state_of_a_scan_may_be_changed(recurrence, backend, sizes):
    tensors = [x.requires_grad_() for x in inputs(recurrence, *sizes)]
    states, final = run(recurrence, *tensors, backend=backend)
    want = torch.autograd.grad(states.sum() + 3 * final.sum(), tensors)
    states, final = run(recurrence, *tensors, backend=backend)
    final.mul_(3)
    torch.testing.assert_close(torch.autograd.grad(states.sum() + final.sum(), tensors), want)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_changed_states_of_a_scan_never_lead_to_wrong_gradients(recurrence, backend, sizes):
    """The way back needs them, as that of `torch.sigmoid` needs its output: torch says so when it is taken."""
    tensors = [x.requires_grad_() for x in inputs(recurrence, *sizes)]
    states, final = run(recurrence, *tensors, backend=backend)
    states.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(states.sum() + final.sum(), tensors)
    states, final = run(recurrence, *tensors, backend=backend)
    states.detach_()
    assert not states.requires_grad and final.requires_grad


def storages(tensors):
    return [t.untyped_storage().data_ptr() for t in tensors if t is not None and t.numel()]


MODES = {"training": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}
SHAPES = {"long": (2, 7, None), "token": (2, 1, None), "no time": (2, 0, None), "no batch": (0, 3, None)}
SHAPES |= {"packed": (1, 7, [0, 3, 7]), "empty sequences": (1, 4, [0, 0, 4, 4]), "no sequence": (1, 0, [0])}
SHAPES |= {"all empty": (1, 0, [0, 0, 0])}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_no_output_shares_memory_with_an_input(recurrence, backend, shape):
    B, T, bounds = SHAPES[shape]
    sequences = B if bounds is None else len(bounds) - 1
    options = {} if bounds is None else {"cu_seqlens": torch.tensor(bounds)}
    for mode in MODES.values():
        given = inputs(recurrence, B, T, sequences=sequences)
        before = [x.clone() for x in given]
        with mode():
            outputs = run(recurrence, *given, backend=backend, **options)
            own = storages(outputs)
            assert len(set(own)) == len(own), mode
            assert not set(own) & set(storages(given)), mode
            for tensor in outputs:
                tensor.fill_(7)
        assert all(torch.equal(old, new) for old, new in zip(before, given, strict=True)), mode


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_owns_what_it_returns(kind, shape):
    """State in and out, x and y and the parameters: changing one changes no other."""
    B, T, bounds = SHAPES[shape]
    layer = build(kind)
    x = torch.randn(B, T, 6)
    state = layer.initial_state(B if bounds is None else len(bounds) - 1) + 1
    cut = None if bounds is None else torch.tensor(bounds)
    for mode in (torch.enable_grad, torch.inference_mode):
        check_layer_owns(layer, x, state, cut, mode)


def check_layer_owns(layer, x, state, cut, mode):
    with mode():
        outputs = layer(x, state, cut)
        others = [x, state, *layer.parameters()]
        copies = [t.detach().clone() for t in others]
        assert outputs[1].is_contiguous() and outputs[1].view(-1).shape == (outputs[1].numel(),)
        kept = outputs[0].detach().clone()
        outputs[1].fill_(7)
        assert torch.equal(outputs[0], kept)
        outputs[0].fill_(7)
        for old, new in zip(copies, others, strict=True):
            assert torch.equal(old, new)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_step_owns_what_it_returns(kind, mode):
    layer = build(kind)
    x, state = torch.randn(2, 6), torch.ones_like(layer.initial_state(2))
    with MODES[mode]():
        first = layer.step(x, state)
        kept = [t.detach().clone() for t in first]
        second = layer.step(x, first[1])
        own = storages((*first, *second, x, state, *layer.parameters()))
        assert len(set(own)) == len(own)
        for tensor in second:
            tensor.fill_(7)
        for old, new in zip(kept, first, strict=True):
            assert torch.equal(old, new)
        assert (state == 1).all()
        assert first[1].is_contiguous()


def test_operations_of_one_token_own_their_state():
    for recurrence, step in (("bdlru", bdlru_step), ("hlru", hlru_step)):
        gates, values, state = inputs(recurrence, T=1)
        new = step(gates[:, 0], values[:, 0], state)
        assert new.is_contiguous()
        assert not set(storages([new])) & set(storages([gates, values, state]))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_state_can_be_viewed_and_saved(kind, backend, way, tmp_path):
    from safetensors.torch import load_file, save_file

    layer = build(kind, backend)
    _, state = WAYS[way](layer)
    assert state.is_contiguous()
    assert state.view(-1).shape == (state.numel(),)
    assert state._base is None  # no view into something larger
    assert state.untyped_storage().nbytes() == state.numel() * state.element_size()
    save_file({"state": state.detach()}, tmp_path / "state.safetensors")
    assert torch.equal(load_file(tmp_path / "state.safetensors")["state"], state)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_state_is_contiguous_elsewhere(kind):
    """Without memory, as on a GPU."""
    layer = LAYERS[kind](device="meta")
    for T in (7, 1, 0):
        y, state = layer(torch.empty(2, T, 6, device="meta"))
        assert y.is_contiguous() and state.is_contiguous()
    y, state = layer.step(torch.empty(2, 6, device="meta"), layer.initial_state(2))
    assert y.is_contiguous() and state.is_contiguous()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_states_of_any_strides_go_in_and_contiguous_ones_come_out(recurrence, backend):
    gates, values, state = inputs(recurrence)
    want = run(recurrence, gates, values, state, backend=backend)
    for other in (state.transpose(1, 2).contiguous().transpose(1, 2), state[:1].expand(2, -1, -1)):
        got = run(recurrence, gates, values, other, backend=backend)
        assert got[1].is_contiguous()
    torch.testing.assert_close(got[1][:1], want[1][:1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_gradients_own_their_storage(recurrence, backend):
    """Gradients are accumulated in place by the optimiser's loop: no two are one tensor, nor a saved one."""
    tensors = [x.requires_grad_() for x in inputs(recurrence)]
    states, final = run(recurrence, *tensors, backend=backend)
    ones = torch.ones_like(states), torch.ones_like(final)
    grads = torch.autograd.grad((states, final), tensors, ones, retain_graph=True)
    kept = [g.clone() for g in grads]
    own = storages((*grads, *ones, *tensors, states, final))
    assert len(set(own)) == len(own)
    for grad in grads:
        grad.fill_(7)
    for have, exact in zip(torch.autograd.grad((states, final), tensors, ones), kept, strict=True):
        torch.testing.assert_close(have, exact)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_storages_of_inputs_stay_resizable(recurrence, backend):
    """Sharding frees the memory of parameters after use by resizing their storage to nothing."""
    tensors = [x.detach() for x in inputs(recurrence)]
    states, final = run(recurrence, *tensors, backend=backend)
    for tensor in (*tensors, states, final):
        assert tensor.untyped_storage().resizable()


@pytest.mark.parametrize("kind", LAYERS)
def test_states_in_an_episode_as_with_a_gru(kind):
    """Truncated backpropagation through time: some sequences begin anew, the state goes on without history."""
    layer = build(kind)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    state = layer.initial_state(3)
    for _ in range(3):
        state[DONE] = 0
        y, state = layer(X, state)
        y.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        state.detach_()
        assert not state.requires_grad
    buffer = torch.zeros(10, *state.shape)
    buffer[3].copy_(state)  # a replay buffer
    layer(X, buffer[3])[0].sum().backward()
