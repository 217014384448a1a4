"""Processes for tests: copies of a server, one in each worker, that has imported what tests need."""

from __future__ import annotations

import functools
import importlib.util
import multiprocessing
from multiprocessing.context import BaseContext

IMPORTS = (
    "numba", "numpy", "peft", "safetensors.torch", "statemix.cli.app", "statemix.lm.engine", "statemix.lm.train",
    "statemix.ops.cpu", "statemix.training", "statemix_research.sweeps.work", "torch._dynamo",
    "torch.distributed.checkpoint", "torch.distributed.fsdp", "torch.distributed.tensor.parallel", "torch.nn.attention",
    "torch.utils.flop_counter", "transformers.trainer",
)  # fmt: skip
"""What tests need and what takes long to import."""

PRELOADED = [name for name in IMPORTS if importlib.util.find_spec(name.partition(".")[0])]
"""Those that are installed."""


@functools.cache
def context() -> BaseContext:
    """The context to start processes in: off the server, or anew on a system without it."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOADED)
    return found
