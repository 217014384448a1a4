"""What the public operations accept: one place that says no, before any work is done."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from statemix.ops._torch_compat import is_mapped
from statemix.ops.layout import state_dtype

FLOAT_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def check_not_ragged(name: str, tensor: object) -> None:
    """TypeError for sequences of several lengths in one object, which says how to pass them instead."""
    how = "expected a tensor: put the sequences in one row (B = 1), one after another, and their bounds in cu_seqlens"
    if isinstance(tensor, PackedSequence):
        raise TypeError(
            f"{name}: got a PackedSequence, {how} (unpack it with torch.nn.utils.rnn.unpack_sequence)"
        )
    if isinstance(tensor, Tensor) and tensor.is_nested:
        exact = "x.values().unsqueeze(0) and cu_seqlens=x.offsets() of a jagged x"
        raise TypeError(f"{name}: got a nested tensor, {how} ({exact})")


def check_tensor(name: str, tensor: Tensor, shape: Sequence[int | str], letters: str) -> None:
    """TypeError unless a float tensor; ValueError unless its shape is `shape` (a str entry takes any size)."""
    if type(tensor) is not Tensor or tensor.is_nested:
        check_not_ragged(name, tensor)
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: got {type(tensor).__name__}, expected a tensor {letters}")
    if tensor.dtype not in FLOAT_DTYPES:
        raise TypeError(f"{name}: got dtype {tensor.dtype}, expected float32, float64, bfloat16 or float16")
    sizes = tensor.shape
    if sizes == shape:
        return
    if len(sizes) != len(shape) or [
        want for got, want in zip(sizes, shape, strict=True) if not isinstance(want, str) and got != want
    ]:
        wanted = ", ".join(str(size) for size in shape)
        raise ValueError(f"{name}: got shape {list(tensor.shape)}, expected {letters} = [{wanted}]")


def check_same(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Same dtype and device, or an error that names both."""
    if tensor.dtype != other.dtype:
        raise TypeError(
            f"{name}: got dtype {tensor.dtype}, expected that of {other_name}, {other.dtype} "
            "(outside torch.autocast the two must agree)"
        )
    if tensor.device != other.device:
        raise ValueError(f"{name}: got device {tensor.device}, expected that of {other_name}, {other.device}")


def check_state(
    name: str, state: Tensor, shape: Sequence[int | str], values: Tensor, letters: str = "[S, N, m]"
) -> None:
    """A state is on the device of the values, in the dtype that carries the state (or the values')."""
    check_tensor(name, state, shape, letters)
    allowed = (state_dtype(values.dtype), values.dtype)
    if state.dtype not in allowed:
        raise TypeError(f"{name}: got dtype {state.dtype}, expected {allowed[0]} (values are {values.dtype})")
    if state.device != values.device:
        raise ValueError(f"{name}: got device {state.device}, expected that of the values, {values.device}")


def check_cu_seqlens(cu_seqlens: Tensor, batch: int, length: int) -> None:
    """Packed sequences: int32 or int64 [S+1], from 0 to T, never decreasing, with B = 1."""
    if not isinstance(cu_seqlens, Tensor):
        raise TypeError(f"cu_seqlens: got {type(cu_seqlens).__name__}, expected an integer tensor [S+1]")
    if cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"cu_seqlens: got dtype {cu_seqlens.dtype}, expected int32 or int64")
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] < 1:
        raise ValueError(f"cu_seqlens: got shape {list(cu_seqlens.shape)}, expected [S+1] with S >= 0")
    if batch != 1:
        raise ValueError(f"cu_seqlens: got a batch of B = {batch}, expected B = 1 when sequences are packed")
    if is_mapped(cu_seqlens):
        raise ValueError("cu_seqlens: got a tensor mapped by vmap, expected the same for all")
    if torch.compiler.is_compiling() or type(cu_seqlens) is not Tensor or cu_seqlens.is_meta:
        return  # the numbers themselves are not known while tracing or without memory
    if cu_seqlens.is_cuda:
        return  # reading them waits for the GPU: once is enough, and every backend does it
    check_bounds(cu_seqlens.tolist(), length)


def check_bounds(bounds: list[int], length: int) -> None:
    """The numbers of cu_seqlens: start at 0, never decrease, end at T."""
    if bounds[0] != 0:
        raise ValueError(f"cu_seqlens: starts at {bounds[0]}, expected 0")
    for before, after in zip(bounds, bounds[1:], strict=False):
        if after < before:
            raise ValueError(f"cu_seqlens: decreases from {before} to {after}, expected never to decrease")
    if bounds[-1] != length:
        raise ValueError(f"cu_seqlens: ends at {bounds[-1]}, expected T = {length}")
