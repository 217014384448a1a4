"""torchtitan's command on CPU processes joined by gloo: what it asks of a GPU is answered here."""

from __future__ import annotations

import types

import torch
import torchtitan.tools.utils as tools
from torch.distributed.fsdp import FSDPModule


def nothing(*arguments, **options):
    return None


tools.device_type = "cpu"
tools.device_module = types.SimpleNamespace(
    set_device=nothing, reset_peak_memory_stats=nothing, empty_cache=nothing, synchronize=nothing,
    get_device_name=lambda *_: "cpu", current_device=lambda: 0, memory_stats=lambda *_: {},
    get_device_properties=lambda *_: types.SimpleNamespace(total_memory=1 << 34),
)  # fmt: skip
tools.get_local_device = lambda: torch.device("cpu")
torch.distributed.set_timeout = nothing

import torchtitan.distributed.fsdp as sharding  # noqa: E402

undivided = sharding.disable_fsdp_gradient_division


def summed(model):
    """gloo adds up, and does not scale."""
    undivided(model)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)


sharding.disable_fsdp_gradient_division = summed

from torchtitan.train import main  # noqa: E402

main()
