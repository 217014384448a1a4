"""The public operations: check what came, choose a backend, call the registered operator."""

from __future__ import annotations

import torch
from torch import Tensor

from statemix.ops import registration
from statemix.ops.checks import check_cu_seqlens, check_normalization, check_same, check_state, check_tensor
from statemix.ops.layout import state_dtype


def _same_dtype_under_autocast(gates: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Inside torch.autocast the two may differ: both take the wider dtype (nothing is narrowed)."""
    mixed = isinstance(gates, Tensor) and isinstance(values, Tensor) and gates.dtype != values.dtype
    if mixed and torch.is_autocast_enabled(values.device.type):
        dtype = torch.promote_types(gates.dtype, values.dtype)
        return gates.to(dtype), values.to(dtype)
    return gates, values


def carried_state(
    initial_state: Tensor | None, like: Tensor, blocks: int, m: int, cu_seqlens: Tensor | None
) -> Tensor:
    """The state that a scan of values like `like` [B, T, ...] begins with, checked as are the bounds: [S, N, m],
    zeros for None, in the dtype that carries it."""
    sequences, length = like.shape[:2]
    if cu_seqlens is not None:
        check_cu_seqlens(cu_seqlens, sequences, length)
        sequences = cu_seqlens.shape[0] - 1
        if initial_state is None and torch.compiler.is_exporting():
            sequences = _any_number(sequences, cu_seqlens)
    dtype = state_dtype(like.dtype)
    if initial_state is None:
        return like.new_zeros((sequences, blocks, m), dtype=dtype)
    check_state("initial_state", initial_state, (sequences, blocks, m), like)
    return initial_state.to(dtype)


def _any_number(sequences: int, cu_seqlens: Tensor) -> int:
    """The number of sequences in an exported program whose range includes one: counted when it runs, because a size
    S + 1 - 1 makes torch's exporter tell one sequence from more."""
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    if statically_known_true(sequences >= 2):
        return sequences
    counted = torch.ones_like(cu_seqlens).sum().item() - 1
    torch._check(counted >= 0)
    return counted  # type: ignore[return-value]


def _run(
    recurrence: str,
    names: tuple[str, str],
    gates: Tensor,
    values: Tensor,
    initial_state: Tensor | None,
    m: int,
    normalization: str,
    cu_seqlens: Tensor | None,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """What the three scans share once their own shapes are known to be right."""
    check_same(names[0], gates, names[1], values)
    if m < 1:
        raise ValueError(f"{names[0]}: got m = {m} (shape {list(gates.shape)}), expected m >= 1")
    initial_state = carried_state(initial_state, values, values.shape[2], m, cu_seqlens)
    chosen = registration.choose_backend(backend, values.device, values.dtype)
    return registration.scan(recurrence, gates, values, initial_state, cu_seqlens, normalization, chosen)


def bdlru_scan(
    gates: Tensor,
    values: Tensor,
    initial_state: Tensor | None = None,
    *,
    normalization: str = "softmax",
    cu_seqlens: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Block-diagonal recurrence h_t = A_t h_{t-1} + a0_t * v_t, with (A_t, a0_t) the normalised rows of the gates.

    gates: [B, T, N, m, m+1] raw; row i holds the m transition gates of component i, then its input gate.
    values: [B, T, N, m], same dtype (float32, float64, bfloat16, float16). initial_state: [S, N, m] or None (zeros).
    normalization: a key of `statemix.ops.NORMALIZATIONS`. cu_seqlens: [S+1] integers 0 … T that pack S sequences
    into one row (B = 1). backend: "auto" (the compiled kernels of the device, else the loop), "cpu",
    "triton" or "reference"; one named explicitly runs or raises.
    Returns states [B, T, N, m] (dtype of values) and final_state [S, N, m] (float32; float64 for float64 inputs).
    Gradients flow to gates, values and initial_state from both outputs.
    Errors: ValueError or TypeError naming the argument. Source: arXiv 2602.12021, BD-LRU.
    """
    gates, values = _same_dtype_under_autocast(gates, values)
    check_normalization(normalization)
    check_tensor("values", values, ("B", "T", "N", "m"), "[B, T, N, m]")
    m = values.shape[-1]
    check_tensor("gates", gates, (*values.shape, m + 1), "[B, T, N, m, m+1]")
    names = ("gates", "values")
    return _run("bdlru", names, gates, values, initial_state, m, normalization, cu_seqlens, backend)


def hlru_scan(
    gates: Tensor,
    values: Tensor,
    initial_state: Tensor | None = None,
    *,
    normalization: str = "softmax",
    cu_seqlens: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Higher-order recurrence h_t = sum_{i=1..m} a_{i,t} h_{t-i} + a0_t v_t; the companion matrix is never built.

    gates: [B, T, N, m+1] raw (lags 1 … m, then the input gate). values: [B, T, N], same dtype.
    initial_state: [S, N, m], the last m states, newest first, or None (zeros). Other arguments as `bdlru_scan`.
    Returns states [B, T, N] (dtype of values) and final_state [S, N, m], newest first (float32 or float64).
    Errors: ValueError or TypeError naming the argument. Source: arXiv 2602.12021, H-LRU.
    """
    gates, values = _same_dtype_under_autocast(gates, values)
    check_normalization(normalization)
    check_tensor("values", values, ("B", "T", "N"), "[B, T, N]")
    check_tensor("gates", gates, (*values.shape, "m+1"), "[B, T, N, m+1]")
    m = gates.shape[-1] - 1
    names = ("gates", "values")
    return _run("hlru", names, gates, values, initial_state, m, normalization, cu_seqlens, backend)


def affine_scan(
    transitions: Tensor,
    inputs: Tensor,
    initial_state: Tensor | None = None,
    *,
    cu_seqlens: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Any small-block linear recurrence h_t = A_t h_{t-1} + b_t.

    transitions: [B, T, N, m, m]; inputs: [B, T, N, m], same dtype; initial_state: [S, N, m] or None (zeros).
    Returns states [B, T, N, m] (dtype of inputs) and final_state [S, N, m] (float32; float64 for float64 inputs).
    Nothing is normalised: stability is the caller's. Other arguments and errors as `bdlru_scan`.
    """
    transitions, inputs = _same_dtype_under_autocast(transitions, inputs)
    check_tensor("inputs", inputs, ("B", "T", "N", "m"), "[B, T, N, m]")
    m = inputs.shape[-1]
    check_tensor("transitions", transitions, (*inputs.shape, m), "[B, T, N, m, m]")
    names = ("transitions", "inputs")
    return _run("affine", names, transitions, inputs, initial_state, m, "none", cu_seqlens, backend)


def bdlru_step(
    gates: Tensor, values: Tensor, state: Tensor, *, normalization: str = "softmax", backend: str = "auto"
) -> Tensor:
    """One token of `bdlru_scan`, for decoding: the new state [B, N, m], which is also the output.

    gates: [B, N, m, m+1] raw; values: [B, N, m]; state: [B, N, m]. Returns float32 (float64 for float64 inputs).
    Errors: ValueError or TypeError naming the argument.
    """
    gates, values = _same_dtype_under_autocast(gates, values)
    check_tensor("values", values, ("B", "N", "m"), "[B, N, m]")
    check_tensor("gates", gates, (*values.shape, values.shape[-1] + 1), "[B, N, m, m+1]")
    return _step("bdlru", gates, values, state, values.shape, normalization, backend)


def hlru_step(
    gates: Tensor, values: Tensor, state: Tensor, *, normalization: str = "softmax", backend: str = "auto"
) -> Tensor:
    """One token of `hlru_scan`, for decoding: the new state [B, N, m], newest first.

    gates: [B, N, m+1] raw; values: [B, N]; state: [B, N, m], newest first.
    Returns float32 (float64 for float64 inputs); new_state[..., 0] is the output.
    Errors: ValueError or TypeError naming the argument.
    """
    gates, values = _same_dtype_under_autocast(gates, values)
    check_tensor("values", values, ("B", "N"), "[B, N]")
    check_tensor("gates", gates, (*values.shape, "m+1"), "[B, N, m+1]")
    return _step("hlru", gates, values, state, (*values.shape, gates.shape[-1] - 1), normalization, backend)


def _step(
    recurrence: str,
    gates: Tensor,
    values: Tensor,
    state: Tensor,
    shape: tuple[int, ...],
    normalization: str,
    backend: str,
) -> Tensor:
    """What the two steps share once gates and values are known to be right; shape: that of the state."""
    check_normalization(normalization)
    check_same("gates", gates, "values", values)
    if shape[-1] < 1:
        raise ValueError(f"gates: got m = {shape[-1]} (shape {list(gates.shape)}), expected m >= 1")
    check_state("state", state, shape, values)
    chosen = registration.choose_backend(backend, values.device, values.dtype)
    return registration.step(recurrence, gates, values, state, normalization, chosen)[1]
