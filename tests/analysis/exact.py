"""Models of hard layers that follow a group of permutations exactly, made without training."""

from __future__ import annotations

import torch

from statemix.models import LanguageModel
from statemix.nn import BDLRU, HLRU
from statemix.tasks import IGNORED, Automaton
from statemix.tasks.automata import images


def one_line(names, m):
    """Permutations in cycle notation as images of 0 … m - 1: int64 [count, m]."""
    return torch.tensor([images("", name) + tuple(range(len(images("", name)), m)) for name in names])


@torch.no_grad()
def set_rows(model: LanguageModel, block: int, rows: torch.Tensor) -> None:
    """Give a block of layer 0 the gates `rows` [symbols, m, m+1] for each symbol."""
    symbols, m, _ = rows.shape
    layer = model.layers[0]
    u = layer.mixer_norm(model.embedding(torch.arange(symbols)))
    weight = layer.mixer.gates.weight.view(m + 1, -1, m, u.shape[1])
    solution = torch.linalg.lstsq(u, rows.flatten(1).to(u)).solution  # [width, m (m+1)]
    weight[:, block] = solution.T.view(m, m + 1, -1).transpose(0, 1)


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
        moves = one_line(automaton.symbols, m)
        set_rows(model, 0, torch.nn.functional.one_hot(moves, m + 1))  # row i copies channel moves[i]
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


def functions_model(automaton: Automaton) -> LanguageModel:
    """A model with a block for each answer, and in it a channel for each function of the state that words make of
    whether it has the answer; rows take constant ones as values."""
    answers = sorted(set(automaton.outputs.tolist()) - {IGNORED})
    moves, functions = automaton.table.T.tolist(), []
    for answer in answers:
        made = [tuple((automaton.outputs == answer).tolist())]
        for one in made:
            after = [tuple(one[state] for state in move) for move in moves]
            made += [f for f in dict.fromkeys(after) if f not in made and len(set(f)) > 1]
        functions.append(made)
    m, symbols, width = max(map(len, functions)), len(moves), len(answers) + len(moves)
    layer = {"block_size": m, "num_blocks": len(answers), "hard": True, "learned_initial_state": True}
    model = LanguageModel(
        max(symbols, answers[-1] + 1), width, lambda dim: BDLRU(dim, **layer), depth=1, block={"mlp": False}
    )
    with torch.no_grad():
        model.embedding.weight.normal_().mul_(1e-3)
        mixer = model.layers[0].mixer
        values, u = torch.zeros(symbols, len(answers), m), model.embedding(torch.arange(symbols))
        mixer.readout_projection.weight.zero_()
        model.head.weight.zero_()
        model.head.bias.zero_()
        for block, (answer, made) in enumerate(zip(answers, functions, strict=True)):
            columns = torch.arange(m).repeat(symbols, 1)
            for symbol, move in enumerate(moves):
                for channel, one in enumerate(made):
                    before = tuple(one[state] for state in move)
                    columns[symbol, channel] = made.index(before) if before in made else m
                    values[symbol, block, channel] = before[0]
            set_rows(model, block, torch.nn.functional.one_hot(columns, m + 1))
            mixer.initial[block] = 0.0
            mixer.initial[block, : len(made)] = torch.tensor([float(one[automaton.start]) for one in made])
            mixer.readout_projection.weight.view(width, len(answers), m)[block, block, 0] = 1
            model.head.weight[answer, block] = 1
        u = model.layers[0].mixer_norm(u)
        mixer.values.weight.copy_(torch.linalg.lstsq(u, values.flatten(1)).solution.T)
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
