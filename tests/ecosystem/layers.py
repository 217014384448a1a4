"""Small layers, and what must hold of one whose sub-modules are no longer plain linear layers.

A package changes a layer (a function layer -> layer); `check` compares it with `by_calls`, the formula of the layer
with its sub-modules called one after another.
"""

from __future__ import annotations

import copy
import pickle

import torch

from statemix import BDLRU, HLRU
from statemix.ops import bdlru_scan, hlru_scan

LINEARS = ("gates", "values", "readout_projection")
LAYERS = {
    "bdlru": lambda **k: BDLRU(8, block_size=2, num_blocks=6, **k),
    "bdlru-free": lambda **k: BDLRU(8, block_size=2, num_blocks=6, selective=False, **k),
    "hlru-window": lambda **k: HLRU(8, order=2, num_channels=6, **k),
    "hlru-newest": lambda **k: HLRU(8, order=2, num_channels=6, readout="newest", **k),
    "hlru-free": lambda **k: HLRU(8, order=2, num_channels=6, selective=False, **k),
    "hlru-start": lambda **k: HLRU(8, order=2, num_channels=6, learned_initial_state=True, **k),
}


def build(kind, dtype=torch.float64, **options):
    torch.manual_seed(0)
    return LAYERS[kind](dtype=dtype, **options)


def linears(layer):
    """The names of the layer's linears: gates that do not depend on the input have none."""
    return [name for name in LINEARS if hasattr(layer, name)]


def inputs(layer, T=7, dtype=torch.float64):
    """x [2, T, 8] and a state to begin with."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, T, 8, generator=generator, dtype=torch.float64).to(dtype)
    state = torch.randn(2, 6, 2, generator=generator, dtype=torch.float64)
    return x, state.to(torch.float64 if dtype == torch.float64 else torch.float32)


def by_calls(layer, x, state):
    """The layer's outputs for x [B, T, dim], its sub-modules called and never read."""
    scan, rows = (bdlru_scan, (6, 2)) if isinstance(layer, BDLRU) else (hlru_scan, (6,))
    raw = layer.gates(x) if layer.selective else layer.free_gates.flatten().expand(*x.shape[:2], -1)
    gates = raw.unflatten(-1, (3, *rows)).movedim(2, -1)  # rows of the weight: (column, block[, row])
    values = layer.values(x).unflatten(-1, rows)
    states, final = scan(gates.to(values.dtype), values, state, normalization=layer.normalization)
    if isinstance(layer, HLRU) and layer.readout == "window":
        history = torch.cat([state[..., :1].transpose(1, 2).to(states.dtype), states], dim=1)
        states = torch.stack([states, history[:, :-1]], dim=2)  # [B, T, lag, N]
    return layer.readout_projection(states.flatten(2)), final


def by_steps(layer, x, state):
    """The layer's outputs for x [B, T, dim], one token at a time."""
    outputs = []
    for t in range(x.shape[1]):
        y, state = layer.step(x[:, t], state)
        outputs.append(y)
    return torch.stack(outputs, 1), state


def gradients(function, layer, x, state):
    """Gradients to everything that has one: x, the state and the parameters that are trained."""
    leaves = [x.clone().requires_grad_(), state.clone().requires_grad_()]
    parameters = [p for p in layer.parameters() if p.requires_grad]
    y, final = function(leaves[0], leaves[1])
    loss = y.double().sin().sum() + final.double().cos().sum()
    return torch.autograd.grad(loss, (*leaves, *parameters), allow_unused=True)


def check(layer, *, dtype=torch.float64, trained=True, **tolerances):
    """`forward` and `step` give what the sub-modules give when they are called, gradients included."""
    for T in (1, 7):
        x, state = inputs(layer, T, dtype)
        want = by_calls(layer, x, state)
        torch.testing.assert_close(layer(x, state), want, **tolerances)
        torch.testing.assert_close(by_steps(layer, x, state), want, **tolerances)
        if not trained:
            continue
        want = gradients(lambda x, state: by_calls(layer, x, state), layer, x, state)
        for run in (layer, lambda x, state: by_steps(layer, x, state)):
            for have, exact in zip(gradients(run, layer, x, state), want, strict=True):
                torch.testing.assert_close(have, exact, **tolerances)


def check_changed(layer, plain, *, dtype=torch.float64, least=1e-3):
    """The layer gives other numbers than the plain one it was made of, in `forward` and in `step`."""
    x, state = inputs(layer, dtype=dtype)
    want = plain(x, state)[0]
    for y, _ in (layer(x, state), by_steps(layer, x, state)):
        assert (y - want).abs().max() > least


@torch.no_grad()  # a weight with a history, as pruning leaves it, cannot be copied
def check_copies(layer, *, dtype=torch.float64, pickled=True):
    """A deep copy, and what comes back from a pickle, give the same numbers."""
    x, state = inputs(layer, dtype=dtype)
    want = layer(x, state)
    twins = [copy.deepcopy(layer)]
    if pickled:
        twins.append(pickle.loads(pickle.dumps(layer)))
    for twin in twins:
        torch.testing.assert_close(twin(x, state), want, rtol=0, atol=0)
        torch.testing.assert_close(by_steps(twin, x, state), by_steps(layer, x, state), rtol=0, atol=0)
