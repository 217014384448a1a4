"""The processes of a run, as torchrun started them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Result = TypeVar("Result")


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process writes the files."""
    return rank() == 0


def on_first(run: Callable[[], Result]) -> Result:
    """`run()` in the first process while the others wait; its result, or its exception, in all."""
    outcome: list[tuple[Result | None, Exception | None]] = [(None, None)]
    if is_first():
        try:
            outcome = [(run(), None)]
        except Exception as error:
            outcome = [(None, error)]
    if dist.is_initialized():
        dist.broadcast_object_list(outcome, src=0)
    result, failure = outcome[0]
    if failure is not None:
        raise failure
    return result  # type: ignore[return-value]


def add_up(numbers: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(numbers)
    return numbers


def any_of(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in any process; all have to ask."""
    if not dist.is_initialized():
        return flag
    return bool(add_up(torch.tensor(float(flag), device=device)) > 0)
