"""Mixers by name: the built-in ones, those of installed packages, and anybody's own."""

from __future__ import annotations

import importlib.metadata

import pytest
import torch
from torch import nn

from statemix.models import LanguageModel
from statemix.nn import MIXERS, build_mixer, mixer_functions, mixers_in_turn, registry
from statemix.nn.mixer import check_input, check_size, placement, state_dtype


class Average(nn.Module):
    """h_t = decay h_{t-1} + (1 - decay) x_t with a learned decay a channel."""

    def __init__(self, dim, *, decay=0.5):
        super().__init__()
        self.dim = check_size("dim", dim)
        self.decay = nn.Parameter(torch.full((dim,), decay))

    def initial_state(self, batch_size):
        device, dtype = placement(self)
        return torch.zeros(batch_size, self.dim, device=device, dtype=state_dtype(dtype))

    def step(self, x, state=None):
        check_input("x", x, ("B", self.dim), "[B, dim]")
        state = self.initial_state(len(x)) if state is None else state
        state = self.decay * state + (1 - self.decay) * x
        return state.to(x.dtype), state

    def forward(self, x, state=None, cu_seqlens=None):
        check_input("x", x, ("B", "T", self.dim), "[B, T, dim]")
        ys = []
        for token in x.unbind(1):
            y, state = self.step(token, state)
            ys.append(y)
        return torch.stack(ys, 1), state


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    monkeypatch.setattr(MIXERS, "_places", dict(MIXERS._places))


def test_a_mixer_of_ones_own_trains_and_steps():
    MIXERS.register("average", Average)
    assert "average" in MIXERS and MIXERS["average"] is Average
    torch.manual_seed(0)
    model = LanguageModel(5, 8, lambda dim: build_mixer("average", dim, decay=0.2), depth=1)
    tokens, optimizer = torch.randint(5, (4, 6)), torch.optim.Adam(model.parameters(), 0.02)
    losses = []
    for _ in range(20):
        logits, states = model(tokens[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    with torch.no_grad():
        logits, states = model(tokens)
        carried = None
        for token in tokens.unbind(1):
            last, carried = model.step(token, carried)
    torch.testing.assert_close(last, logits[:, -1])
    torch.testing.assert_close(carried, states)


def test_a_place_is_imported_when_it_is_asked_for():
    MIXERS.register("average", f"{__name__}:Average")
    assert type(build_mixer("average", 4)).__name__ == "Average"
    MIXERS.register("nowhere", "statemix.no_such_module:Mixer")
    assert "nowhere" in MIXERS
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        MIXERS["nowhere"]


def test_mixers_of_installed_packages(monkeypatch):
    class Entry:
        def load(self):
            return {"theirs": f"{__name__}:Average", "bdlru": "never.taken:Mixer"}

    monkeypatch.setattr(registry, "entry_points", lambda group: [Entry()] * (group == "statemix.mixers"))
    monkeypatch.setattr(MIXERS, "_installed", False)
    assert isinstance(build_mixer("bdlru", 8, block_size=2), registry.MIXERS["bdlru"])
    assert "theirs" in MIXERS and "theirs" in list(MIXERS)
    assert MIXERS["bdlru"].__module__ == "statemix.nn.bdlru"


def test_a_baseline_that_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setattr(registry, "entry_points", lambda group: [])
    monkeypatch.setattr(MIXERS, "_installed", False)
    monkeypatch.setattr(MIXERS, "_places", {name: MIXERS._places[name] for name in ("bdlru", "hlru")})
    with pytest.raises(ValueError, match=r"mixer: 'lstm' is a baseline of statemix-research.*pip install"):
        build_mixer("lstm", 8)
    with pytest.raises(ValueError, match="mixer: got 'gru', expected one of 'bdlru', 'hlru'"):
        build_mixer("gru", 8)


def test_the_baselines_are_those_of_the_package():
    try:
        importlib.metadata.version("statemix-research")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("statemix-research is not installed")
    from statemix_research.baselines import BASELINES

    assert set(BASELINES) == set(registry.BASELINES)


def test_lists_give_the_layers_arguments_of_their_own():
    mixer = {"name": "bdlru", "block_size": 4, "gate_bias": [1.0, 2.0, 4.0], "hard": [True, False]}
    built = [build(8) for build in mixer_functions(mixer, 7)]
    assert [layer.gate_bias for layer in built] == [1.0, 2.0, 4.0, 1.0, 2.0, 4.0, 1.0]
    assert [layer.hard for layer in built] == [True, False, True, False, True, False, True]
    plain = {"name": "bdlru", "block_size": 4}
    assert mixers_in_turn(plain, 5) == [plain]
    assert len(mixers_in_turn(mixer, 3)) == 3 and len(mixers_in_turn(mixer)) == 6
    whole = {"name": "bdlru", "block_size": [1, 2]}  # no single value is its default: a mixer may take lists
    assert mixers_in_turn(whole, 2) == [whole]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"hard": []}, r"mixer.hard: got \[\], expected a value for each layer, 2 at most"),
        ({"hard": [True, False, True]}, r"mixer.hard: got \[True, False, True\], expected a value for each"),
    ],
)
def test_lists_that_do_not_fit_the_layers(given, words):
    with pytest.raises(ValueError, match=words):
        mixers_in_turn({"name": "bdlru", **given}, 2)


def test_a_single_mixer_takes_no_list():
    with pytest.raises(ValueError, match=r"mixer.hard: got \[True, False\], expected one value for a single"):
        build_mixer("bdlru", 8, block_size=2, hard=[True, False])
