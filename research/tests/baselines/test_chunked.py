"""Recurrences in chunks against the loops."""

from __future__ import annotations

import functools

import pytest
import torch
from statemix_research.baselines import chunked, recurrences
from statemix_research.baselines.rwkv7 import STRONGEST_DECAY
from statemix_research.baselines.verify import outputs_and_gradients, relative_error
from torch.nn import functional as F

DECAYS = {
    "as in a layer": lambda x: -x.abs(),
    "nothing is forgotten": torch.zeros_like,
    "everything is": lambda x: torch.full_like(x, -1e4),
    "some of it": lambda x: torch.where(x > 1, -1e4, -0.01 * x.abs()),
    "infinite": lambda x: torch.where(x > 1, -torch.inf, -0.01 * x.abs()),
}


def normal(*shape):
    return torch.randn(shape, dtype=torch.float64)


def simple_gla(steps, decay="as in a layer"):
    """Inputs in float64, values of another size than keys."""
    torch.manual_seed(0)
    shapes = {"q": (2, steps, 3, 4), "k": (2, steps, 3, 4), "v": (2, steps, 3, 5), "g": (2, steps, 3)}
    given = {name: normal(*shape) for name, shape in shapes.items()}
    return given | {"g": DECAYS[decay](given["g"]), "initial_state": normal(2, 3, 4, 5)}


def delta_rule(steps, factors=1, decay="as in a layer"):
    """Beta to 2 and keys of length 1, as a layer gives them; `factors` writes a step."""
    given = simple_gla(steps, decay or "as in a layer")
    if decay is None:
        del given["g"]
    many = (2, steps * factors, 3)
    beta = 2 * torch.rand(many, dtype=torch.float64)
    return given | {"k": F.normalize(normal(*many, 4), dim=-1), "v": normal(*many, 5), "beta": beta}


def rwkv7(steps):
    """As a layer gives them: no decay below its strongest, a and b against each other."""
    torch.manual_seed(0)
    given = {name: normal(2, steps, 3, 4) for name in ("r", "k")}
    removed, rate = F.normalize(normal(2, steps, 3, 4), dim=-1), normal(2, steps, 3, 4).sigmoid()
    w = -STRONGEST_DECAY * normal(2, steps, 3, 4).sigmoid()
    rest = {"v": normal(2, steps, 3, 5), "initial_state": normal(2, 3, 4, 5)}
    return given | {"w": w, "a": -removed, "b": removed * rate} | rest


LENGTHS = (1, 64, 65, 200)
CASES = [
    *((simple_gla, (steps, "as in a layer")) for steps in LENGTHS),
    *((simple_gla, (65, decay)) for decay in DECAYS),
    *((delta_rule, (steps, n, decay)) for steps, n in [(1, 1), (64, 1), (200, 1), (70, 2), (33, 4)]
      for decay in (None, "as in a layer")),
    *((delta_rule, (40, 3, decay)) for decay in (None, *DECAYS)),
    *((rwkv7, (steps,)) for steps in LENGTHS),
]  # fmt: skip


@pytest.mark.parametrize(("inputs", "arguments"), CASES, ids=lambda one: getattr(one, "__name__", str(one)))
def test_chunks_are_the_loop(inputs, arguments):
    given, name = inputs(*arguments), inputs.__name__
    want, got = (outputs_and_gradients(getattr(module, name), given) for module in (recurrences, chunked))
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("inputs", [simple_gla, functools.partial(delta_rule, factors=2), rwkv7])
@pytest.mark.parametrize("chunk", [1, 3, 13, 64])
def test_chunks_of_any_size(inputs, chunk):
    """The writes of a step stay together where a chunk is smaller than they are many."""
    given, name = inputs(13), getattr(inputs, "func", inputs).__name__
    torch.testing.assert_close(
        getattr(chunked, name)(**given, chunk=chunk), getattr(recurrences, name)(**given)
    )


def some_of_it():
    """A large decay must not blur those after it."""
    return simple_gla(64, "some of it")


def equal_keys():
    """Written with beta = 2 they reflect the state again and again: the system that is worst to solve."""
    given = delta_rule(128, 1, "nothing is forgotten")
    given["k"] = given["k"][:, :1].expand_as(given["k"]).contiguous()
    return given | {"beta": torch.full_like(given["beta"], 2.0)}


def strongest_decay():
    """Everywhere and always: what is divided by is e^-39 at a chunk's end."""
    given = rwkv7(130)
    return given | {"w": torch.full_like(given["w"], -STRONGEST_DECAY)}


HARDEST = [
    ("simple_gla", some_of_it, 1e-6),
    ("delta_rule", equal_keys, 2e-5),
    ("rwkv7", strongest_decay, 1e-5),
]


@pytest.mark.parametrize(("name", "inputs", "bound"), HARDEST)
def test_the_hardest_in_float32(name, inputs, bound):
    given = {key: x.float() for key, x in inputs().items()}
    want = outputs_and_gradients(getattr(recurrences, name), {key: x.double() for key, x in given.items()})
    for one, other in zip(outputs_and_gradients(getattr(chunked, name), given), want, strict=True):
        assert relative_error(one, other) <= bound
