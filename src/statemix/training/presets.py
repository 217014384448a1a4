"""Configurations by name: settings over the defaults of `Config`, each with a line on what it is."""

from __future__ import annotations

from typing import Any

from statemix.training.learning import CLOSED

_DEMO: dict[str, Any] = {
    "task": {"name": "permutation", "n": 4, "length": 16},
    "model": {"dim": 128, "depth": 1, "mlp": False},
    "training": {
        "steps": 300, "batch_size": 128, "lr": 2e-3, "warmup": 50, "train_examples": 38_400,
        "train_lengths": [2, 4, 8, 16], "eval_every": 100, "eval_examples": 512, "eval_tokens": 131_072,
        "eval_lengths": [16, 64, 256, 1024, 4096, 65_536], "tensorboard": "off",
    },
}  # fmt: skip

_START = {"learned_initial_state": True}

_BLOCKS = _START | {"name": "bdlru", "block_size": 4, "num_blocks": 16, "gate_bias": CLOSED}
"""Blocks that start unable to take an input, soft and hard ones alike: what they hold moves and is not lost."""

_MAD: dict[str, Any] = {
    "model": {"dim": 128, "depth": 2},
    "training": {"steps": 20_000, "batch_size": 128, "lr": 1e-3, "warmup": 200, "eval_every": 500,
                 "checkpoint_every": 2000, "stop_accuracy": 0.999},
}  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    "demo-diagonal": _DEMO | {"mixer": _START | {"name": "bdlru", "block_size": 1, "num_blocks": 64}},
    "demo-bdlru": _DEMO | {"mixer": _BLOCKS},
    "demo-hard": _DEMO | {"mixer": _BLOCKS | {"hard": True}},
    "demo-hlru": _DEMO | {"mixer": _START | {"name": "hlru", "order": 4, "num_channels": 16}},
    "mad-bdlru": _MAD | {"mixer": {"name": "bdlru", "block_size": 4, "num_blocks": 64}},
    "mad-hlru": _MAD | {"mixer": {"name": "hlru", "order": 4, "num_channels": 64}},
}
"""The demo's layers at equal state size (64 numbers), and the paper's protocol for its synthetic tasks.

The demo's models have one width, one training and no SwiGLU. Its soft and hard blocks differ in their rows alone: the
start that hard rows need is the better one for soft rows too.
"""

SUMMARIES: dict[str, str] = {
    "demo-diagonal": "S4, diagonal layer (m = 1), 64 channels, no SwiGLU",
    "demo-bdlru": "S4, BD-LRU, 16 blocks of m = 4, no SwiGLU, input gates closed at the start",
    "demo-hard": "S4, BD-LRU with hard rows, all else as in demo-bdlru: what hard rows alone change",
    "demo-hlru": "S4, H-LRU, 16 channels of order m = 4, no SwiGLU",
    "mad-bdlru": "the paper's protocol, BD-LRU, 64 blocks of m = 4 (choose task.name=…)",
    "mad-hlru": "the paper's protocol, H-LRU, 64 channels of order m = 4 (choose task.name=…)",
}
"""One line on every preset."""
