"""PD-SSM of protocol A against its equations."""

from __future__ import annotations

import pytest
import torch
from statemix_research.automata.pdssm import PDSSMTracker
from statemix_research.automata.recipes import get_recipe


def by_matrices(layer, x):
    """A block with every P_t written out; the gradient passes through a softmax in its place."""
    weights = layer.choice(x).softmax(-1)
    soft = torch.einsum("btk,kmn->btmn", weights, layer.dictionary).softmax(-1)
    hard = torch.nn.functional.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype)
    matrices = (hard - soft).detach() + soft
    factors = torch.polar(layer.magnitude(x), 2 * torch.pi * layer.phase(x))
    inputs = torch.view_as_complex((x @ layer.inputs.T).unflatten(-1, (-1, 2)))
    h = torch.zeros_like(inputs[:, 0])
    h[:, 0] = 1
    states = []
    for t in range(x.shape[1]):
        h = factors[:, t] * (matrices[:, t].to(h.dtype) @ h.unsqueeze(-1)).squeeze(-1) + inputs[:, t]
        states.append(h)
    read = layer.readout(torch.view_as_real(torch.stack(states, 1)).flatten(-2))
    return layer.norm(read + layer.skip * x)


@pytest.mark.parametrize("length", [1, 7])
def test_the_model_is_that_of_the_matrices(length):
    torch.manual_seed(0)
    model = PDSSMTracker(get_recipe("pdssm", dim=6, depth=2), 5).double()
    tokens = torch.randint(5, (3, length))
    x = model.embedding(tokens)
    for layer in model.layers:
        x = by_matrices(layer, x)
    found = []
    for logits in (model(tokens)[0], model.head(x)):
        gradients = torch.autograd.grad(logits.square().sum(), list(model.parameters()))
        found.append((logits, *gradients))
    torch.testing.assert_close(*found)
    assert all(gradient.any() for gradient in found[0][1:])
