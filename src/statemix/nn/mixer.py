"""What a writer of a mixer needs.

A mixer is a module that mixes along time, so that a model can be built of it:

    forward(x [B, T, dim], state=None, cu_seqlens=None) -> (y [B, T, dim], state)
    step(x [B, dim], state=None) -> (y [B, dim], state)      equal to forward on T = 1
    initial_state(batch_size) -> the state before the first step, on the module's device

Its constructor takes `dim` and keyword arguments, which configurations set by name (`mixer.order=4`). The state is one
tensor whose first dimension counts sequences: S = B, or the number of sequences that `cu_seqlens` packs into one row
(then B = 1). A mixer made of others carries a tuple or list of their states. None stands for `initial_state`. A state
is carried in `state_dtype` of the input. No state is kept on the module between calls. `reset_parameters`, if there is
one, draws all weights anew; `reset_gates`, if there is one, sets what a model that draws weights itself must leave as
the mixer wants it.

Example:
    >>> class Average(nn.Module):
    ...     def __init__(self, dim, *, decay=0.9):
    ...         super().__init__()
    ...         self.dim, self.decay = check_size("dim", dim), decay
    ...     def initial_state(self, batch_size):
    ...         device, dtype = placement(self)
    ...         return torch.zeros(batch_size, self.dim, device=device, dtype=state_dtype(dtype))
    ...     def step(self, x, state=None):
    ...         check_input("x", x, ("B", self.dim), "[B, dim]")
    ...         state = self.initial_state(len(x)) if state is None else state
    ...         state = torch.lerp(x.to(state.dtype), state, self.decay)
    ...         return state.to(x.dtype), state
    ...     def forward(self, x, state=None, cu_seqlens=None):
    ...         check_input("x", x, ("B", "T", self.dim), "[B, T, dim]")
    ...         if cu_seqlens is not None:
    ...             raise ValueError("cu_seqlens: got bounds, expected None (nothing is packed here)")
    ...         ys = []
    ...         for token in x.unbind(1):
    ...             y, state = self.step(token, state)
    ...             ys.append(y)
    ...         return torch.stack(ys, 1), state
    >>> MIXERS.register("average", Average)
    >>> y, state = build_mixer("average", 4, decay=0.5)(torch.ones(1, 2, 4))
    >>> y[0, :, 0]
    tensor([0.5000, 0.7500])
"""

from __future__ import annotations

import operator
from itertools import chain

import torch
from torch import Tensor, nn

from statemix.ops.checks import check_cu_seqlens, check_tensor
from statemix.ops.dispatch import check_backend
from statemix.ops.layout import state_dtype

__all__ = [
    "check_backend",
    "check_cu_seqlens",
    "check_input",
    "check_size",
    "check_tensor",
    "placement",
    "state_dtype",
]


def check_input(
    name: str, x: Tensor, shape: tuple[int | str, ...], letters: str, dtype: torch.dtype | None = None
) -> None:
    """A float tensor [B, T, dim] or [B, dim], in the layer's dtype (None: any) unless autocast is enabled.

    Args:
        name: What messages call it.
        x: The tensor.
        shape: Its sizes; a str stands for any.
        letters: The shape as messages show it, "[B, T, dim]".
        dtype: What x has to be.

    Raises:
        TypeError: x is no tensor, ragged, or of another dtype.
        ValueError: x has another number of dimensions or another width.
    """
    check_tensor(name, x, shape, letters)
    if dtype is not None and x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
        raise TypeError(f"{name}: got dtype {x.dtype}, expected that of the layer's parameters, {dtype}")


def check_size(name: str, size: int, least: int = 1) -> int:
    """A whole number of at least `least`: whatever `operator.index` takes, but no bool. A size that is a symbol while
    a graph is traced stays one. TypeError or ValueError naming it otherwise."""
    if isinstance(size, bool):
        raise TypeError(f"{name}: got {size!r}, expected a whole number")
    if not isinstance(size, (int, torch.SymInt)):
        try:
            size = operator.index(size)
        except TypeError:
            raise TypeError(f"{name}: got {size!r}, expected a whole number") from None
    if size < least:
        raise ValueError(f"{name}: got {size}, expected at least {least}")
    return size


def placement(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """The device that a module computes on, and the dtype of its weights (torch's defaults if none is a float)."""
    tensors = chain(module.parameters(), module.buffers())
    first = next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))
    device = first.device
    if device.type == "meta":  # weights that are brought in by a hook: accelerate's says where they go
        hooks = (getattr(one, "_hf_hook", None) for one in module.modules())
        places = (getattr(hook, "execution_device", None) for hook in hooks)
        device = next((torch.device(place) for place in places if place is not None), device)
    return device, first.dtype
