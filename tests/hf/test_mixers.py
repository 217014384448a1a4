"""Any registered mixer is a layer: one of one's own, a baseline, one whose state grows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from statemix.hf import StatemixCache, StatemixConfig, StatemixForCausalLM
from statemix.hf.modeling import CACHE
from statemix.nn import MIXERS
from statemix.nn.mixer import check_size, placement, state_dtype
from tests.hf.small import V, greedy, tokens


class Memory(nn.Module):
    """The mean of everything so far. It keeps every token, so that its state [S, t, dim] grows."""

    def __init__(self, dim, *, scale=1.0):
        super().__init__()
        self.dim, self.scale = check_size("dim", dim), nn.Parameter(torch.tensor(scale))

    def initial_state(self, batch_size):
        device, dtype = placement(self)
        return torch.zeros(batch_size, 0, self.dim, device=device, dtype=state_dtype(dtype))

    def step(self, x, state=None):
        y, state = self(x[:, None], state)
        return y[:, 0], state

    def forward(self, x, state=None, cu_seqlens=None):
        state = self.initial_state(len(x)) if state is None else state
        seen, state = state.shape[1], torch.cat([state, x.to(state.dtype)], 1)
        counts = torch.arange(1, state.shape[1] + 1, device=x.device)[:, None]
        return self.scale * (state.cumsum(1) / counts)[:, seen:].to(x.dtype), state


@pytest.fixture
def memory(monkeypatch):
    monkeypatch.setattr(MIXERS, "_places", dict(MIXERS._places))
    MIXERS.register("memory", Memory)


def build(**options):
    torch.manual_seed(0)
    sizes = {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "initializer_range": 0.2}
    return StatemixForCausalLM(StatemixConfig(**sizes, **options)).eval()


def test_a_mixer_of_ones_own(memory, tmp_path):
    model = build(
        layer_types=["memory", "bdlru"],
        mixer_arguments={"memory": {"scale": 2.0}, "bdlru": {"block_size": 4}},
    )
    assert model.model.layers[0].block.mixer.scale == 2
    text = tokens(2, 6)
    output = model.generate(text, do_sample=False, max_new_tokens=5, return_dict_in_generate=True)
    assert torch.equal(output.sequences, greedy(model, text, 5))
    assert [layer.states[0].shape[1] for layer in output[CACHE].layers] == [10, 8]
    beams = {"do_sample": False, "num_beams": 3, "max_new_tokens": 5}
    assert torch.equal(model.generate(text, **beams), model.generate(text, use_cache=False, **beams))
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(StatemixForCausalLM.from_pretrained(tmp_path)(text).logits, model(text).logits)
    with pytest.raises(
        ValueError, match="decode: got 'compiled', which does not work here: the state of a mixer grows"
    ):
        model.generate(text, decode="compiled")


@pytest.mark.parametrize("mixer", ["lstm", "gated_deltanet", "mamba2", "attention"])
def test_baselines(mixer):
    if mixer not in MIXERS:
        pytest.skip("needs statemix-research")
    model = build(layer_types=["bdlru", mixer], mixer_arguments={"bdlru": {"block_size": 4}, mixer: {}})
    assert model.config.mixers == ["bdlru", mixer]
    text = tokens(2, 6)
    assert torch.equal(model.generate(text, do_sample=False, max_new_tokens=4), greedy(model, text, 4))
    with torch.no_grad():
        whole = model(text).logits
        cache = StatemixCache(model.config)
        model(text[:, :4], cache=cache)
        torch.testing.assert_close(model(text[:, 4:], cache=cache).logits, whole[:, 4:], rtol=1e-3, atol=1e-4)
