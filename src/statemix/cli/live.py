"""Training with something to watch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from statemix.cli.console import progress
from statemix.cli.errors import Failure, Interrupted

if TYPE_CHECKING:
    from statemix.training import Config


def train_live(config: Config, folder: Path, label: str) -> dict[str, Any]:
    """Train (or go on with) a run and return its summary.

    Interrupted if it was asked to stop and has saved; Failure if it diverged.
    """
    from statemix.training import train

    progress().say(f"training {label} in {folder}", style="dim")
    summary = train(config, folder, progress=True)
    if summary["status"] == "interrupted":
        raise Interrupted(f"saved at step {summary['step']}; the same command goes on from there")
    if summary["status"] == "diverged":
        raise Failure(f"{folder}: the loss is not finite any more at step {summary['step']}")
    return summary
