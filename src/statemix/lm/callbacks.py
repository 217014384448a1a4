"""What happens around the Trainer's steps: the position it begins with, metrics, evaluation, checkpoints, the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from statemix.lm.processes import rank

if TYPE_CHECKING:
    from statemix.lm.train import _Run


class Progression(TrainerCallback):
    """Carries a run through the Trainer's callbacks."""

    def __init__(self, run: _Run) -> None:
        self._run = run

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The Trainer counts on from the checkpoint's step; its loader begins there too."""
        state.global_step = self._run.start
        self._run.begin()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Dropout depends on the seed, the step and the process alone, so a resumed run draws the same."""
        torch.manual_seed(hash((self._run.training.seed, state.global_step, rank())) % 2**63)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """What is due after a step."""
        run, training = self._run, self._run.training
        run.step = state.global_step
        run.meter.end_step()
        last = run.step == training.steps
        stopped = run.stops_here()
        saves = stopped or (run.step % training.checkpoint_every == 0 and not last)
        if last or saves or run.step % training.log_every == 0 or run.step % training.eval_every == 0:
            run.log()
        if last or run.step % training.eval_every == 0:
            run.evaluate()
        if saves:
            run.save()
        run.interrupted = stopped and not last
        control.should_training_stop = last or stopped or run.diverged
