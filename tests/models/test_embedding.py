"""The embedding and its gradient by products."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from statemix.models.embedding import Embedding, lookup


@pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning"
)  # torch does it while tracing
def test_the_product_is_the_gradient():
    torch.manual_seed(0)
    weight = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    tokens = torch.randint(5, (4, 7))
    grad = torch.randn(4, 7, 3, dtype=torch.float64)
    (want,) = torch.autograd.grad(F.embedding(tokens, weight), weight, grad)
    compiled = torch.compile(lookup, backend="aot_eager", fullgraph=True)
    for function in (lookup, compiled):
        out = function(weight, tokens)
        assert torch.equal(out, F.embedding(tokens, weight))
        torch.testing.assert_close(torch.autograd.grad(out, weight, grad)[0], want)


def test_on_the_cpu_it_is_the_plain_embedding():
    torch.manual_seed(0)
    embedding = Embedding(6, 4)
    tokens = torch.randint(6, (2, 9))
    out = embedding(tokens)
    assert torch.equal(out, F.embedding(tokens, embedding.weight))
    assert "EmbeddingBackward" in type(out.grad_fn).__name__
    assert list(embedding.state_dict()) == ["weight"]


@pytest.mark.parametrize("mapped", [(0, 0), (None, 0), (0, None)])
def test_the_product_is_mapped(mapped):
    """Stacked weights and gradients of single examples, as torch.func takes them."""
    torch.manual_seed(0)
    weight = torch.randn(*[2] * (mapped[0] == 0), 5, 3, dtype=torch.float64)
    tokens = torch.randint(5, (*[2] * (mapped[1] == 0), 4, 7))

    def gradient(function, weight, tokens):
        return torch.func.grad(lambda weight: function(weight, tokens).pow(3).sum())(weight)

    got = torch.func.vmap(partial(gradient, lookup), mapped)(weight, tokens)
    for place in range(2):
        own = [x if dim is None else x[place] for x, dim in zip((weight, tokens), mapped, strict=True)]
        want = gradient(lambda weight, tokens: F.embedding(tokens, weight), *own)
        torch.testing.assert_close(got[place], want)
