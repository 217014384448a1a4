"""The passes of `loops` in Triton, for float32 and N = 16, 32, …; no mixture is written, and sums have one order."""

# mypy: ignore-errors
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

PLACES = 32
"""Places of words that a program takes at once."""

ROWS = 8
"""Rows of a mixture that a program takes one by one in the forward pass."""

PARTS = 32
"""Programs of a backward pass among which the places are shared out."""


@triton.jit
def _choose(
    weights, dictionary, columns, count,
    K: tl.constexpr, WIDTH: tl.constexpr, N: tl.constexpr, SIZE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    live, first = at < count, tl.program_id(1) * ROWS
    k, j = tl.arange(0, WIDTH), tl.arange(0, N)  # 0 beyond K, since a product takes no fewer than WIDTH = 16
    mine = tl.load(weights + at[:, None] * K + k[None, :], live[:, None] & (k < K)[None, :], 0.0)
    for row in range(first, first + ROWS):
        matrices = tl.load(dictionary + (k[:, None] * N + row) * N + j[None, :], (k < K)[:, None], 0.0)
        mixed = tl.dot(mine, matrices, input_precision="tf32x3")
        tl.store(columns + at * N + row, tl.argmax(mixed, 1).to(tl.int64), live)


@triton.jit
def _choose_back(
    weights, dictionary, back, real, imaginary, to_weights, to_dictionary, count,
    K: tl.constexpr, N: tl.constexpr, SIZE: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    row, part, j = tl.program_id(0), tl.program_id(1), tl.arange(0, N)
    matrices, sums = (), ()
    for k in tl.static_range(K):
        matrices = matrices + (tl.load(dictionary + (k * N + row) * N + j),)
        sums = sums + (tl.zeros_like(matrices[k]),)
    for first in range(part * SIZE, count, PARTS * SIZE):
        at = first + tl.arange(0, SIZE)
        live, mine = at < count, ()
        for k in tl.static_range(K):
            mine = mine + (tl.load(weights + at * K + k, live, 0.0),)
        mixed = mine[0][:, None] * matrices[0][None, :]
        for k in tl.static_range(1, K):
            mixed += mine[k][:, None] * matrices[k][None, :]
        soft = tl.exp(mixed - tl.max(mixed, 1)[:, None])
        soft = soft * (1 / tl.sum(soft, 1))[:, None]
        here, there = (at * N + row) * 2, at[:, None] * N + j[None, :]
        grad = tl.load(back + here, live, 0.0)[:, None] * tl.load(real + there, live[:, None], 0.0)
        grad += tl.load(back + here + 1, live, 0.0)[:, None] * tl.load(imaginary + there, live[:, None], 0.0)
        grad = soft * (grad - tl.sum(soft * grad, 1)[:, None])
        after = ()
        for k in tl.static_range(K):
            tl.store(to_weights + (row * count + at) * K + k, tl.sum(grad * matrices[k][None, :], 1), live)
            after = after + (sums[k] + tl.sum(grad * mine[k][:, None], 0),)
        sums = after
    for k in tl.static_range(K):
        tl.store(to_dictionary + ((part * K + k) * N + row) * N + j, sums[k])


@triton.jit
def _outer(
    tokens, back, before, sums, count,
    N: tl.constexpr, SIZE: tl.constexpr, V: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    token, part, n = tl.program_id(0), tl.program_id(1), tl.arange(0, N)
    total = tl.zeros((N, N), back.dtype.element_ty)
    for first in range(part * SIZE, count, PARTS * SIZE):
        at = first + tl.arange(0, SIZE)
        live = tl.load(tokens + at, at < count, V) == token
        there = (at[:, None] * N + n[None, :]) * 2
        for one in tl.static_range(2):
            mine = tl.load(back + there + one, live[:, None], 0.0)
            other = tl.load(before + there + one, live[:, None], 0.0)
            total += tl.dot(tl.trans(mine), other, input_precision="tf32x3")
    tl.store(sums + ((part * V + token) * N + n[:, None]) * N + n[None, :], total)


@triton.jit
def _run(columns, factors, inputs, start, states, length, N: tl.constexpr):
    sequence, n = tl.program_id(0).to(tl.int64), tl.arange(0, N)
    place = (sequence * N + n) * 2
    real, imaginary = tl.load(start + place), tl.load(start + place + 1)
    for t in range(length):
        at = (sequence * length + t) * N + n
        column = tl.load(columns + at).to(tl.int32)
        a, b = tl.gather(real, column, 0), tl.gather(imaginary, column, 0)
        c, d = tl.load(factors + 2 * at), tl.load(factors + 2 * at + 1)
        real = c * a - d * b + tl.load(inputs + 2 * at)
        imaginary = c * b + d * a + tl.load(inputs + 2 * at + 1)
        tl.store(states + 2 * at, real)
        tl.store(states + 2 * at + 1, imaginary)


@triton.jit
def _run_back(columns, factors, before, grad, totals, backs, to_factors, to_start, length, N: tl.constexpr):
    sequence, n = tl.program_id(0).to(tl.int64), tl.arange(0, N)
    real, imaginary = tl.zeros_like(tl.load(grad + n)), tl.zeros_like(tl.load(grad + n))
    for step in range(length):
        first = (sequence * length + length - 1 - step) * N
        at = (first + n) * 2
        column = tl.load(columns + first + n)
        a, b = tl.load(grad + at) + real, tl.load(grad + at + 1) + imaginary
        c, d = tl.load(factors + at), tl.load(factors + at + 1)
        back, turned = c * a + d * b, c * b - d * a
        tl.store(totals + at, a)
        tl.store(totals + at + 1, b)
        tl.store(backs + at, back)
        tl.store(backs + at + 1, turned)
        c, d = tl.load(before + (first + column) * 2), tl.load(before + (first + column) * 2 + 1)
        tl.store(to_factors + at, a * c + b * d)
        tl.store(to_factors + at + 1, b * c - a * d)
        copies = column[:, None] == n[None, :]
        real = tl.sum(tl.where(copies, back[:, None], 0.0), 0)
        imaginary = tl.sum(tl.where(copies, turned[:, None], 0.0), 0)
    place = (sequence * N + n) * 2
    tl.store(to_start + place, real)
    tl.store(to_start + place + 1, imaginary)


def choose(weights: Tensor, dictionary: Tensor) -> Tensor:
    """As `loops.choose`."""
    k, n = dictionary.shape[:2]
    columns = torch.empty(*weights.shape[:-1], n, dtype=torch.int64, device=weights.device)
    count, rows, width = weights.numel() // k, min(ROWS, n), max(16, triton.next_power_of_2(k))
    _choose[(triton.cdiv(count, PLACES), n // rows)](
        weights, dictionary, columns, count, K=k, WIDTH=width, N=n, SIZE=PLACES, ROWS=rows, num_warps=2
    )
    return columns


def choose_back(weights: Tensor, dictionary: Tensor, back: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """As `loops.choose_back`."""
    k, n = dictionary.shape[:2]
    to_weights, to_dictionary = weights.new_empty(n, *weights.shape), weights.new_empty(PARTS, k, n, n)
    real, imaginary = (x.contiguous() for x in before.unbind(-1))
    _choose_back[(n, PARTS)](
        weights, dictionary, back, real, imaginary, to_weights, to_dictionary, weights.numel() // k,
        K=k, N=n, SIZE=2, PARTS=PARTS, num_warps=1,
    )  # fmt: skip
    return to_weights.sum(0), to_dictionary.sum(0)


def outer_by_token(tokens: Tensor, vocab_size: int, back: Tensor, before: Tensor) -> Tensor:
    """As `loops.outer_by_token`."""
    n = back.shape[-2]
    sums = back.new_empty(PARTS, vocab_size, n, n)
    _outer[(vocab_size, PARTS)](
        tokens.contiguous(), back, before, sums, tokens.numel(),
        N=n, SIZE=PLACES, V=vocab_size, PARTS=PARTS, num_warps=8,
    )  # fmt: skip
    return sums.sum(0)


def run(columns: Tensor, factors: Tensor, inputs: Tensor, start: Tensor) -> Tensor:
    """As `loops.run`."""
    states = torch.empty_like(inputs)
    _run[(len(states),)](
        columns, factors, inputs, start.contiguous(), states, states.shape[1], N=states.shape[2]
    )
    return states


def run_back(
    columns: Tensor, factors: Tensor, before: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `loops.run_back`."""
    totals, backs, to_factors = (torch.empty_like(grad) for _ in range(3))
    to_start = torch.empty_like(grad[:, 0])
    _run_back[(len(grad),)](
        columns, factors, before, grad, totals, backs, to_factors, to_start, grad.shape[1], N=grad.shape[2]
    )
    return totals, backs, to_factors, to_start
