"""Linear projections whose outputs come out in the fast memory format of their device.

A projection's rows are kept in the order that is fast on a GPU, gate planes outermost: (j, block, i) for gates
[N, i, j], (block, i) for values [N, i]; its output then only needs another view. Where N innermost is fast, the
rows are reordered on the way: cheap beside the product, which runs over all steps. Only a plain linear layer is read
like that; any other module is called, and its output takes the strides that come.
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix.nn.plain import is_plain
from statemix.ops.autograd import in_forward_mode, transformed
from statemix.ops.checks import check_not_ragged
from statemix.ops.layout import n_innermost
from statemix.ops.registration import COMPILED, choose_backend


def turn(tensor: Tensor, dims: int, start: int = 0) -> Tensor:
    """A view whose dimension `start` comes after the `dims` - 1 that follow it.

    Turns gates as they are kept (j, N, i) into (N, i, j), and these, as values (N, i), into N innermost.
    """
    return tensor.movedim(start, start + dims - 1)


def reorders(x: Tensor) -> bool:
    """Whether weights are reordered for x [B, T, ...]: not for one step, whose product reads them only once itself."""
    return x.dim() > 2 and x.shape[1] > 1 and n_innermost(x.device)


def project(linear: nn.Module, x: Tensor, kept: tuple[int, ...], *, gates: bool) -> Tensor:
    """linear(x) for x [..., dim]: a view [..., N, *inner], in the fast format where the layer is plain. `kept`: what
    the rows stand for."""
    lead, dims = x.dim() - 1, len(kept)
    if not reorders(x) or not is_plain(linear):
        out = linear(x)
        out = out.view(*out.shape[:-1], *kept)
        return turn(out, dims, lead) if gates else out

    def n_last(rows: Tensor) -> Tensor:
        rows = turn(rows.unflatten(0, kept), dims)
        return turn(rows, dims) if gates else rows

    weight = n_last(linear.weight)  # [*inner, N, dim]
    bias = None if linear.bias is None else n_last(linear.bias).flatten()
    out = F.linear(x, weight.flatten(0, -2), bias)
    return out.unflatten(-1, weight.shape[:-1]).movedim(-1, lead)


def joins(gates: nn.Module, values: nn.Module, x: Tensor, backend: str) -> bool:
    """Whether one product takes x [B, T, dim] to gates and values at once (`ops.projected`): in training with the
    Triton kernels, over more than one step, if every step's values begin where a wide copy can. Modules that are more
    than a plain linear layer are called as they are, and tangents (forward mode) go the ordinary way."""
    if not torch.is_grad_enabled() or n_innermost(x.device) or x.shape[1] <= 1 or in_forward_mode():
        return False
    if not (is_plain(gates) and is_plain(values)) or gates.weight.dtype != values.weight.dtype:
        return False
    if gates.bias is None or values.bias is not None:
        return False
    dtype = computed_in(x)
    if choose_backend(backend, x.device, dtype) != "triton":
        return False
    return values.out_features * dtype.itemsize % 16 == 0 and not transformed()


def computed_in(x: Tensor) -> torch.dtype:
    """The dtype that a projection of x comes out in: autocast may narrow it. Devices without kernels are not asked."""
    kind = x.device.type
    narrowed = kind in COMPILED and x.dtype != torch.float64 and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if narrowed else x.dtype


def read_out(linear: nn.Module, states: Tensor) -> Tensor:
    """linear applied to all numbers of states [B, T, N, m], columns kept as (block, i): [B, T, dim], no copy of the
    states when they are in the fast format and the layer is plain."""
    if not reorders(states) or not is_plain(linear):
        return linear(states.flatten(-2))
    weight = linear.weight.unflatten(1, states.shape[-2:]).transpose(1, 2)  # [dim, m, N]
    return F.linear(states.transpose(-1, -2).flatten(-2), weight.flatten(1), linear.bias)


def check_input(
    name: str, x: Tensor, shape: tuple[int | str, ...], letters: str, dtype: torch.dtype | None = None
) -> None:
    """A float tensor [B, T, dim] or [B, dim], in the layer's dtype (None: any) unless autocast reigns: TypeError or
    ValueError naming what came."""
    if type(x) is not Tensor or x.is_nested:
        check_not_ragged(name, x)
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: got {type(x).__name__}, expected a tensor {letters}")
    if not torch.is_floating_point(x):
        raise TypeError(f"{name}: got dtype {x.dtype}, expected a floating-point tensor {letters}")
    if dtype is not None and x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
        raise TypeError(f"{name}: got dtype {x.dtype}, expected that of the layer's parameters, {dtype}")
    if x.dim() != len(shape) or x.shape[-1] != shape[-1]:
        wanted = ", ".join(str(size) for size in shape)
        raise ValueError(f"{name}: got shape {list(x.shape)}, expected {letters} = [{wanted}]")


def check_size(name: str, size: int, least: int = 1) -> int:
    """A whole number of at least `least`: whatever `operator.index` takes, but no bool. A size that is a symbol while
    a graph is traced stays one."""
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


def default_blocks(dim: int, m: int) -> int:
    """dim / m, rounded, so that the state has about `dim` numbers; from 64 on to a multiple of 8, which GPUs read in
    wide copies."""
    unit = 8 if dim >= 64 * m else 1
    return max(1, round(dim / m / unit)) * unit
