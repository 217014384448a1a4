"""The passes of `scan.copy_rows` in torch, step by step. They define what the kernels compute."""

from __future__ import annotations

import torch
from torch import Tensor


def choose(weights: Tensor, dictionary: Tensor) -> Tensor:
    """The columns c, int64 [.., N], for weights [.., K] and a dictionary [K, N, N]."""
    return _mixture(weights, dictionary).argmax(-1)


def choose_back(weights: Tensor, dictionary: Tensor, back: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of weights and dictionary.

    back: those of what a row copied, before: the states that it chose among, both [B, T, N, 2].
    """
    return through(weights, dictionary, torch.einsum("btmc,btnc->btmn", back, before))


def through(weights: Tensor, dictionary: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of weights [.., K] and dictionary for one of the rows' softmax [.., N, N]."""
    soft = _mixture(weights, dictionary).softmax(-1)
    grad = soft * (grad - (soft * grad).sum(-1, keepdim=True))
    to_weights = torch.einsum("...mn,kmn->...k", grad, dictionary)
    return to_weights, torch.einsum("...mn,...k->kmn", grad, weights)


def outer_by_token(tokens: Tensor, vocab_size: int, back: Tensor, before: Tensor) -> Tensor:
    """The sums [V, N, N] of back ⊗ before over all places of a token; tokens: [B, T]."""
    each = [(tokens == token)[..., None, None] * back for token in range(vocab_size)]
    return torch.stack([torch.einsum("btmc,btnc->mn", mine, before) for mine in each])


def _mixture(weights: Tensor, dictionary: Tensor) -> Tensor:
    return (weights @ dictionary.flatten(1)).unflatten(-1, dictionary.shape[1:])


def run(columns: Tensor, factors: Tensor, inputs: Tensor, start: Tensor) -> Tensor:
    """The states [B, T, N, 2]."""
    states = []
    h, d, b = (torch.view_as_complex(x) for x in (start, factors, inputs))
    for t in range(columns.shape[1]):
        h = torch.addcmul(b[:, t], d[:, t], h.gather(1, columns[:, t]))
        states.append(h)
    return torch.view_as_real(torch.stack(states, 1))


def run_back(
    columns: Tensor, factors: Tensor, before: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the inputs, of what was copied and of the factors, [B, T, N, 2] each, and of the start [B, N, 2].

    before: the state before every step. grad: that of the states.
    """
    turned = torch.view_as_complex(factors).conj().resolve_conj()
    carried, totals, backs = torch.zeros_like(grad[:, 0]), [], []
    for t in reversed(range(columns.shape[1])):
        total = grad[:, t] + carried
        back = torch.view_as_real(turned[:, t] * torch.view_as_complex(total))
        carried = torch.zeros_like(total).scatter_add(1, columns[:, t].unsqueeze(-1).expand_as(back), back)
        totals.append(total)
        backs.append(back)
    total, back = (torch.stack(x[::-1], 1) for x in (totals, backs))
    copied = torch.view_as_complex(before.gather(2, columns.unsqueeze(-1).expand_as(before)))
    d_factors = torch.view_as_real(torch.view_as_complex(total) * copied.conj())
    return total, back, d_factors, carried
