"""The chunked loss: equal to the plain one, with small logits."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from statemix import BDLRU
from statemix.lm import LanguageModelLoss, chunked_cross_entropy
from statemix.models import LanguageModel

V, D = 37, 12


def inputs(rows=50, dtype=torch.float64):
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(*shape, dtype=dtype) for shape in ((rows, D), (V, D), (V,)))
    targets = torch.randint(V, (rows,))
    targets[::7] = -100
    return [one.requires_grad_() for one in (x, weight, bias)], targets


@pytest.mark.parametrize(
    ("chunk", "compiled"), [(1, False), (7, False), (50, False), (1000, False), (25, True)]
)
def test_loss_and_gradients_are_those_of_all_logits(chunk, compiled):
    (x, weight, bias), targets = inputs()
    expected = F.cross_entropy(F.linear(x, weight, bias), targets, reduction="sum", ignore_index=-100)
    wanted = torch.autograd.grad(expected / 3, (x, weight, bias))
    loss = chunked_cross_entropy(x, weight, bias, targets, chunk, compiled=compiled)
    found = torch.autograd.grad(loss / 3, (x, weight, bias))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_low_precision_loses_nothing_in_the_sum():
    (x, weight, _), targets = inputs(2000, torch.float32)
    loss = chunked_cross_entropy(x, weight, None, targets, 100, torch.bfloat16)
    logits = F.linear(x.bfloat16(), weight.bfloat16()).double()
    expected = F.cross_entropy(logits, targets, reduction="sum", ignore_index=-100)
    assert abs(loss.item() / expected.item() - 1) < 1e-5
    gradient = torch.autograd.grad(loss, weight)[0]
    wanted = torch.autograd.grad(F.cross_entropy(F.linear(x, weight), targets, reduction="sum"), weight)[0]
    assert gradient.dtype == torch.float32
    assert (gradient - wanted).norm() / wanted.norm() < 0.01


class LargestTensor(TorchDispatchMode):
    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.shape[-1:] == (1000,):
            self.numbers = max(self.numbers, result.numel())
        return result


def test_no_more_logits_than_a_chunk():
    torch.manual_seed(0)
    model = LanguageModel(1000, D, lambda dim: BDLRU(dim, block_size=2), depth=1)
    tokens = torch.randint(1000, (4, 65))
    with LargestTensor() as seen:
        LanguageModelLoss(model, chunk=16)(tokens).backward()
    assert 0 < seen.numbers <= 16 * 1000


class Products(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
        return function(*args, **(kwargs or {}))


def test_an_evaluation_takes_the_head_s_product_alone():
    (x, weight, _), targets = inputs()
    with torch.no_grad(), Products() as evaluated:
        loss = chunked_cross_entropy(x, weight, None, targets, 10)
    with Products() as trained:
        torch.testing.assert_close(chunked_cross_entropy(x, weight, None, targets, 10), loss)
    assert (evaluated.count, trained.count) == (5, 15)


def test_documents_and_rows_that_do_not_count():
    torch.manual_seed(0)
    model = LanguageModel(V, D, lambda dim: BDLRU(dim, block_size=2), depth=1)
    loss, tokens = LanguageModelLoss(model), torch.randint(V, (2, 9))
    first, second = (loss(tokens[row : row + 1]) for row in range(2))
    torch.testing.assert_close(loss(tokens, counted=torch.tensor([True, False])), first)
    bounds = torch.tensor([0, 8, 16], dtype=torch.int32)
    torch.testing.assert_close(loss(tokens, cu_seqlens=bounds), first + second)
    halves = loss(tokens, cu_seqlens=torch.tensor([0, 4, 8, 16], dtype=torch.int32))
    assert abs(halves - first - second) > 2e-4
