"""Which split an instance belongs to, and the random numbers of one call: both the same on every machine."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor

SPLITS: dict[str, range] = {"train": range(0, 8), "validation": range(8, 9), "test": range(9, 10)}
"""Of ten buckets of instances, those that each split owns."""

BUCKETS = 10

SMALLEST_BITS = 10.0
"""A space of instances of fewer bits than this is not divided: a bucket might be empty."""

# the odd constants of the splitmix64 finaliser, as signed 64-bit numbers
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


def _shifted(x: Tensor, bits: int) -> Tensor:
    """x >> bits with zeros moving in from the left, as unsigned numbers have it."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mixed(x: Tensor) -> Tensor:
    """The splitmix64 finaliser of every element of an int64 tensor, wrapping around at 64 bits."""
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)


def buckets(inputs: Tensor) -> Tensor:
    """The bucket, 0 to 9, of every row: int64 [count] of inputs int64 [count, T].

    A function of the row's tokens and of T alone: a sum of tokens, each times a mixed number of its own
    position, mixed once more.
    """
    length = inputs.shape[1]
    position_weights = _mixed(torch.arange(1, length + 1, dtype=torch.int64, device=inputs.device) * _GOLDEN)
    sums = ((inputs + 1) * position_weights).sum(dim=1) + length
    return _shifted(_mixed(sums * _GOLDEN), 1) % BUCKETS


def belongs(inputs: Tensor, split: str) -> Tensor:
    """Whether every row of inputs [count, T] is one of `split`: bool [count]."""
    return torch.isin(buckets(inputs), torch.tensor(SPLITS[split]))


def seeded(*key: object) -> torch.Generator:
    """A CPU generator whose seed is a stable hash of `key` (anything JSON can write)."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).digest()
    generator = torch.Generator(device="cpu")
    generator.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return generator
