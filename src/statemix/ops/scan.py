"""The public operations: check what came, choose a backend, call the registered operator."""

from __future__ import annotations

import torch
from torch import Tensor

from statemix.ops import autograd
from statemix.ops._torch_compat import assume, is_statically_true
from statemix.ops.checks import check_cu_seqlens, check_same, check_state, check_tensor
from statemix.ops.dispatch import choose_backend
from statemix.ops.layout import state_dtype
from statemix.ops.normalization import normalization_key
from statemix.ops.zeros import shared_zeros


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
    """The checked state [S, N, m] that a scan of values like `like` [B, T, ...] begins with; bounds are checked too."""
    sequences, length = like.shape[:2]
    if cu_seqlens is not None:
        check_cu_seqlens(cu_seqlens, sequences, length)
        sequences = cu_seqlens.shape[0] - 1
        if initial_state is None and torch.compiler.is_exporting():
            sequences = _any_number(sequences, cu_seqlens)
    dtype = state_dtype(like.dtype)
    if initial_state is None:
        return shared_zeros(like, (sequences, blocks, m), dtype)
    check_state("initial_state", initial_state, (sequences, blocks, m), like)
    return initial_state.to(dtype)


def _any_number(sequences: int, cu_seqlens: Tensor) -> int:
    """The number of sequences, counted when run: torch's exporter tells a size S + 1 - 1 of one from more."""
    if is_statically_true(sequences >= 2):
        return sequences
    counted = torch.ones_like(cu_seqlens).sum().item() - 1
    assume(counted >= 0)
    return counted  # type: ignore[return-value]


def _run(
    recurrence: str, gates: Tensor, values: Tensor, initial_state: Tensor | None, m: int, key: str,
    cu_seqlens: Tensor | None, backend: str, names: tuple[str, str] = ("gates", "values"),
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What the three scans share once their own shapes are known to be right."""
    _check_pair(names, gates, values, m)
    initial_state = carried_state(initial_state, values, values.shape[2], m, cu_seqlens)
    chosen = choose_backend(backend, values.device, values.dtype, key)
    return autograd.scan(recurrence, gates, values, initial_state, cu_seqlens, key, chosen)


def _check_pair(names: tuple[str, str], gates: Tensor, values: Tensor, m: int) -> None:
    check_same(names[0], gates, names[1], values)
    if m < 1:
        raise ValueError(f"{names[0]}: got m = {m} (shape {list(gates.shape)}), expected m >= 1")


def bdlru_scan(
    gates: Tensor,
    values: Tensor,
    initial_state: Tensor | None = None,
    *,
    normalization: str = "softmax",
    hard: bool = False,
    cu_seqlens: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    r"""Block-diagonal linear recurrence: N blocks of m channels with a dense m×m transition each.

    $h_t = A_t h_{t-1} + a_{0,t} \odot v_t$, where row i of the gates is normalised to (row i of A_t, a_{0,t}[i]).
    Its absolute values then sum to at most 1, so the state never grows beyond the values and the initial state.
    Differentiable twice and in forward mode; works under `torch.compile`, `torch.export` and `torch.func`.

    Args:
        gates: Raw gates [B, T, N, m, m+1]; row i holds the m transition gates of channel i, then its input gate.
            float32, float64, bfloat16 or float16, any strides.
        values: [B, T, N, m], same dtype and device.
        initial_state: [S, N, m], or None for zeros. S is B, or the number of packed sequences.
        normalization: A key of `statemix.ops.NORMALIZATIONS`.
        hard: Whether each row of the normalised gates keeps its largest weight alone: every channel then copies one
            channel of the state before, or takes its value. Gradients are those of the soft rows at the states of the
            hard ones (straight-through). See `statemix.ops.normalize`.
        cu_seqlens: Bounds 0 … T [S+1] (int32 or int64) of S sequences packed into one row (B = 1).
        backend: "auto" (the compiled kernels of the device, else the loop), "cpu", "triton" or "reference"; one that
            is named runs or raises.

    Returns:
        states [B, T, N, m] in the dtype of `values`, and the final state [S, N, m] in float32 (float64 for float64
        inputs). Gradients flow from both.

    Raises:
        TypeError: An argument is no tensor, or of a wrong dtype.
        ValueError: A shape, device, bound or name is wrong, or the backend named cannot run. The message names the
            argument, what came and what was expected.

    Example:
        >>> gates, values = torch.randn(2, 5, 3, 4, 5), torch.randn(2, 5, 3, 4)
        >>> states, final_state = bdlru_scan(gates, values)
        >>> states.shape, final_state.shape
        (torch.Size([2, 5, 3, 4]), torch.Size([2, 3, 4]))

    Source: arXiv 2602.12021, BD-LRU.
    """
    gates, values = _same_dtype_under_autocast(gates, values)
    check_tensor("values", values, ("B", "T", "N", "m"), "[B, T, N, m]")
    m = values.shape[-1]
    check_tensor("gates", gates, (*values.shape, m + 1), "[B, T, N, m, m+1]")
    key = normalization_key(normalization, hard)
    return _run("bdlru", gates, values, initial_state, m, key, cu_seqlens, backend)


def hlru_scan(
    gates: Tensor,
    values: Tensor,
    initial_state: Tensor | None = None,
    *,
    normalization: str = "softmax",
    hard: bool = False,
    cu_seqlens: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    r"""Higher-order linear recurrence: N channels, each a weighted sum of its own last m states and its input.

    $h_t = \sum_{i=1}^{m} a_{i,t} h_{t-i} + a_{0,t} v_t$. The companion matrix is never built.

    Args:
        gates: Raw gates [B, T, N, m+1]: lags 1 … m, then the input gate.
        values: [B, T, N], same dtype and device.
        initial_state: The last m states [S, N, m], newest first, or None for zeros.
        normalization: A key of `statemix.ops.NORMALIZATIONS`.
        hard: As in `bdlru_scan`; every channel then repeats one of its last m states, or takes its value.
        cu_seqlens: Bounds of packed sequences, as in `bdlru_scan`.
        backend: As in `bdlru_scan`.

    Returns:
        states [B, T, N] in the dtype of `values`, and the final state [S, N, m], newest first, in float32 (float64 for
        float64 inputs). Gradients flow from both.

    Raises:
        TypeError, ValueError: As `bdlru_scan`.

    Example:
        >>> states, final_state = hlru_scan(torch.randn(2, 5, 3, 4 + 1), torch.randn(2, 5, 3))
        >>> states.shape, final_state.shape
        (torch.Size([2, 5, 3]), torch.Size([2, 3, 4]))

    Source: arXiv 2602.12021, H-LRU.
    """
    gates, values = _same_dtype_under_autocast(gates, values)
    check_tensor("values", values, ("B", "T", "N"), "[B, T, N]")
    check_tensor("gates", gates, (*values.shape, "m+1"), "[B, T, N, m+1]")
    key = normalization_key(normalization, hard)
    return _run("hlru", gates, values, initial_state, gates.shape[-1] - 1, key, cu_seqlens, backend)


def affine_scan(
    transitions: Tensor,
    inputs: Tensor,
    initial_state: Tensor | None = None,
    *,
    cu_seqlens: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Any linear recurrence with small blocks: $h_t = A_t h_{t-1} + b_t$. Nothing is normalised.

    Args:
        transitions: A_t [B, T, N, m, m]. Whether the recurrence is stable is up to them.
        inputs: b_t [B, T, N, m], same dtype and device.
        initial_state: [S, N, m], or None for zeros.
        cu_seqlens: Bounds of packed sequences, as in `bdlru_scan`.
        backend: As in `bdlru_scan`.

    Returns:
        states [B, T, N, m] in the dtype of `inputs`, and the final state [S, N, m] in float32 (float64 for float64
        inputs). Gradients flow from both.

    Raises:
        TypeError, ValueError: As `bdlru_scan`.

    Example:
        >>> decay = torch.full((1, 3, 1, 1, 1), 0.5)
        >>> states, _ = affine_scan(decay, torch.ones(1, 3, 1, 1))
        >>> states.flatten()
        tensor([1.0000, 1.5000, 1.7500])
    """
    transitions, inputs = _same_dtype_under_autocast(transitions, inputs)
    check_tensor("inputs", inputs, ("B", "T", "N", "m"), "[B, T, N, m]")
    m = inputs.shape[-1]
    check_tensor("transitions", transitions, (*inputs.shape, m), "[B, T, N, m, m]")
    names = ("transitions", "inputs")
    return _run("affine", transitions, inputs, initial_state, m, "none", cu_seqlens, backend, names)


def bdlru_step(
    gates: Tensor,
    values: Tensor,
    state: Tensor,
    *,
    normalization: str = "softmax",
    hard: bool = False,
    backend: str = "auto",
) -> Tensor:
    r"""One token of `bdlru_scan`, for decoding: $h_t = A_t h_{t-1} + a_{0,t} \odot v_t$.

    Args:
        gates: Raw gates [B, N, m, m+1].
        values: [B, N, m], same dtype and device.
        state: The state before, [B, N, m].
        normalization: A key of `statemix.ops.NORMALIZATIONS`.
        hard: As in `bdlru_scan`.
        backend: As in `bdlru_scan`.

    Returns:
        The new state [B, N, m], which is also the output, in float32 (float64 for float64 inputs).

    Raises:
        TypeError, ValueError: As `bdlru_scan`.

    Example:
        >>> state = torch.zeros(1, 3, 4)
        >>> for _ in range(2):
        ...     state = bdlru_step(torch.randn(1, 3, 4, 5), torch.randn(1, 3, 4), state)
        >>> state.shape
        torch.Size([1, 3, 4])
    """
    gates, values = _same_dtype_under_autocast(gates, values)
    check_tensor("values", values, ("B", "N", "m"), "[B, N, m]")
    check_tensor("gates", gates, (*values.shape, values.shape[-1] + 1), "[B, N, m, m+1]")
    key = normalization_key(normalization, hard)
    return step("bdlru", gates, values, state, values.shape, key, backend)[1]


def hlru_step(
    gates: Tensor,
    values: Tensor,
    state: Tensor,
    *,
    normalization: str = "softmax",
    hard: bool = False,
    backend: str = "auto",
) -> Tensor:
    r"""One token of `hlru_scan`, for decoding: $h_t = \sum_{i=1}^{m} a_{i,t} h_{t-i} + a_{0,t} v_t$.

    Args:
        gates: Raw gates [B, N, m+1].
        values: [B, N], same dtype and device.
        state: The last m states [B, N, m], newest first.
        normalization: A key of `statemix.ops.NORMALIZATIONS`.
        hard: As in `bdlru_scan`.
        backend: As in `bdlru_scan`.

    Returns:
        The new state [B, N, m], newest first, in float32 (float64 for float64 inputs); `[..., 0]` is the output.

    Raises:
        TypeError, ValueError: As `bdlru_scan`.

    Example:
        >>> state = hlru_step(torch.randn(1, 3, 4 + 1), torch.randn(1, 3), torch.zeros(1, 3, 4))
        >>> state.shape
        torch.Size([1, 3, 4])
    """
    gates, values = _same_dtype_under_autocast(gates, values)
    check_tensor("values", values, ("B", "N"), "[B, N]")
    check_tensor("gates", gates, (*values.shape, "m+1"), "[B, N, m+1]")
    key = normalization_key(normalization, hard)
    return step("hlru", gates, values, state, (*values.shape, gates.shape[-1] - 1), key, backend)[1]


def step(
    recurrence: str, gates: Tensor, values: Tensor, state: Tensor, shape: tuple[int, ...], key: str,
    backend: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One token: the states that are read out, in the dtype of `values`, and the new state.

    shape: the state's. key: of `normalization_key`.
    """
    _check_pair(("gates", "values"), gates, values, shape[-1])
    check_state("state", state, shape, values)
    chosen = choose_backend(backend, values.device, values.dtype, key)
    return autograd.step(recurrence, gates, values, state, key, chosen)
