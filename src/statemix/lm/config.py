"""The configuration of a language model's training: settings, their ranges, and how a complete one is made."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from statemix.lm.presets import LM_PRESETS
from statemix.models import NORMS
from statemix.training.config import (
    MAX_DEPTH,
    MAX_DIM,
    MAX_STEPS,
    PRECISIONS,
    SEEDS,
    Section,
    build_section,
    flatten,
    setting,
)
from statemix.training.resolve import merge, parse_override, read_toml
from statemix.training.settings import Setting, fields_of

RUNTIME_KEYS = (
    "data.pack", "data.workers", "training.checkpoint_every", "training.compile", "training.device",
    "training.keep_checkpoints", "training.loss_chunk", "training.micro_batch", "training.sharding",
    "training.tensorboard",
)  # fmt: skip
"""Settings of how a run is carried out, not of what it computes: a run may be resumed with other values.

Of the pack, its content is compared and not its place. Another micro-batch, loss chunk or number of processes changes
the order in which numbers are added, so the last bits of the losses.
"""


@dataclass(frozen=True)
class ModelConfig(Section):
    """The language model around the mixer: arguments of `statemix.models.LanguageModel`."""

    section = "model"

    vocab_size: int = setting(0, "V; 0: that of the pack", "ids", low=0, high=2**31)
    dim: int = setting(768, "D, width of the residual stream", "channels", low=1, high=MAX_DIM)
    depth: int = setting(12, "layers, each a mixer and a SwiGLU", "layers", low=1, high=MAX_DEPTH)
    norm: str = setting("rms", 'norm before each mixer and SwiGLU: "layer" or "rms"', choices=tuple(NORMS))
    tie_embeddings: bool = setting(False, "whether the head's weight is the embedding's")
    head_bias: bool = setting(False, "whether the head has a bias")
    scaled_init: bool = setting(True, "whether the SwiGLUs' output weights start divided by √(2 · depth)")


@dataclass(frozen=True)
class DataConfig(Section):
    """What is read: a pack of `statemix text prepare`, in sequences."""

    section = "data"

    pack: str = setting("", "folder of the pack")
    digest: str = setting("", "of the pack's content; filled in when training begins")
    length: int = setting(2048, "T, length of a sequence", "tokens", low=1)
    documents: bool = setting(False, "whether every document of a sequence begins with an empty state")
    eval_sequences: int = setting(256, "held-out sequences of an evaluation; 0: all", "sequences", low=0)
    workers: int = setting(1, "processes that read ahead; 0: the training process reads", low=0, high=64)


@dataclass(frozen=True)
class TrainingConfig(Section):
    """How the model is trained, logged and saved."""

    section = "training"

    steps: int = setting(18_850, "length of the training", "optimiser steps", low=1, high=MAX_STEPS)
    batch_size: int = setting(256, "sequences of a step, over all processes", "sequences", low=1)
    micro_batch: int = setting(
        0, "sequences that a process computes at once; 0: all of its share", "sequences", low=0
    )
    lr: float = setting(6e-3, "learning rate after warm-up", low=0)
    warmup: int = setting(
        1885, "rise of the learning rate from 0; unless given, at most 10 % of the steps", low=0
    )
    schedule: str = setting(
        "cosine",
        '"cosine" falls to min_lr at the last step, "constant" stays',
        choices=("cosine", "constant"),
    )
    min_lr: float = setting(1e-5, "learning rate at the end of the cosine", low=0)
    betas: tuple[float, float] = setting(
        (0.9, 0.95), "AdamW's decay rates of both moments", item=float, low=0, high=math.nextafter(1, 0)
    )
    weight_decay: float = setting(0.1, "AdamW's, on matrices and embeddings, not on biases and norms", low=0)
    gradient_clip: float = setting(1.0, "largest norm of the gradient; 0 clips nothing", low=0)
    seed: int = setting(0, "of the weights, the order of the data and dropout", low=0, high=SEEDS - 1)
    log_every: int = setting(10, "how often training metrics are written", "steps", low=1)
    eval_every: int = setting(500, "how often the held-out loss is computed; also at the end", "steps", low=1)
    checkpoint_every: int = setting(500, "how often a checkpoint is written", "steps", low=1)
    keep_checkpoints: int = setting(2, "newest checkpoints that are kept", low=1)
    precision: str = setting(
        "auto",
        '"bfloat16" (autocast), "float32", or "auto": bfloat16 on a GPU that has it',
        choices=PRECISIONS,
    )
    device: str = setting(
        "auto", '"cpu", "cuda", or "auto": a GPU when there is one', choices=("auto", "cpu", "cuda")
    )
    sharding: str = setting(
        "ddp", 'several processes: "ddp" copies the model to each, "fsdp" shards it', choices=("ddp", "fsdp")
    )
    compile: bool = setting(False, "whether each block is compiled by torch.compile")
    loss_chunk: int = setting(
        0, "tokens whose logits exist at once; 0: chosen by their size", "tokens", low=0
    )
    tensorboard: str = setting(
        "auto",
        'TensorBoard events: "on", "off", or "auto": when it is installed',
        choices=("auto", "on", "off"),
    )


@dataclass(frozen=True)
class LMConfig:
    """A whole run. `mixer` names the mixer (key "name") and its arguments; `block` holds options of `nn.Block`.

    >>> config = resolve_lm_config("tiny", overrides=["mixer.block_size=2", "training.steps=50"])
    >>> config.mixer["block_size"], config.training.steps, config.training.warmup
    (2, 50, 5)
    """

    name: str = setting("run", "what the run is called; a preset's name unless given")
    mixer: dict[str, Any] = field(default_factory=lambda: {"name": "bdlru", "block_size": 4})
    block: dict[str, Any] = field(default_factory=dict)
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    version: str = ""
    """The statemix that resolved this configuration."""

    def __post_init__(self) -> None:
        if not isinstance(self.mixer, Mapping) or not isinstance(self.mixer.get("name"), str):
            raise ValueError(f'mixer: got {self.mixer!r}, expected a table with a "name"')
        if not isinstance(self.block, Mapping):
            raise ValueError(f"block: got {self.block!r}, expected a table of options")

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers and strings, ready for JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> LMConfig:
        """The reverse of `to_dict`. ValueError names an unknown key, or a value that cannot be."""
        built = dict(content)
        for kind in (ModelConfig, DataConfig, TrainingConfig):
            if (name := kind.section) in content:
                if not isinstance(content[name], Mapping):
                    raise ValueError(f"{name}: got {content[name]!r}, expected a table of settings")
                built[name] = build_section(f"{name}.", content[name], kind)
        return build_section("", built, cls)  # type: ignore[no-any-return]


def resolve_lm_config(
    preset: str | None = None, file: str | Path | None = None, overrides: Iterable[str] = ()
) -> LMConfig:
    """A complete configuration: defaults, then a preset, then a TOML file, then "key=value" settings.

    Keys are dotted ("training.lr=3e-4", "data.pack=packs/stdlib"). Another mixer starts with its own arguments. A
    warm-up that neither file nor settings give is cut to 10 % of the steps. Errors: ValueError naming the setting;
    OSError when the file cannot be read.
    """
    from statemix import __version__

    content: dict[str, Any] = LMConfig().to_dict()
    if preset is not None:
        if preset not in LM_PRESETS:
            raise ValueError(f"preset: got {preset!r}, expected one of {', '.join(LM_PRESETS)}")
        content = merge(content, LM_PRESETS[preset] | {"name": preset})
    given: dict[str, Any] = {} if file is None else read_toml(Path(file))
    for override in overrides:
        given = merge(given, parse_override(override))
    config = LMConfig.from_dict(merge(content, given) | {"version": __version__})
    if "training.warmup" not in flatten(given):
        shortest = min(config.training.warmup, max(1, config.training.steps // 10))
        config = replace(config, training=replace(config.training, warmup=shortest))
    return config


def check_batches(config: LMConfig, processes: int) -> int:
    """Micro-batches of a step in each process. ValueError when the sequences cannot be shared out evenly."""
    training = config.training
    if training.batch_size % processes:
        raise ValueError(
            f"training.batch_size: got {training.batch_size}, expected a multiple of the {processes} processes"
        )
    share = training.batch_size // processes
    micro = min(training.micro_batch or share, share)
    if share % micro:
        raise ValueError(
            f"training.micro_batch: got {training.micro_batch}, expected a divisor of the {share} sequences that each "
            f"of {processes} processes has in a step"
        )
    return share // micro


def settings() -> dict[str, list[Setting]]:
    """Every setting by what it belongs to, for `--help` and completion."""
    sections = (ModelConfig, DataConfig, TrainingConfig)
    found = {kind.section: list(fields_of(kind, f"{kind.section}.")) for kind in sections}
    return {"mixer": [Setting("mixer.name", '"bdlru"', "a mixer by name; mixer.…: its arguments")], **found}
