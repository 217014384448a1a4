"""A model of one hard layer, read a token at a time: gates and values depend on the token alone, so a table does."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix.models import LanguageModel
from statemix.nn import BDLRU
from statemix.ops import affine_scan, normalize
from statemix_research.automata.recipes import Recipe

NEVER = -1e4
"""A raw gate that is never selected."""


def build_model(recipe: Recipe, vocab_size: int, seed: int) -> LanguageModel:
    """One block around a hard BDLRU with a learned initial state, drawn from the seed; the global state is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = LanguageModel(
            vocab_size, recipe.dim, lambda dim: _mixer(dim, recipe), depth=1, block={"mlp": recipe.mlp}
        )
        start_gates(model.layers[0].mixer, recipe)
    return model


def _mixer(dim: int, recipe: Recipe) -> BDLRU:
    mixer = BDLRU(dim, block_size=recipe.block_size, num_blocks=recipe.num_blocks)
    if not hasattr(mixer, "initial"):
        mixer.initial = nn.Parameter(torch.randn(recipe.num_blocks, recipe.block_size))
    return mixer


@torch.no_grad()
def start_gates(mixer: BDLRU, recipe: Recipe) -> None:
    """Add the start that the recipe names to the gates' bias."""
    blocks, m = recipe.num_blocks, recipe.block_size
    bias = mixer.gates.bias.view(m + 1, blocks, m)  # column, block, row
    if recipe.start == "random":
        return
    for block in range(blocks):
        columns = torch.arange(m) if recipe.start == "identity" else torch.randperm(m)
        bias[columns, block, torch.arange(m)] += recipe.start_bias


class LayerTable(nn.Module):
    """The model of one layer as a function of tokens: every weight of its scan is looked up by the token.

    Equal to the model itself with hard rows, and several times faster where a batch has more tokens than the
    vocabulary. `forward` maps tokens [B, T] and a state [B, N, m] or None to logits [B, T, V], the new state and the
    penalty on selected columns.
    """

    def __init__(self, model: LanguageModel, recipe: Recipe) -> None:
        super().__init__()
        self.model, self.recipe = model, recipe
        inputs = torch.arange(recipe.num_blocks) < round(recipe.input_blocks * recipe.num_blocks)
        self.register_buffer("takes_input", inputs, persistent=False)

    def rows(self, temperature: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
        """Hard rows [V, N, m, m+1] (straight-through) and values [V, N, m] of all tokens."""
        block = self.model.layers[0]
        x = block.mixer_norm(self.model.embedding.weight).unsqueeze(0)
        raw = block.mixer.raw_gates(x)[0]
        if self.recipe.sinkhorn:
            raw = balanced(raw, self.recipe.sinkhorn)
        if self.recipe.input_blocks < 1:
            blocked = ~self.takes_input[:, None, None] & (torch.arange(raw.shape[-1], device=raw.device) == raw.shape[-2])
            raw = raw.masked_fill(blocked, NEVER)
        return normalize(raw / temperature, hard=True), block.mixer.raw_values(x)[0]

    def forward(
        self, tokens: Tensor, state: Tensor | None = None, temperature: Tensor | float = 1.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [B, T, V], the state after the last token, and the penalty."""
        block, rows, values = self.model.layers[0], *self.rows(temperature)
        size, m = rows.shape[1:3]
        if state is None:
            state = block.mixer.initial.expand(len(tokens), size, m)
        table = torch.cat([rows[..., :-1], (rows[..., -1] * values).unsqueeze(-1)], -1)  # [V, N, m, m + 1]
        read = F.embedding(tokens, table.flatten(1)).unflatten(-1, (size, m, m + 1))
        states, state = affine_scan(read[..., :-1], read[..., -1], state)
        x = self.model.embedding(tokens) + block.mixer.readout_projection(states.flatten(-2))
        if block.mlp is not None:
            x = x + block.mlp(block.mlp_norm(x))
        return self.model.head(self.model.norm(x)), state, crowding(rows)


def balanced(raw: Tensor, steps: int) -> Tensor:
    """Logits of rows [..., m, m+1] after Sinkhorn steps: columns that rows together select more than once give way."""
    rows = raw.log_softmax(-1)
    for _ in range(steps):
        columns = rows[..., :-1]
        columns = columns - columns.logsumexp(-2, keepdim=True).clamp(min=0.0)
        rows = torch.cat([columns, rows[..., -1:]], -1).log_softmax(-1)
    return rows


def crowding(rows: Tensor) -> Tensor:
    """The mean over columns of (rows that select it beyond the first)², for rows [..., m, m+1]."""
    return (rows[..., :-1].sum(-2) - 1).clamp(min=0.0).square().mean()
