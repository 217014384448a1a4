"""Held-out losses of language models as rows that stand beside an experiment's in its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from statemix.training.files import read_json
from statemix_research.sweeps.models import MODEL_SPECS

TASK = "language model: held-out loss"
"""The label of these rows."""


def loss_row(folder: Path) -> dict[str, Any]:
    """The row of a run of `statemix lm train`, evaluated by `statemix lm eval`.

    Errors: RunError for a file that is missing or damaged, ValueError for a mixer that no model of experiments has.
    """
    config, summary, evaluation = (
        read_json(folder / f"{name}.json") for name in ("config", "summary", "evaluation")
    )
    specs = [spec for spec in MODEL_SPECS.values() if spec.mixer.items() <= config["mixer"].items()]
    if not specs:
        raise ValueError(f"{folder}: got the mixer {config['mixer']}, expected one of an experiment's models")
    spec = max(specs, key=lambda spec: len(spec.mixer))
    return {
        "task": TASK, "model": spec.label, "m": spec.m, "seed": config["training"]["seed"], "ended": summary["status"],
        **{name: evaluation[name] for name in ("loss", "standard_error", "bits_per_byte")},
        **{name: summary[name] for name in ("step", "parameters", "tokens")},
        "config": {name: config[name] for name in ("mixer", "model", "training")},
    }  # fmt: skip
