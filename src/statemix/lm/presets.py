"""Language models by name: settings over the defaults of `LMConfig`, made of a size, a mixer and a number of tokens.

`212m-bdlru-m4` is a row of the paper's table, `212m-bdlru-m4-2.5b` the same with 2.5 B tokens. Models of a size have
equal parameters, within 1.1 %.
"""

from __future__ import annotations

from typing import Any

Settings = dict[str, Any]


def _paper(dim: int, depth: int) -> Settings:
    """The paper's protocol, 9.88 B tokens of GPT-NeoX's vocabulary, padded. Source: arXiv 2602.12021."""
    return {
        "model": {"vocab_size": 50_280, "dim": dim, "depth": depth, "scaled_init": True},
        "data": {"length": 2048},
        "training": {
            "steps": 18_850, "batch_size": 256, "micro_batch": 32, "lr": 6e-3, "warmup": 1885, "min_lr": 1e-5,
            "betas": [0.9, 0.95], "weight_decay": 0.1, "gradient_clip": 1.0, "seed": 100,
        },
    }  # fmt: skip


def _literature(dim: int, steps: int, batch_size: int, micro_batch: int, warmup: int) -> Settings:
    """The protocol of linear recurrent networks: 24 layers, a vocabulary of 32 000. Source: arXiv 2312.06635.

    The head is tied to the embedding here.
    """
    return {
        "model": {"vocab_size": 32_000, "dim": dim, "depth": 24, "tie_embeddings": True, "scaled_init": False},
        "data": {"length": 2048},
        "training": {
            "steps": steps, "batch_size": batch_size, "micro_batch": micro_batch, "lr": 3e-4, "warmup": warmup,
            "min_lr": 3e-5, "betas": [0.9, 0.95], "weight_decay": 0.01, "gradient_clip": 1.0,
        },
    }  # fmt: skip


SIZES: dict[str, Settings] = {
    "140m": _paper(576, 12),
    "212m": _paper(768, 12),
    "340m": _literature(1024, steps=28_610, batch_size=256, micro_batch=16, warmup=954),
    "1.3b": _literature(2048, steps=47_684, batch_size=1024, micro_batch=8, warmup=477),
}
"""Everything but the mixer. The width of `140m` is chosen here: the paper names the parameters alone."""


def _bdlru(m: int, blocks: int) -> Settings:
    return {"mixer": {"name": "bdlru", "block_size": m, "num_blocks": blocks}}


def _hlru(channels: int) -> Settings:
    return {"mixer": {"name": "hlru", "order": 16, "num_channels": channels}}


def _lstm(hidden: int) -> Settings:
    return {"mixer": {"name": "lstm", "hidden_size": hidden}}


def _attention(heads: int, head_dim: int, **model: int) -> Settings:
    return {"mixer": {"name": "attention", "heads": heads, "head_dim": head_dim}, "model": model}


def _gated_deltanet(heads: int, head_dim: int, expand_v: int) -> Settings:
    return {"mixer": {"name": "gated_deltanet", "heads": heads, "head_dim": head_dim, "expand_v": expand_v}}


def _mamba2(expand: int, **block: int) -> Settings:
    return {"mixer": {"name": "mamba2", "state_dim": 128, "expand": expand}, "block": block}


MIXERS: dict[str, dict[str, Settings]] = {
    "140m": {
        "bdlru-m1": _bdlru(1, 1815), "bdlru-m2": _bdlru(2, 726), "bdlru-m4": _bdlru(4, 259), "bdlru-m8": _bdlru(8, 82),
        "bdlru-m16": _bdlru(16, 24), "hlru-m16": _hlru(213), "lstm": _lstm(722),
        "transformer": _attention(9, 64, depth=20) | {"block": {"mlp_width": 1616}},
        "gated-deltanet": _gated_deltanet(7, 128, 2), "mamba2": _mamba2(4),
    },
    "212m": {
        "bdlru-m1": _bdlru(1, 2112), "bdlru-m2": _bdlru(2, 844), "bdlru-m4": _bdlru(4, 302), "bdlru-m8": _bdlru(8, 96),
        "bdlru-m16": _bdlru(16, 28), "hlru-m16": _hlru(242), "lstm": _lstm(896),
        "transformer": _attention(12, 64, depth=19),
        "gated-deltanet": _gated_deltanet(13, 128, 1), "mamba2": _mamba2(3, mlp_width=2464),
    },
    "340m": {
        "bdlru-m1": _bdlru(1, 1024), "bdlru-m4": _bdlru(4, 146), "bdlru-m16": _bdlru(16, 13), "hlru-m16": _hlru(120),
        "transformer": _attention(16, 64), "gated-deltanet": _gated_deltanet(4, 128, 2),
    },
    "1.3b": {
        "bdlru-m1": _bdlru(1, 2048), "bdlru-m4": _bdlru(4, 292), "bdlru-m16": _bdlru(16, 27), "hlru-m16": _hlru(241),
        "transformer": _attention(32, 64), "gated-deltanet": _gated_deltanet(8, 128, 2),
    },
}  # fmt: skip
"""The mixers of each size, at equal parameters; those of 212m but the last three are the paper's."""

BUDGETS: dict[str, dict[str, Settings]] = {
    "2.5b": {"140m": {"steps": 4769, "warmup": 477}, "212m": {"steps": 4769, "warmup": 477}}
}
"""Other numbers of tokens: training settings by size."""

TINY: Settings = {
    "mixer": {"name": "bdlru", "block_size": 4},
    "model": {"vocab_size": 0, "dim": 128, "depth": 2},
    "data": {"length": 256, "eval_sequences": 64},
    "training": {
        "steps": 3500, "batch_size": 4, "lr": 3e-3, "warmup": 100, "min_lr": 1e-4, "weight_decay": 0.01,
        "log_every": 20, "eval_every": 1750, "checkpoint_every": 250,
    },
}  # fmt: skip
"""For a CPU and a pack of bytes: some four minutes of two cores."""


def _combine(size: str, mixer: str, budget: Settings) -> Settings:
    base = SIZES[size]
    changes = MIXERS[size][mixer]
    model = base["model"] | changes.get("model", {})
    return base | changes | {"model": model, "training": base["training"] | budget}


LM_PRESETS: dict[str, Settings] = (
    {"tiny": TINY}
    | {f"{size}-{mixer}": _combine(size, mixer, {}) for size, mixers in MIXERS.items() for mixer in mixers}
    | {
        f"{size}-{mixer}-{budget}": _combine(size, mixer, changed)
        for budget, sizes in BUDGETS.items()
        for size, changed in sizes.items()
        for mixer in MIXERS[size]
    }
)
"""Every preset by name."""
