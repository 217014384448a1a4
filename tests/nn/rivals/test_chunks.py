"""Recurrences in chunks against the loops."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from statemix.nn.rivals import chunks, loops
from statemix.nn.rivals.check import outputs_and_gradients
from statemix.nn.rivals.rwkv7 import STRONGEST_DECAY

DECAYS = {
    "as in a layer": lambda x: -x.abs(),
    "nothing is forgotten": torch.zeros_like,
    "everything is": lambda x: torch.full_like(x, -1e4),
    "some of it": lambda x: torch.where(x > 1, -1e4, -0.01 * x.abs()),
    "infinite": lambda x: torch.where(x > 1, -torch.inf, -0.01 * x.abs()),
}


def drawn(steps, decay="as in a layer"):
    """Inputs in float64, values of another size than keys."""
    torch.manual_seed(0)
    shapes = {"q": (2, steps, 3, 4), "k": (2, steps, 3, 4), "v": (2, steps, 3, 5), "g": (2, steps, 3)}
    given = {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}
    return given | {
        "g": DECAYS[decay or "as in a layer"](given["g"]),
        "initial_state": torch.randn(2, 3, 4, 5, dtype=torch.float64),
    }


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("steps", [1, 64, 65, 200])
def test_chunks_are_the_loop(steps, decay):
    given = drawn(steps, decay)
    want = outputs_and_gradients(loops.simple_gla, given)
    got = outputs_and_gradients(chunks.simple_gla, given)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("chunk", [1, 3, 13, 64])
def test_chunks_of_any_size(chunk):
    given = drawn(13)
    torch.testing.assert_close(chunks.simple_gla(**given, chunk=chunk), loops.simple_gla(**given))


def test_a_large_decay_does_not_blur_those_after_it():
    given = {name: x.float() for name, x in drawn(64, "some of it").items()}
    want = outputs_and_gradients(loops.simple_gla, {name: x.double() for name, x in given.items()})
    for one, other in zip(outputs_and_gradients(chunks.simple_gla, given), want, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


def writes(steps, factors, decay="as in a layer"):
    """Inputs of the delta rule in float64; beta to 2 and keys of length 1, as a layer gives them."""
    given = {name: x for name, x in drawn(steps, decay).items() if name not in ("k", "v")}
    many = (2, steps * factors, 3)
    given["k"] = F.normalize(torch.randn(*many, 4, dtype=torch.float64), dim=-1)
    given["v"] = torch.randn(*many, 5, dtype=torch.float64)
    given["beta"] = 2 * torch.rand(many, dtype=torch.float64)
    if decay is None:
        del given["g"]
    return given


@pytest.mark.parametrize("decay", [None, *DECAYS])
@pytest.mark.parametrize(("steps", "factors"), [(1, 1), (64, 1), (200, 1), (70, 2), (33, 4), (40, 3)])
def test_chunks_of_writes_are_the_loop(steps, factors, decay):
    given = writes(steps, factors, decay)
    want = outputs_and_gradients(loops.delta_rule, given)
    got = outputs_and_gradients(chunks.delta_rule, given)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("chunk", [1, 3, 13, 64])
def test_chunks_of_writes_of_any_size(chunk):
    """A token's writes stay together where a chunk is smaller than they are many."""
    given = writes(13, 2)
    torch.testing.assert_close(chunks.delta_rule(**given, chunk=chunk), loops.delta_rule(**given))


def test_chunks_of_writes_in_float32_lose_nothing():
    """Equal keys written with beta = 2 turn the state over and over: the system that is worst to solve."""
    given = {name: x.float() for name, x in writes(128, 1, "nothing is forgotten").items()}
    given["k"] = given["k"][:, :1].expand_as(given["k"]).contiguous()
    given["beta"] = torch.full_like(given["beta"], 2.0)
    want = outputs_and_gradients(loops.delta_rule, {name: x.double() for name, x in given.items()})
    for one, other in zip(outputs_and_gradients(chunks.delta_rule, given), want, strict=True):
        assert (one.double() - other).norm() <= 1e-4 * other.norm()


def steps_of_rwkv7(steps, strongest=0.61):
    """Inputs in float64 as a layer gives them: a decay down to exp(-0.61) a step, a and b against each other."""
    torch.manual_seed(0)
    r, w, k, b = (torch.randn(2, steps, 3, 4, dtype=torch.float64) for _ in range(4))
    removed = F.normalize(b, dim=-1)
    rest = {
        "v": torch.randn(2, steps, 3, 5, dtype=torch.float64),
        "initial_state": torch.randn(2, 3, 4, 5).double(),
    }
    return {"r": r, "w": -strongest * w.sigmoid(), "k": k, "a": -removed, "b": removed * r.sigmoid(), **rest}


@pytest.mark.parametrize("steps", [1, 64, 65, 200])
def test_chunks_of_rwkv7_are_the_loop(steps):
    given = steps_of_rwkv7(steps)
    want = outputs_and_gradients(loops.rwkv7, given)
    for one, other in zip(outputs_and_gradients(chunks.rwkv7, given), want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("chunk", [1, 3, 13, 64])
def test_chunks_of_rwkv7_of_any_size(chunk):
    given = steps_of_rwkv7(13)
    torch.testing.assert_close(chunks.rwkv7(**given, chunk=chunk), loops.rwkv7(**given))


def test_chunks_of_rwkv7_bear_the_strongest_decay():
    """Everywhere and always, in float32: what is divided by is e^-39 at a chunk's end."""
    given = {name: x.float() for name, x in steps_of_rwkv7(130).items()}
    given["w"] = torch.full_like(given["w"], -STRONGEST_DECAY)
    want = outputs_and_gradients(loops.rwkv7, {name: x.double() for name, x in given.items()})
    for one, other in zip(outputs_and_gradients(chunks.rwkv7, given), want, strict=True):
        assert (one.double() - other).norm() <= 2e-5 * other.norm()
