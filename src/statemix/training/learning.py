"""Train hard layers on an automaton until they are proved equal to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix.analysis import Proof, collision_penalty, prove
from statemix.analysis.proof import random_words
from statemix.analysis.reachable import live_states
from statemix.models import LanguageModel
from statemix.nn import BDLRU
from statemix.ops import normalize
from statemix.tasks import IGNORED, Automaton, smallest_block
from statemix.training.build import build_optimizer, learning_rate
from statemix.training.config import ModelConfig, TrainingConfig
from statemix.training.evaluation import scores

CLOSED = -30.0
"""Initial bias of an input gate that is never the largest of its row, and whose soft weight is 0 in float32."""

SHORTEST = 2
"""The first length of training words; it doubles up to the last."""

RIGHT, PATIENCE = 0.9, 10
"""The next length comes after so many batches in a row with at least this share of right answers."""

COLLISION_WEIGHT = 1.0
"""Of the penalty on channels that several rows copy."""

RESTART = 500
"""Steps at one length after which a run begins anew, with weights of another seed."""

SEED_STRIDE = 1_000_000
"""What each new beginning adds to the seed of the weights."""

CHECK_EVERY, CHECK_WORDS, CHECK_LENGTH = 50, 64, 512
"""Steps between checks, and the words that are tested before a proof is tried."""

SETTINGS: Mapping[str, Any] = {
    "warmup": 0, "min_lr": 1e-6, "weight_decay": 0.01, "gradient_clip": 1.0, "precision": "float32", "device": "cpu",
    "capture": "off", "eval_lengths": (256,), "eval_examples": 128, "eval_every": 50, "log_every": 50,
}  # fmt: skip
"""Of the training, beside the arguments of `learn_automaton`."""

Told = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Learned:
    """What came of training on an automaton.

    model: on the CPU, in evaluation mode. Where only a copy with channels at rest was proved, it is that copy. proof:
    of this model. steps: done in all attempts together. attempts: how often training began. length: of the training
    words in the end. accuracy: the share of right answers in the last batch.
    """

    model: LanguageModel
    proof: Proof
    steps: int
    attempts: int
    length: int
    accuracy: float

    @property
    def proved(self) -> bool:
        """Whether the model equals the automaton for words of every length."""
        return self.proof.equal is True


def learn_automaton(
    automaton: Automaton,
    *,
    block_size: int | None = None,
    num_blocks: int = 16,
    dim: int = 128,
    depth: int = 1,
    steps: int = 10_000,
    batch_size: int = 128,
    length: int = 16,
    lr: float = 2e-3,
    seed: int = 0,
    max_pairs: int = 10_000,
    told: Told = lambda step, numbers: None,
) -> Learned:
    """Train hard BD-LRUs on random words of an automaton until `statemix.analysis.prove` finds them equal to it.

    The model is a LanguageModel without SwiGLUs; its sequences start from a learned state. Words have 2 letters at
    first and twice as many after 10 batches in a row with 90 % right answers, up to `length`. Channels that several
    rows copy are penalised (`collision_penalty`). Where all symbols permute the states, input gates start closed, so
    that blocks do nothing but copy; else they are open. 500 steps at one length end an attempt, and the next has other
    weights. AdamW, with a cosine over `steps`. The same arguments give the same weights on one machine's CPU.

    Args:
        automaton: At most `max_pairs` states.
        block_size: m. None: the least with which hard blocks can follow a group (`smallest_block(...).enough`); for
            what is no group its number of states, at most 4, or what its groups need if that is more.
        num_blocks: N.
        dim: Width of the model.
        depth: Layers.
        steps: The most optimiser steps of all attempts together.
        batch_size: Words of a batch at the last length. Shorter words are more, so that a batch keeps its letters.
        length: The last length of training words.
        lr: The learning rate at the first step.
        seed: Of the weights and words.
        max_pairs: The most pairs of states that a proof enumerates.
        told: Called every 50 steps with the step, and the numbers "loss", "accuracy", "letters" and "attempts".

    Returns:
        The model and its proof, whether it is proved or the steps are over.

    Raises:
        ValueError: An argument is out of range, the automaton has too many states or no answers, or `block_size` is
            None and `smallest_block` does not know.

    Example:
        >>> from statemix.tasks import Automaton
        >>> parity = Automaton([[0, 1], [1, 0]])
        >>> learn_automaton(parity, num_blocks=2, dim=16, lr=0.01).proved
        True
    """
    training = training_config(steps=steps, batch_size=batch_size, length=length, lr=lr, seed=seed)
    check_automaton(automaton, max_pairs)
    mixer = mixer_arguments(automaton, block_size, num_blocks)
    learner = Learner(automaton, mixer, ModelConfig(dim=dim, depth=depth, mlp=False), training)
    accuracy = 0.0
    for step in range(steps):
        accuracy = learner.step(step)
        if (step + 1) % CHECK_EVERY and step + 1 < steps:
            continue
        told(step + 1, learner.numbers())
        if accuracy == 1.0 and (proof := learner.prove(max_pairs)) is not None:
            break
        learner.restart_if_stuck(step + 1)
    else:
        proof = prove(learner.model, automaton, max_pairs=max_pairs)
    model: Any = proof.model if proof.equal else learner.model
    return Learned(model.eval(), proof, step + 1, learner.attempts, learner.length, accuracy)


def training_config(*, steps: int, batch_size: int, length: int, lr: float, seed: int) -> TrainingConfig:
    """The settings of `learn_automaton`, checked; its lengths are the `train_lengths`."""
    if type(length) is not int or length < 1:
        raise ValueError(f"length: got {length!r}, expected an integer of at least 1")
    lengths = [SHORTEST << k for k in range(length.bit_length()) if SHORTEST << k < length]
    return TrainingConfig(
        steps=steps, batch_size=batch_size, lr=lr, seed=seed, train_lengths=(*lengths, length), **SETTINGS
    )


def check_automaton(automaton: Automaton, max_pairs: int) -> None:
    """ValueError for an automaton that no proof of so many pairs can be about."""
    if max_pairs < 1:
        raise ValueError(f"max_pairs: got {max_pairs}, expected at least 1")
    if (states := len(automaton.table)) > max_pairs:
        raise ValueError(
            f"automaton: got {states} states, expected at most max_pairs = {max_pairs}, which a proof enumerates"
        )
    if not live_states(automaton)[automaton.start]:
        raise ValueError("automaton: got no state with an answer, expected one that words lead to")


def mixer_arguments(
    automaton: Automaton, block_size: int | None = None, num_blocks: int = 16
) -> dict[str, Any]:
    """The arguments of the BD-LRUs that `learn_automaton` trains, but for `dim`."""
    return {
        "block_size": _block_size(automaton) if block_size is None else block_size, "num_blocks": num_blocks,
        "hard": True, "learned_initial_state": True, "gate_bias": CLOSED if automaton.is_group else 0.0,
    }  # fmt: skip


def _block_size(automaton: Automaton) -> int:
    try:
        needed, enough = smallest_block(automaton)
    except ValueError as error:
        raise ValueError(
            f"block_size: got None, expected a number, since the rule for m fails ({error})"
        ) from None
    return enough if automaton.is_group else max(needed, min(len(automaton.table), 4))


class Learner:
    """The state of training between steps: the model of this attempt and its optimiser, the length and its streak."""

    def __init__(
        self, automaton: Automaton, mixer: Mapping[str, Any], model: ModelConfig, training: TrainingConfig
    ) -> None:
        self.automaton, self.mixer, self.config, self.training = automaton, mixer, model, training
        self.symbols = torch.arange(automaton.table.shape[1])[None]
        self.generator = torch.Generator().manual_seed(training.seed)
        self.attempts, self.totals = 0, torch.zeros(3, dtype=torch.float64)
        self.begin(0)

    @property
    def length(self) -> int:
        """Of the present training words."""
        return self.training.train_lengths[self.stage]

    def begin(self, step: int) -> None:
        """Weights of another seed, and the first length."""
        config, seed = self.config, self.training.seed + SEED_STRIDE * self.attempts
        vocabulary = max(self.symbols.shape[1], int(self.automaton.outputs.max()) + 1)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.model = LanguageModel(
                vocabulary, config.dim, partial(BDLRU, **self.mixer), depth=config.depth, norm=config.norm,
                block={"mlp": config.mlp},
            )  # fmt: skip
        self.optimizer = build_optimizer(self.model, self.training)
        self.attempts, self.stage, self.streak, self.arrived = self.attempts + 1, 0, 0, step

    def step(self, step: int) -> float:
        """One step; returns the share of right answers in its batch."""
        letters = self.training.batch_size * self.training.train_lengths[-1]
        words = random_words(self.automaton, letters // self.length, self.length, generator=self.generator)
        targets = self.automaton.answers(words)
        logits, collisions = self.run(words)
        self.totals = scores(logits, targets)[1]
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
        loss = loss / (targets != IGNORED).sum().clamp(min=1) + COLLISION_WEIGHT * collisions
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.training, step)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.training.gradient_clip)
        self.optimizer.step()
        return self.climb(step)

    def run(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, T, V] for words [B, T], and the mean penalty of the layers.

        What the first layer reads depends on the symbol alone, so there it is the mean over symbols.
        """
        model, penalties = self.model, list[Tensor]()
        x = model.embedding(words)
        for k, block in enumerate(model.layers):
            read: Any = block.mixer_norm(x if k else model.embedding(self.symbols))  # type: ignore[operator]
            mixer: Any = block.mixer
            penalties.append(
                collision_penalty(normalize(mixer.raw_gates(read), mixer.normalization, hard=True))
            )
            x, _ = block(x)
        return model.head(model.norm(x)), torch.stack(penalties).mean()

    def climb(self, step: int) -> float:
        """Go on to the next length after enough good batches; returns the share of right answers of the last."""
        _, right, counted = self.totals.tolist()
        accuracy = right / counted if counted else 1.0
        self.streak = self.streak + 1 if accuracy >= RIGHT else 0
        if self.streak >= PATIENCE and self.stage + 1 < len(self.training.train_lengths):
            self.stage, self.streak, self.arrived = self.stage + 1, 0, step + 1
        return accuracy

    def numbers(self) -> dict[str, float]:
        """Where the run stands."""
        loss, right, counted = self.totals.tolist()
        return {
            "loss": loss, "accuracy": right / max(counted, 1), "letters": self.length, "attempts": self.attempts,
        }  # fmt: skip

    @torch.no_grad()
    def prove(self, max_pairs: int) -> Proof | None:
        """A proof that the model, or its copy with channels at rest, is equal to the automaton."""
        words = random_words(self.automaton, CHECK_WORDS, CHECK_LENGTH)
        answers = self.automaton.answers(words)
        wrong = self.model(words)[0].argmax(-1) != answers
        if (wrong & (answers != IGNORED)).any():
            return None
        proof = prove(self.model, self.automaton, max_pairs=max_pairs)
        if proof.proved and proof.at_rest:
            proof = prove(proof.model, self.automaton, max_pairs=max_pairs)
        return proof if proof.equal else None

    def restart_if_stuck(self, step: int) -> None:
        """Begin anew after too many steps at one length, unless the training is over."""
        if step - self.arrived >= RESTART and step < self.training.steps:
            self.begin(step)
