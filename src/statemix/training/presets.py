"""Configurations by name: settings over the defaults of `Config`, each with a line on what it is."""

from __future__ import annotations

from typing import Any

_DEMO: dict[str, Any] = {
    "task": {"name": "permutation", "n": 4, "length": 16},
    "model": {"dim": 64, "depth": 1},
    "training": {
        "steps": 300, "batch_size": 128, "lr": 3e-3, "warmup": 50, "train_examples": 38_400,
        "train_lengths": [2, 4, 8, 16], "eval_every": 100, "eval_examples": 512, "eval_tokens": 131_072,
        "eval_lengths": [16, 64, 256, 1024, 4096, 65_536], "tensorboard": "off",
    },
}  # fmt: skip

_START = {"learned_initial_state": True}

_MAD: dict[str, Any] = {
    "model": {"dim": 128, "depth": 2},
    "training": {"steps": 20_000, "batch_size": 128, "lr": 1e-3, "warmup": 200, "eval_every": 500,
                 "checkpoint_every": 2000, "stop_accuracy": 0.999},
}  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    "demo-diagonal": _DEMO | {"mixer": _START | {"name": "bdlru", "block_size": 1, "num_blocks": 192}},
    "demo-bdlru": _DEMO | {"mixer": _START | {"name": "bdlru", "block_size": 6, "num_blocks": 32}},
    "demo-hard": _DEMO
    | {"mixer": _START | {"name": "bdlru", "block_size": 6, "num_blocks": 32, "hard": True}},
    "demo-hlru": _DEMO | {"mixer": _START | {"name": "hlru", "order": 6, "num_channels": 32}},
    "mad-bdlru": _MAD | {"mixer": {"name": "bdlru", "block_size": 4, "num_blocks": 64}},
    "mad-hlru": _MAD | {"mixer": {"name": "hlru", "order": 4, "num_channels": 64}},
}
"""The demo's layers at equal state size (192 numbers), and the paper's protocol for its synthetic tasks."""

SUMMARIES: dict[str, str] = {
    "demo-diagonal": "S4, diagonal layer (m = 1), 192 channels",
    "demo-bdlru": "S4, BD-LRU, 32 blocks of m = 6",
    "demo-hard": "S4, BD-LRU with hard rows, 32 blocks of m = 6",
    "demo-hlru": "S4, H-LRU, 32 channels of order m = 6",
    "mad-bdlru": "the paper's protocol, BD-LRU, 64 blocks of m = 4 (choose task.name=…)",
    "mad-hlru": "the paper's protocol, H-LRU, 64 channels of order m = 4 (choose task.name=…)",
}
"""One line on every preset."""
