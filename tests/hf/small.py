"""Small models and inputs, and what a model gives without any cache."""

from __future__ import annotations

import torch

from statemix.hf import StatemixConfig, StatemixForCausalLM

V = 50

MODELS = {
    "bdlru": {},
    "hlru": {"mixer": "hlru", "mixer_arguments": {"order": 3}},
    "block": {"conv_size": 4, "output_gate": True},
    "start": {
        "conv_size": 3,
        "mixer_arguments": {"block_size": 4, "hard": True, "learned_initial_state": True},
    },
    "mixed": {
        "layer_types": ["bdlru", "hlru"],
        "mixer_arguments": {"bdlru": {"block_size": 4}, "hlru": {"order": 2}},
    },
    "hybrid": {
        "layer_types": ["linear_attention", "full_attention"],
        "head_dim": 8,
        "num_key_value_heads": 2,
    },
    "layer-norm": {"norm": "layer", "head_bias": True, "mlp": False},
}
RECURRENT = [name for name in MODELS if name != "hybrid"]


def config(name="bdlru", **options):
    """The configuration of a small model."""
    sizes = {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "initializer_range": 0.2}
    return StatemixConfig(**{**sizes, **MODELS[name], **options})


def build(name="bdlru", seed=0, **options):
    """A small model in evaluation mode. Its weights are large enough for the logits to differ."""
    torch.manual_seed(seed)
    return StatemixForCausalLM(config(name, **options)).eval()


def tokens(*shape, seed=0):
    """Random tokens."""
    return torch.randint(V, shape, generator=torch.Generator().manual_seed(seed))


def greedy(model, prompt, new):
    """`new` tokens behind the prompt, each from a forward on everything before it: no cache, no padding."""
    text = prompt
    with torch.no_grad():
        for _ in range(new):
            text = torch.cat([text, model(text, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    return text
