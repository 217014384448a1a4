"""Weights of plain models and runs, as Hugging Face models and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from statemix.hf.configuration import StatemixConfig
from statemix.hf.modeling import StatemixForCausalLM
from statemix.models import LanguageModel
from statemix.nn.block import NORMS
from statemix.nn.registry import build_mixer

KEYS = (
    ("embedding.", "model.embed_tokens."),
    (r"layers.N.", "model.layers.N.block."),
    ("norm.", "model.norm."),
    ("head.", "lm_head."),
)
"""How the names of weights begin, in a `LanguageModel` and in a `StatemixForCausalLM`; N is a number."""


def from_language_model(model: LanguageModel, config: StatemixConfig) -> StatemixForCausalLM:
    """A Hugging Face model with the weights of a plain one, which are copied.

    Args:
        model: The plain model.
        config: What it is: its sizes, mixers and options.

    Raises:
        ValueError: The configuration describes another model.

    Example:
        >>> plain = LanguageModel(9, 8, lambda dim: BDLRU(dim, block_size=4), norm="rms", head_bias=False)
        >>> config = StatemixConfig(vocab_size=9, hidden_size=8, num_hidden_layers=2)
        >>> model, tokens = from_language_model(plain, config), torch.tensor([[1, 2, 3]])
        >>> torch.equal(model(tokens).logits, plain(tokens)[0])
        True
    """
    _check_norm(model, config)
    target = StatemixForCausalLM(config)
    _load(target, {_renamed(name, 0, 1): tensor for name, tensor in model.state_dict().items()}, "config")
    target.to(device=model.embedding.weight.device)  # type: ignore[call-arg]
    target.train(model.training)
    return target


def to_language_model(model: StatemixForCausalLM) -> LanguageModel:
    """A plain model with the weights of a Hugging Face one, which are copied.

    Args:
        model: The Hugging Face model; all its layers are recurrent.

    Raises:
        ValueError: A layer is attention, which a `LanguageModel` of Statemix's layers does not have.
    """
    config = model.config
    mixers = config.mixers or []
    if None in mixers:
        raise ValueError(f"model: layer {mixers.index(None)} is attention, expected recurrent layers alone")
    options = {"conv_size": config.conv_size, "output_gate": config.output_gate, "dropout": config.dropout}
    if config.mlp:
        options["mlp_width"] = config.intermediate_size
    target = LanguageModel(
        config.vocab_size,
        config.hidden_size,
        [partial(_build, config, name) for name in mixers if name is not None],
        norm=config.norm,
        tie_embeddings=config.tie_word_embeddings,
        head_bias=config.head_bias,
        block={"mlp": config.mlp, **options},
    ).to(model.dtype)
    _load(target, {_renamed(name, 1, 0): tensor for name, tensor in model.state_dict().items()}, "model")
    return target.to(model.device).train(model.training)


def config_of(model: LanguageModel, mixer: Mapping[str, Any]) -> StatemixConfig:
    """The configuration of a plain model.

    Args:
        model: The plain model, of one mixer in all layers.
        mixer: That mixer: its name under "name", and the arguments of its constructor.

    Example:
        >>> plain = LanguageModel(9, 8, lambda dim: BDLRU(dim, block_size=2), block={"conv_size": 4})
        >>> config = config_of(plain, {"name": "bdlru", "block_size": 2})
        >>> config.hidden_size, config.conv_size, config.arguments_of("bdlru")
        (8, 4, {'block_size': 2})
    """
    arguments = dict(mixer)
    block: Any = model.layers[0]
    return StatemixConfig(
        vocab_size=model.vocab_size,
        hidden_size=model.dim,
        num_hidden_layers=len(model.layers),
        mixer=arguments.pop("name"),
        mixer_arguments=arguments,
        norm=next(name for name, kind in NORMS.items() if type(model.norm) is kind),
        conv_size=None if block.convolution is None else block.convolution.conv_size,
        output_gate=block.output_gate is not None,
        mlp=block.mlp is not None,
        intermediate_size=None if block.mlp is None else block.mlp.gate.out_features,
        dropout=block.dropout,
        head_bias=model.head.bias is not None,
        tie_word_embeddings=model.head.weight is model.embedding.weight,
        scaled_init=model.scaled_init,
    )


def from_run(folder: str | Path) -> StatemixForCausalLM:
    """The trained model of a run as a Hugging Face model, on the CPU, in evaluation mode.

    Args:
        folder: The folder of a run: of `statemix train`, or any with the weights of a `LanguageModel` and a
            config.json that has its "mixer", its "block" and its "model".

    Raises:
        RunError: The folder is no run, has no weights yet, or a file is damaged or belongs to another model.
        ValueError: The run's model is no next-token model.
    """
    from statemix.training.files import read_json

    content = read_json(Path(folder) / "config.json")
    model = _run_of_a_task(folder) if "task" in content else _language_model(Path(folder), content)
    return from_language_model(model, config_of(model, content["mixer"]))


def _run_of_a_task(folder: str | Path) -> LanguageModel:
    from statemix.training import load_run

    model = load_run(folder)[1]
    if not isinstance(model, LanguageModel):
        raise ValueError(f"folder: {folder} holds a {type(model).__name__}, expected a LanguageModel")
    return model


def _language_model(folder: Path, content: Mapping[str, Any]) -> LanguageModel:
    """The model that a configuration describes, with the weights that lie beside it."""
    from statemix.training.checkpoint import load_weights
    from statemix.training.files import RunError

    try:
        mixer, sizes = dict(content["mixer"]), dict(content["model"])
        vocab_size, dim = sizes.pop("vocab_size"), sizes.pop("dim")
        build = partial(build_mixer, mixer.pop("name"), **mixer)
        model = LanguageModel(vocab_size, dim, build, block=content.get("block"), **sizes)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"it has no entry {error}" if isinstance(error, KeyError) else error
        raise RunError(f"{folder / 'config.json'} describes no language model: {reason}") from None
    load_weights(folder / "model.safetensors", model)
    return model.eval()


def _build(config: StatemixConfig, mixer: str, dim: int) -> torch.nn.Module:
    return build_mixer(mixer, dim, **config.arguments_of(mixer))


def _renamed(name: str, this: int, that: int) -> str:
    """The name of a weight in the other kind of model."""
    for pair in KEYS:
        beginning = re.compile("^" + re.escape(pair[this]).replace("N", r"(\d+)"))
        if beginning.match(name):
            return beginning.sub(pair[that].replace("N", r"\\1").replace("\\\\", "\\"), name)
    return name


def _check_norm(model: LanguageModel, config: StatemixConfig) -> None:
    if type(model.norm) is not NORMS[config.norm]:
        raise ValueError(
            f"config.norm: got {config.norm!r}, expected that of the model, {type(model.norm).__name__}"
        )


def _load(target: torch.nn.Module, weights: Mapping[str, Tensor], argument: str) -> None:
    """Load weights that must fit whole; ValueError naming the first ones that do not."""
    own = target.state_dict()
    wrong = [name for name in sorted(own.keys() | weights.keys()) if name not in own or name not in weights]
    wrong += [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if wrong:
        name = wrong[0]
        came, wanted = (list(one[name].shape) if name in one else "nothing" for one in (weights, own))
        raise ValueError(
            f"{argument}: describes another model: {name} is {came} in the weights, expected {wanted} "
            f"({len(wrong)} weights differ)"
        )
    target.load_state_dict(dict(weights))
