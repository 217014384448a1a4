"""How a hard layer is trained: one recipe of settings, and the remedies for runs that stall as changes to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """Sizes, optimiser and remedies of a population of runs. Every remedy is off by default."""

    dim: int = 128
    num_blocks: int = 64
    block_size: int = 5
    length: int = 16
    batch_size: int = 128
    steps: int = 10_000
    lr: float = 1e-3
    min_lr: float = 1e-6
    warmup: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    embedding_decay: bool = True
    published: bool = False
    """Whether vectors decay too, and dropout stands between the layers of an LSTM alone, as in protocol A's code."""
    gradient_clip: float = 1.0
    depth: int = 1
    model: str = "bdlru"
    """A key of `tracker.MODELS`."""
    hard: bool = True
    normalization: str = "softmax"
    learned_state: bool = True
    dropout: float = 0.0
    mlp: bool = True
    """Whether a SwiGLU stands between the layer and the head."""
    balance: float = 0.0
    """Weight of a penalty on columns that more than one row selects."""
    sinkhorn: int = 0
    """Steps that balance columns of the soft rows before the choice."""
    start: str = "random"
    """What a positive bias of the gates favours: "random" nothing, "identity", or a "permutation" for each block."""
    start_bias: float = 2.0
    temperature: tuple[float, float] = (1.0, 1.0)
    """Of the soft rows in the backward pass: at the first step and at the last."""
    input_blocks: float = 1.0
    """Share of blocks whose rows take the input. The other blocks' input gates start closed, at a bias that training
    does not move."""
    gate_lr: float = 1.0
    """The gates' learning rate as a multiple of `lr`."""
    gate_decay: bool = True
    """Whether the gates' weights decay."""
    lengths: tuple[int, ...] = ()
    """Lengths that training goes through, shortest first; empty: `length` alone."""
    patience: int = 10
    """Batches in a row without an error before the next of `lengths`; 0: every `stage_steps` instead."""
    enough: float = 1.0
    """Share of right answers from which a batch counts as without an error."""
    stage_steps: int = 300
    pieces: bool = False
    """Whether words of `length` letters are read as pieces of the present one of `lengths`, which keeps a batch's
    letters equal. Every piece starts from the initial state."""
    retry: int = 0
    """Steps after which a run that is still at the same of `lengths` draws its blocks anew and begins with the first
    length again; 0: never."""
    one_to_one: float = 0.0
    """Share of blocks whose rows select every channel once and never the input."""


DOUBLED = (2, 4, 8, 16)

REMEDIES: Mapping[str, Mapping[str, Any]] = {
    "base": {},
    "balance": {"balance": 0.1},
    "balance_1": {"balance": 1.0},
    "sinkhorn": {"sinkhorn": 3},
    "identity": {"start": "identity"},
    "permutation": {"start": "permutation"},
    "soft_backward": {"temperature": (4.0, 4.0)},
    "sharp_backward": {"temperature": (0.5, 0.5)},
    "annealed": {"temperature": (4.0, 0.5)},
    "larger_blocks": {"block_size": 8},
    "no_input": {"input_blocks": 0.0},
    "half_input": {"input_blocks": 0.5},
    "slow_gates": {"gate_lr": 0.3},
    "fast_gates": {"gate_lr": 3.0},
    "no_decay": {"gate_decay": False},
    "doubled": {"lengths": DOUBLED, "patience": 0},
    "doubled_when_exact": {"lengths": DOUBLED},
    "short_words": {"lengths": DOUBLED, "pieces": True, "enough": 0.9},
    "short_to_40": {"lengths": (2, 4, 8, 20, 40), "pieces": True, "enough": 0.9},
    "short_to_128": {"lengths": (*DOUBLED, 32, 64, 128), "pieces": True, "enough": 0.9},
    "large_batch": {"batch_size": 512},
    "small_batch": {"batch_size": 32},
    "momentum": {"betas": (0.98, 0.999)},
    "retries": {"retry": 500},
    "one_to_one": {"one_to_one": 1.0},
    "half_one_to_one": {"one_to_one": 0.5},
    "no_mlp": {"mlp": False},
    "soft": {"hard": False},
    "layers": {"model": "layers"},
    "plain": {"model": "layers", "hard": False, "learned_state": False, "lengths": (), "retry": 0},
    "lstm": {"model": "lstm", "lengths": (), "retry": 0},
    "pdssm": {"model": "pdssm", "lengths": (), "retry": 0},
    "published": {"published": True},
    "dropout_0.1": {"dropout": 0.1},
    "hlru": {"model": "hlru"},
    "signed": {"normalization": "tanh"},
    **{f"order_{m}": {"block_size": m} for m in (1, 2, 3, 4, 5, 7, 8)},
    "words_to_40": {"lengths": (4, 6, 8, 10, 12, 16, 20, 28, 40), "enough": 0.97},
    "one_layer": {"depth": 1, "block_size": 64, "num_blocks": 4, "gradient_clip": 1.0},
    "steps_20_000": {"steps": 20_000, "warmup": 2_000},
    "prefixes_to_128": {"lengths": (*DOUBLED, 32, 64, 128), "enough": 0.9},
}
"""The remedies by name: what each changes.

"layers" runs the layers' own scans, without penalty. "soft",
"plain", "lstm" and "pdssm" are compared with hard rows.
"""


def get_recipe(*remedies: str, **settings: Any) -> Recipe:
    """The recipe with some of `REMEDIES`, in order, and then with settings of its own.

    ValueError for an unknown name.
    """
    changes: dict[str, Any] = {}
    for name in remedies:
        if name not in REMEDIES:
            raise ValueError(f"remedy: got {name!r}, expected one of {', '.join(REMEDIES)}")
        changes |= REMEDIES[name]
    known = [one.name for one in dataclasses.fields(Recipe)]
    for name in settings:
        if name not in known:
            raise ValueError(f"recipe: unknown setting {name!r}, expected one of {', '.join(known)}")
    return Recipe(**{**changes, **settings})
