"""Models of hard layers that follow a group of permutations exactly, made without training."""

from __future__ import annotations

import torch

from statemix.models import LanguageModel
from statemix.nn import BDLRU, HLRU
from statemix.tasks import Automaton
from statemix.tasks.automata import images


def one_line(names, m):
    """Permutations in cycle notation as images of 0 … m - 1: int64 [count, m]."""
    return torch.tensor([images("", name) + tuple(range(len(images("", name)), m)) for name in names])


def group_model(
    automaton: Automaton, m: int, blocks: int = 1, depth: int = 1, seed: int = 0
) -> LanguageModel:
    """A model whose block 0 of layer 0 applies every symbol's permutation to its contents; the head reads them.

    All other blocks are as they were drawn: they forget, and the read-out leaves them out.
    """
    torch.manual_seed(seed)
    symbols, width = len(automaton.symbols), max(16, 4 * m, len(automaton.symbols) + 8)
    layer = {"block_size": m, "num_blocks": blocks, "hard": True, "learned_initial_state": True}
    vocabulary = max(len(automaton.states), symbols)
    model = LanguageModel(
        vocabulary, width, lambda dim: BDLRU(dim, **layer), depth=depth, block={"mlp": False}
    )
    with torch.no_grad():
        model.embedding.weight.normal_().mul_(1e-3)
        block = model.layers[0]
        u = block.mixer_norm(model.embedding(torch.arange(symbols)))
        moves = one_line(automaton.symbols, m)
        gates = torch.nn.functional.one_hot(moves, m + 1).to(u)  # row i copies channel moves[i]
        weight = block.mixer.gates.weight.view(m + 1, blocks, m, width)
        weight[:, 0] = (
            torch.linalg.lstsq(u, gates.flatten(1)).solution.T.view(m, m + 1, width).transpose(0, 1)
        )
        contents = torch.arange(m) - (m - 1) / 2
        block.mixer.initial[0] = contents
        for one in model.layers:
            one.mixer.readout_projection.weight.zero_()
        readout = model.layers[0].mixer.readout_projection.weight.view(width, blocks, m)
        readout[:m, 0] = torch.eye(m)
        model.head.weight.zero_()
        model.head.weight[: len(automaton.states), :m] = contents[one_line(automaton.states, m)]
        model.head.bias.zero_()
    return model


def last_symbol(depth: int = 1) -> LanguageModel:
    """A model of H-LRUs whose first channel takes the value of every symbol, 1 or -1, and answers by the newest."""
    torch.manual_seed(0)
    layer = {"order": 2, "num_channels": 1, "hard": True, "learned_initial_state": True}
    model = LanguageModel(2, 8, lambda width: HLRU(width, **layer), depth=depth, block={"mlp": False})
    with torch.no_grad():
        model.embedding.weight.copy_(torch.tensor([1.0, -1] * 4) * torch.tensor([[1.0], [-1]]) * 1e-3)
        for layer in model.layers:
            layer.mixer.readout_projection.weight.zero_()
        mixer = model.layers[0].mixer
        mixer.gates.weight.zero_()
        mixer.gates.bias.copy_(torch.tensor([0.0, 0, 1]))  # lags 1 and 2, and the value
        mixer.values.weight.fill_(0.125).mul_(torch.tensor([1.0, -1] * 4))
        mixer.readout_projection.weight[0, 0], mixer.readout_projection.weight[1, 0] = 1, -1
        model.head.weight.zero_()
        model.head.weight[0, 0], model.head.weight[1, 0] = 1, -1
    return model
