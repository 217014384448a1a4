"""A language model with hard layers, its first layer read from a table, and what remedies change in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix.analysis import collision_penalty
from statemix.models import LanguageModel
from statemix.nn import BDLRU, HLRU
from statemix.ops import affine_scan, normalize
from statemix.training import CLOSED
from statemix_research.automata.copying import copy_scan
from statemix_research.automata.pdssm.model import PDSSMTracker
from statemix_research.automata.recipes import Recipe


def build_model(recipe: Recipe, vocab_size: int, seed: int) -> LanguageModel:
    """A model of BDLRUs with a learned initial state, drawn from the seed; the global random state is kept."""
    layer = partial(
        BDLRU,
        block_size=recipe.block_size,
        num_blocks=recipe.num_blocks,
        normalization=recipe.normalization,
        hard=recipe.hard,
        learned_initial_state=recipe.learned_state,
    )
    block = {"mlp": recipe.mlp, "dropout": recipe.dropout}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = LanguageModel(vocab_size, recipe.dim, layer, depth=recipe.depth, block=block)
        for mixer in model.modules():
            if isinstance(mixer, BDLRU):
                start_gates(mixer, recipe)
    return model


@torch.no_grad()
def start_gates(mixer: BDLRU, recipe: Recipe) -> None:
    """Add the start that the recipe names to the gates' bias, and close the input gates of blocks without input."""
    blocks, m = recipe.num_blocks, recipe.block_size
    bias, rows = mixer.gates.bias.view(m + 1, blocks, m), torch.arange(m)  # column, block, row
    for block in range(blocks if recipe.start != "random" else 0):
        columns = rows if recipe.start == "identity" else torch.randperm(m)
        bias[columns, block, rows] += recipe.start_bias
    bias[-1, ~_first(recipe.input_blocks, blocks)] = CLOSED


LARGEST_FUSED = 16
"""The largest m that the fused kernels take. Larger hard blocks of the first layer are run by `copy_scan`."""


class Tracker(nn.Module):
    """A language model as the recipe trains it.

    Gates and values of the first layer depend on the token alone: they are made once for the whole vocabulary and
    looked up. Without remedies it computes what the model itself does. `forward` maps tokens [B, T], the states of the
    layers or None, and the temperature of the soft rows to logits [B, T, V], the new states and the penalty on selected
    columns.
    """

    def __init__(self, model: LanguageModel, recipe: Recipe) -> None:
        super().__init__()
        self.model, self.recipe = model, recipe
        self.copies = recipe.hard and recipe.block_size > LARGEST_FUSED
        self.register_buffer("permutes", _first(recipe.one_to_one, recipe.num_blocks), persistent=False)

    def rows(self, layer: int, x: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
        """The rows [B, T, N, m, m+1] of a layer for x [B, T, dim], hard ones straight-through."""
        recipe, raw = self.recipe, self.blocks[layer].mixer.raw_gates(x)
        if recipe.sinkhorn:
            raw = balanced(raw, recipe.sinkhorn)
        rows = normalize(raw / temperature, recipe.normalization, hard=recipe.hard)
        if recipe.one_to_one:
            rows = torch.where(
                self.get_buffer("permutes")[:, None, None], one_to_one(raw / temperature), rows
            )
        return rows

    @property
    def blocks(self) -> list[Any]:
        """The model's blocks."""
        return list(self.model.layers)

    def token_rows(self) -> Tensor:
        """The first layer's rows [V, N, m, m+1] of all tokens."""
        return self.rows(0, self._vocabulary())[0]

    def forward(
        self,
        tokens: Tensor,
        states: list[Tensor] | None = None,
        temperature: Tensor | float = 1.0,
        starts: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Logits [B, T, V], the states after the last token, and the penalty. starts: bool [T], at which positions the
        initial state stands in place of the state before."""
        model, after, penalties = self.model, [], []
        x = F.embedding(tokens, model.embedding.weight)
        for k, block in enumerate(self.blocks):
            u = block.mixer_norm(x) if k else self._vocabulary()
            rows, values = self.rows(k, u, temperature), block.mixer.raw_values(u)
            penalties.append(collision_penalty(rows))
            start = block.mixer.initial_state(len(tokens)) if states is None else states[k]
            matrices, inputs = rows[..., :-1], rows[..., -1] * values
            y, state = self._scan(matrices, inputs, start, None if k else tokens, starts)
            after.append(state)
            x = x + self._drop(block.mixer.readout_projection(y.flatten(-2)))
            if block.mlp is not None:
                x = x + self._drop(block.mlp(block.mlp_norm(x)))
        return model.head(model.norm(x)), after, torch.stack(penalties).mean()

    def _scan(
        self, matrices: Tensor, inputs: Tensor, start: Tensor, tokens: Tensor | None, starts: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """States [B, T, N, m] and the last. tokens: where matrices and inputs are those [1, V, …] of the vocabulary."""
        if tokens is not None and self.copies and starts is None:
            states = copy_scan(matrices[0], inputs[0], start, tokens)
            return states, states[:, -1]
        if tokens is not None:
            both = torch.cat([matrices, inputs.unsqueeze(-1)], -1)[0]  # [V, N, m, m + 1]
            both = F.embedding(tokens, both.flatten(1)).unflatten(-1, both.shape[1:])
            matrices, inputs = both[..., :-1], both[..., -1]
        if starts is not None:
            begins = starts[:, None, None]
            inputs = inputs + begins * (matrices * start[:, None, :, None]).sum(-1)
            matrices = matrices * ~begins[..., None]
        return affine_scan(matrices, inputs, start)

    def _vocabulary(self) -> Tensor:
        """What the first layer reads of every token: [1, V, dim]."""
        return self.blocks[0].mixer_norm(self.model.embedding.weight).unsqueeze(0)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.recipe.dropout, self.training) if self.recipe.dropout else x


class LSTMTracker(nn.Module):
    """Embedding, LSTM layers and head: the control of protocol A."""

    alone = True
    """torch cannot stack its runs."""

    def __init__(self, recipe: Recipe, vocab_size: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.embedding = nn.Embedding(vocab_size, recipe.dim)
        self.lstm = nn.LSTM(recipe.dim, recipe.dim, recipe.depth)
        self.head = nn.Linear(recipe.dim, vocab_size)

    def forward(
        self, tokens: Tensor, states: list[Tensor] | None = None, temperature: Tensor | float = 1.0
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """As `Tracker`; a layer's state is h and c, [2, B, dim]."""
        x, after = F.embedding(tokens, self.embedding.weight), []
        weights = dict[str, Tensor](self.lstm.named_parameters())
        for layer in range(self.recipe.depth):
            own = [weights[f"{name}_l{layer}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            start = x.new_zeros(2, len(tokens), self.recipe.dim) if states is None else states[layer]
            x, h, c = torch.lstm(x, start.split(1), own, True, 1, 0.0, self.training, False, True)
            after.append(torch.cat([h, c]))
            if self.recipe.dropout and not (self.recipe.published and layer + 1 == self.recipe.depth):
                x = F.dropout(x, self.recipe.dropout, self.training)
        return self.head(x), after, x.new_zeros(())


class LayerTracker(nn.Module):
    """A language model of any mixer, read as it is; without remedies and penalty."""

    def __init__(self, recipe: Recipe, vocab_size: int) -> None:
        super().__init__()
        block = {"mlp": recipe.mlp, "dropout": recipe.dropout}
        mixer = MIXERS[recipe.model](recipe)
        self.model = LanguageModel(vocab_size, recipe.dim, mixer, depth=recipe.depth, block=block)

    def forward(
        self, tokens: Tensor, states: list[Tensor] | None = None, temperature: Tensor | float = 1.0
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """As `Tracker`."""
        logits, after = self.model(tokens, states)
        return logits, after, logits.new_zeros(())


MIXERS: Mapping[str, Callable[[Recipe], Callable[[int], nn.Module]]] = {
    "hlru": lambda recipe: partial(
        HLRU, order=recipe.block_size, num_channels=recipe.num_blocks, normalization=recipe.normalization,
        hard=recipe.hard, learned_initial_state=recipe.learned_state,
    ),
    "layers": lambda recipe: partial(
        BDLRU, block_size=recipe.block_size, num_blocks=recipe.num_blocks, normalization=recipe.normalization,
        hard=recipe.hard, learned_initial_state=recipe.learned_state,
    ),
}  # fmt: skip
"""The mixers of `LayerTracker`, by name."""


def _drawn(build: Callable[[Recipe, int], nn.Module]) -> Callable[[Recipe, int, int], nn.Module]:
    """With a third argument, the seed of the weights; the global random state is kept."""

    def draw(recipe: Recipe, vocab_size: int, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return build(recipe, vocab_size)

    return draw


MODELS: Mapping[str, Callable[[Recipe, int, int], nn.Module]] = {
    "bdlru": lambda recipe, vocab_size, seed: Tracker(build_model(recipe, vocab_size, seed), recipe),
    "lstm": _drawn(LSTMTracker),
    "pdssm": _drawn(PDSSMTracker),
    **{name: _drawn(LayerTracker) for name in MIXERS},
}
"""What a population trains, by name: a function of recipe, vocabulary size and seed."""


def changes_rows(recipe: Recipe) -> bool:
    """Whether a remedy makes the rows select others than the layer's own gates do."""
    return bool(recipe.sinkhorn or recipe.one_to_one)


def _first(share: float, blocks: int) -> Tensor:
    """bool [N]: which blocks are the first share of them."""
    return torch.arange(blocks) < round(share * blocks)


def balanced(raw: Tensor, steps: int) -> Tensor:
    """Logits of rows [..., m, m+1] after Sinkhorn steps: columns that rows together select more than once give way."""
    rows = raw.log_softmax(-1)
    for _ in range(steps):
        columns = rows[..., :-1]
        columns = columns - columns.logsumexp(-2, keepdim=True).clamp(min=0.0)
        rows = torch.cat([columns, rows[..., -1:]], -1).log_softmax(-1)
    return rows


def one_to_one(raw: Tensor, steps: int = 5) -> Tensor:
    """Hard rows [..., m, m+1] that select every channel once, straight-through to Sinkhorn's soft ones.

    The largest weight left chooses first, and takes its row and column away.
    """
    m, logits = raw.shape[-2], raw[..., :-1]
    for _ in range(steps):
        logits = logits.log_softmax(-2).log_softmax(-1)
    left, hard, places = logits.detach(), torch.zeros_like(logits), torch.arange(m * m, device=raw.device)
    for _ in range(m):
        best = (left.flatten(-2).argmax(-1, keepdim=True) == places).unflatten(-1, (m, m))
        hard = hard + best
        left = left.masked_fill(best.any(-1, keepdim=True) | best.any(-2, keepdim=True), -torch.inf)
    soft = logits.exp()
    return F.pad(hard + (soft - soft.detach()), (0, 1))
