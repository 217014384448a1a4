"""Configurations by name: settings over the defaults of `Config`, each with a line on what it is."""

from __future__ import annotations

from typing import Any

_DEMO: dict[str, Any] = {
    "task": {"name": "permutation", "n": 3, "length": 16},
    "model": {"dim": 64, "depth": 2},
    "training": {
        "steps": 800, "batch_size": 128, "lr": 3e-3, "warmup": 50, "eval_every": 100, "eval_examples": 512,
        "eval_lengths": [16, 32, 64, 256], "tensorboard": "off",
    },
}  # fmt: skip

_MAD: dict[str, Any] = {
    "model": {"dim": 128, "depth": 2},
    "training": {"steps": 20_000, "batch_size": 128, "lr": 1e-3, "warmup": 200, "eval_every": 500,
                 "checkpoint_every": 2000, "stop_accuracy": 0.999},
}  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    "demo-diagonal": _DEMO | {"mixer": {"name": "bdlru", "block_size": 1, "num_blocks": 96}},
    "demo-bdlru": _DEMO | {"mixer": {"name": "bdlru", "block_size": 3, "num_blocks": 32}},
    "demo-hlru": _DEMO | {"mixer": {"name": "hlru", "order": 3, "num_channels": 32}},
    "mad-bdlru": _MAD | {"mixer": {"name": "bdlru", "block_size": 4, "num_blocks": 64}},
    "mad-hlru": _MAD | {"mixer": {"name": "hlru", "order": 4, "num_channels": 64}},
}
"""The demo's three layers at equal state size (96 numbers), and the paper's protocol for its synthetic tasks."""

SUMMARIES: dict[str, str] = {
    "demo-diagonal": "S3, diagonal layer (m = 1), 96 channels",
    "demo-bdlru": "S3, BD-LRU, 32 blocks of m = 3",
    "demo-hlru": "S3, H-LRU, 32 channels of order m = 3",
    "mad-bdlru": "the paper's protocol, BD-LRU, 64 blocks of m = 4 (choose task.name=…)",
    "mad-hlru": "the paper's protocol, H-LRU, 64 channels of order m = 4 (choose task.name=…)",
}
"""One line on every preset."""
