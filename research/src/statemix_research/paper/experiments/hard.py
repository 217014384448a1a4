"""What hard rows cost on the four synthetic tasks, and in a small language model."""

from __future__ import annotations

from typing import Any

from statemix_research.paper.experiment import Experiment, Table
from statemix_research.paper.experiments.protocol import FULL, SEEDS, TRACKING_SEEDS, small
from statemix_research.sweeps.grid import Sweep
from statemix_research.sweeps.tasks import RECALL

_VARIANTS = ("bdlru", "half-hard-bdlru", "hard-bdlru")


def _models(*sizes: int) -> tuple[str, ...]:
    return tuple(f"{variant}-{m}" for m in sizes for variant in _VARIANTS)


def _full(tasks: tuple[str, ...], seeds: tuple[int, ...]) -> Sweep:
    """Table 1 at one size and rate; its soft runs are table 1's."""
    return Sweep(tasks, _models(4, 8), (("parameters", 100_000),), (1e-3,), seeds, settings=FULL)


_CPU: dict[str, Any] = {
    "steps": 500, "batch_size": 64, "warmup": 50, "train_examples": 20_000, "eval_examples": 512, "eval_lengths": [],
    "eval_every": 100, "log_every": 50, "checkpoint_every": 500, "stop_accuracy": 0.999, "device": "cpu",
}  # fmt: skip


def _on_cpu(task: str, **options: Any) -> Sweep:
    """Three seeds of a small task: a minute of a core or two for each run."""
    settings = {"task": options, "model": {"dim": 32}, "training": _CPU}
    return Sweep((task,), _models(4), (("parameters", 10_000),), (5e-3,), SEEDS, settings=settings)


HARD = Experiment(
    "hard",
    "What hard rows cost",
    "What do the four synthetic tasks and a small language model lose or gain with hard rows in every layer, or in the "
    "first of two?",
    presets={
        "full": (_full(RECALL, SEEDS), _full(("s5",), TRACKING_SEEDS)),
        "small": (small(("compression", "s3"), _models(3), rates=(1e-2,), seeds=(0,), depths=(2,)),),
        "cpu": (
            _on_cpu("compression", vocab_size=8, length=12),
            _on_cpu("selective_copying", vocab_size=8, copies=4, length=24),
            _on_cpu("in_context_recall", vocab_size=8, length=32),
            _on_cpu("s3"),
        ),
    },
    tables=(
        Table("Accuracy, and the language model's loss in nats a byte", ("task",), ("model",), losses="language.jsonl"),
    ),
)  # fmt: skip
