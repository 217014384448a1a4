"""Which sub-modules may be read past their forward: everything else is called.

Adapters, hooks, parametrizations, pruning, quantisation, offloading and sharding all change what a call of a linear
layer does, and none of them changes what `linear.weight` looks like in the same way. So a layer reads the weight of a
plain `nn.Linear` alone.
"""

from __future__ import annotations

from itertools import chain
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_hooked(module: nn.Module) -> bool:
    """Whether a call runs more than the forward of the module's class: hooks, those of all modules included, or a
    forward put in its place."""
    own = module.__dict__
    return "forward" in own or any(own[name] for name in _HOOKS) or bool(_has_any_global_hook())


def is_plain(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether calling the module is `F.linear` of its two parameters, ordinary tensors, and nothing else."""
    return (
        type(module) is nn.Linear
        and not is_hooked(module)
        and module._compiled_call_impl is None
        and all(_is_ordinary(module._parameters.get(name, False)) for name in ("weight", "bias"))
    )


def input_dtype(linear: nn.Module, x: Tensor) -> torch.dtype | None:
    """What x has to be: the dtype of a plain linear layer; any other module says itself what it takes (None)."""
    weight = linear._parameters.get("weight")
    if weight is None or weight.dtype == x.dtype or not is_plain(linear):
        return None
    return weight.dtype


def _is_ordinary(parameter: object) -> bool:
    """Whether it is a parameter that is no quantised, sharded or otherwise special tensor; None is no bias."""
    kind = type(parameter)
    if kind in (nn.Parameter, Tensor) or parameter is None:
        return True
    return isinstance(parameter, Tensor) and kind.__module__.startswith("torch._subclasses.")  # while tracing


def placement(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """The device that a module computes on, and the dtype of its weights (torch's defaults if none is a float)."""
    tensors = chain(module.parameters(), module.buffers())
    first = next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))
    device = first.device
    if device.type == "meta":  # weights that are brought in by a hook: accelerate's says where they go
        hooks = (getattr(one, "_hf_hook", None) for one in module.modules())
        device = next((place for hook in hooks if (place := _execution_device(hook)) is not None), device)
    return device, first.dtype


def _execution_device(hook: object) -> torch.device | None:
    place = getattr(hook, "execution_device", None)
    return None if place is None else torch.device(place)
