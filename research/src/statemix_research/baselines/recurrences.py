"""The baselines' recurrences as plain loops over time: the definitions that faster forms are verified against.

Letters: B batch, T time, H heads, K key size, V value size. Any float dtype; gradients by autograd.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_UNROLLED_STEPS = 64
"""Steps of a loop that torch.compile may unroll; each takes it a second or more."""


def steps_of(x: Tensor) -> range:
    """The steps of [B, T, ...]. RuntimeError where torch.compile would unroll more than `MAX_UNROLLED_STEPS`."""
    if torch.compiler.is_compiling() and x.shape[1] > MAX_UNROLLED_STEPS:
        raise RuntimeError(
            f"torch.compile: got a loop of {x.shape[1]} steps, expected at most {MAX_UNROLLED_STEPS}"
        )
    return range(x.shape[1])


def read(q: Tensor, state: Tensor) -> Tensor:
    """Sᵀ q: q [B, H, K], state [B, H, K, V] -> [B, H, V]."""
    return (q.unsqueeze(-2) @ state).squeeze(-2)


def outer(k: Tensor, v: Tensor) -> Tensor:
    """k vᵀ: [B, H, K], [B, H, V] -> [B, H, K, V]."""
    return k.unsqueeze(-1) * v.unsqueeze(-2)


def simple_gla(q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, initial_state: Tensor) -> tuple[Tensor, Tensor]:
    """S_t = exp(g_t) S_{t-1} + k_t v_tᵀ, o_t = S_tᵀ q_t: the recurrence of Mamba-2.

    q, k [B, T, H, K], v [B, T, H, V], g [B, T, H] -> o [B, T, H, V], S [B, H, K, V].
    Source: arXiv 2405.21060, arXiv 2312.06635.
    """
    state, outputs = initial_state, []
    for t in steps_of(v):
        state = g[:, t].exp()[..., None, None] * state + outer(k[:, t], v[:, t])
        outputs.append(read(q[:, t], state))
    return torch.stack(outputs, 1), state


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor | None = None, *, initial_state: Tensor
) -> tuple[Tensor, Tensor]:
    """Per token: S <- exp(g) S, then n times S <- S + β k (v - Sᵀ k)ᵀ; o = Sᵀ q.

    q [B, T, H, K], g [B, T, H], k [B, T n, H, K], v [B, T n, H, V], beta [B, T n, H] -> o [B, T, H, V], S [B, H, K, V].
    Source: arXiv 2406.06484 (n = 1, no g), 2412.06464 (n = 1), 2502.10297 (any n).
    """
    state, outputs, n = initial_state, [], k.shape[1] // q.shape[1]
    for t in steps_of(q):
        if g is not None:
            state = g[:, t].exp()[..., None, None] * state
        for j in range(t * n, (t + 1) * n):
            missing = v[:, j] - read(k[:, j], state)
            state = state + outer(k[:, j], beta[:, j].unsqueeze(-1) * missing)
        outputs.append(read(q[:, t], state))
    return torch.stack(outputs, 1), state


def rwkv7(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, *, initial_state: Tensor
) -> tuple[Tensor, Tensor]:
    """S_t = diag(exp w_t) S_{t-1} + b_t (S_{t-1}ᵀ a_t)ᵀ + k_t v_tᵀ, o_t = S_tᵀ r_t.

    r, w, k, a, b [B, T, H, K], v [B, T, H, V] -> o [B, T, H, V], S [B, H, K, V]. Source: arXiv 2503.14456.
    """
    state, outputs = initial_state, []
    for t in steps_of(v):
        removed = outer(b[:, t], read(a[:, t], state))
        state = w[:, t].exp().unsqueeze(-1) * state + removed + outer(k[:, t], v[:, t])
        outputs.append(read(r[:, t], state))
    return torch.stack(outputs, 1), state


def least_norm(top: Tensor) -> Tensor:
    """exp(-top): the lower bound 1 of an mLSTM's |nᵀ q|, scaled as n is, clamped so that nothing divides by 0."""
    return (-top).clamp(-80.0, 80.0).exp()


def mlstm(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, *, initial_state: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """C_t = σ(f_t) C_{t-1} + exp(i_t) k_t v_tᵀ, n_t likewise with k_t alone, o_t = C_tᵀ q_t / max(|n_tᵀ q_t|, 1).

    q, k [B, T, H, K], v [B, T, H, V], i, f [B, T, H] raw -> o [B, T, H, V]. The state is (C, n, m), C and n being kept
    divided by exp(m): C [B, H, K, V], n [B, H, K], m [B, H]. Source: arXiv 2405.04517, equations 19-27 and appendix.
    """
    (memory, norm, top), outputs = initial_state, []
    for t in steps_of(v):
        forget = F.logsigmoid(f[:, t]) + top
        top = torch.maximum(forget, i[:, t])
        keep, add = (forget - top).exp().unsqueeze(-1), (i[:, t] - top).exp().unsqueeze(-1)
        added = add * k[:, t]
        memory = keep.unsqueeze(-1) * memory + outer(added, v[:, t])
        norm = keep * norm + added
        size = (norm * q[:, t]).sum(-1, keepdim=True).abs()
        outputs.append(read(q[:, t], memory) / torch.maximum(size, least_norm(top).unsqueeze(-1)))
    return torch.stack(outputs, 1), (memory, norm, top)


def slstm(
    gates: Tensor, recurrent: Tensor, *, initial_state: tuple[Tensor, Tensor, Tensor, Tensor]
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """c_t = σ(f) c_{t-1} + exp(i) tanh(z), n_t = σ(f) n_{t-1} + exp(i), h_t = σ(o) c_t / n_t.

    gates [B, T, 4, H, d]: z, i, f, o from the input; to each is added recurrent [4, H, d, d] times h_{t-1}, head by
    head. -> h [B, T, H, d]. The state is (h, c, n, m), all [B, H, d], c and n being kept divided by exp(m).
    Source: arXiv 2405.04517, equations 8-18.
    """
    (h, cell, norm, top), outputs = initial_state, []
    for t in steps_of(gates):
        z, i, f, o = (gates[:, t] + torch.einsum("ghij,bhj->bghi", recurrent, h)).unbind(1)
        forget = F.logsigmoid(f) + top
        top = torch.maximum(forget, i)
        keep, add = (forget - top).exp(), (i - top).exp()
        cell = keep * cell + add * torch.tanh(z)
        norm = keep * norm + add
        h = torch.sigmoid(o) * (cell / norm)
        outputs.append(h)
    return torch.stack(outputs, 1), (h, cell, norm, top)


def complex_diagonal(eigenvalues: Tensor, inputs: Tensor, initial_state: Tensor) -> tuple[Tensor, Tensor]:
    """h_t = λ h_{t-1} + b_t for complex λ; numbers are (real, imaginary).

    eigenvalues [N, 2], inputs and states [B, T, N, 2], initial_state [B, N, 2]. Source: arXiv 2303.06349.
    """
    rotation, steps, state = map(torch.view_as_complex, (eigenvalues, inputs, initial_state))
    outputs = []
    for t in steps_of(steps):
        state = rotation * state + steps[:, t]
        outputs.append(state)
    return torch.view_as_real(torch.stack(outputs, 1)), torch.view_as_real(state)


def one_hot_columns(weights: Tensor, dictionary: Tensor) -> Tensor:
    """Σ_k weights_k M_k with each column replaced by a 1 at its largest entry: [..., K], [K, N, N] -> [..., N, N].

    Gradients are those of a softmax over each column (straight through).
    """
    soft = torch.einsum("...k,kij->...ij", weights, dictionary).softmax(-2)
    hard = torch.zeros_like(soft).scatter(-2, soft.argmax(-2, keepdim=True), 1.0)
    return hard + (soft - soft.detach())


def permutation_diagonal(
    weights: Tensor, dictionary: Tensor, magnitude: Tensor, phase: Tensor, inputs: Tensor, *, initial_state: Tensor
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """h_t = P_t (d_t ⊙ h_{t-1}) + b_t, P_t with one-hot columns, d_t = magnitude exp(i phase).

    weights [B, T, K], dictionary [K, N, N], magnitude, phase [B, T, N], inputs and states [B, T, N, 2] (real,
    imaginary), initial_state [B, N, 2]. Source: arXiv 2509.22284.
    """
    (steps, state), outputs = map(torch.view_as_complex, (inputs, initial_state)), []
    rotations = torch.polar(magnitude, phase)
    for t in steps_of(steps):
        chosen = one_hot_columns(weights[:, t], dictionary).to(state.dtype)
        state = (chosen @ (rotations[:, t] * state).unsqueeze(-1)).squeeze(-1) + steps[:, t]
        outputs.append(state)
    return torch.view_as_real(torch.stack(outputs, 1)), torch.view_as_real(state)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ / √K) v, causal, token by token: all [B, T, H, K] -> [B, T, H, K]."""
    outputs = []
    for t in steps_of(v):
        scores = torch.einsum("bhk,bshk->bhs", q[:, t], k[:, : t + 1]) / math.sqrt(q.shape[-1])
        outputs.append(torch.einsum("bhs,bshv->bhv", scores.softmax(-1), v[:, : t + 1]))
    return torch.stack(outputs, 1)


def lstm(gates: Tensor, recurrent: Tensor, *, initial_state: Tensor) -> tuple[Tensor, Tensor]:
    """c_t = σ(f) c_{t-1} + σ(i) tanh(g), h_t = σ(o) tanh(c_t).

    gates [B, T, 4 H]: i, f, g, o from the input; to them is added recurrent [4 H, H] times h_{t-1}.
    -> h [B, T, H], state [B, 2, H] (h, c). Source: torch.nn.LSTM.
    """
    (h, cell), outputs = initial_state.unbind(1), []
    for t in steps_of(gates):
        i, f, g, o = (gates[:, t] + h @ recurrent.T).chunk(4, -1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(cell)
        outputs.append(h)
    return torch.stack(outputs, 1), torch.stack([h, cell], 1)
