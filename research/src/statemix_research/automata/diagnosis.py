"""What solved and stalled runs look like: numbers of one run, and a picture of two beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from statemix.analysis import (
    accuracy_by_position,
    gradient_by_position,
    jump,
    ranks,
    ranks_along,
    select,
    selection_summary,
)
from statemix.models import LanguageModel
from statemix_research.automata.experiments import EXPERIMENTS
from statemix_research.automata.recipes import get_recipe
from statemix_research.automata.training import train_population
from statemix_research.automata.words import Words

WORDS, LENGTH = 64, 48
"""Words that a run is looked at on, and their length."""


def diagnose(
    model: LanguageModel, words: Words, *, count: int = WORDS, length: int = LENGTH
) -> dict[str, Any]:
    """Numbers of a model on random words: the first layer's rows and blocks, accuracy and gradient by position.

    "histogram", "copied", "taken", "permuting", "colliding": `selection_summary` over the tokens. "block_permuting"
    [N]: the share of tokens at which a block permutes its channels. "left" [T][N]: how many channels of the initial
    state a block still holds. "accuracy_by_position", "gradient_by_position" [T].
    """
    tokens, targets = words.draw((count,), length, torch.Generator().manual_seed(3))
    letters = words.letters.unsqueeze(0)
    each, along = select(model, letters)[0][0], select(model, tokens)[0]  # [V, N, m], [B, T, N, m]
    summary = selection_summary(each)
    return {
        "histogram": summary.histogram.tolist(), **{k: v for k, v in summary._asdict().items() if k != "histogram"},
        "block_permuting": (ranks(each) == each.shape[-1]).double().mean(0).tolist(),
        "left": ranks_along(along).double().mean(0).tolist(),
        "accuracy_by_position": accuracy_by_position(model, tokens, targets).tolist(),
        "gradient_by_position": gradient_by_position(model, tokens, targets)[0].tolist(),
    }  # fmt: skip


def diagnose_experiment(
    name: str, seeds: int, steps: int, remedies: Sequence[str] = ("base",)
) -> list[dict[str, Any]]:
    """Train some seeds of an experiment's words and settings; `diagnose` of each, with its row and its jump."""
    experiment = EXPERIMENTS[name]
    recipe, words = get_recipe(*remedies, **{**experiment.settings, "steps": steps}), experiment.words()
    population, rows = train_population(recipe, words, range(seeds))
    found = []
    for run, row in enumerate(rows):
        numbers = diagnose(population.tracker(run).model, words)  # type: ignore[arg-type]
        when, values = zip(*row["curve"], strict=True)
        found.append({**row, **numbers, "jump": jump(when, values)})
    return found


def draw(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """A picture of diagnosed runs, a row of panels each: blocks, accuracy, gradient, and the course of the training."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 3.1 * len(runs)), layout="constrained")
    axes = figure.subplots(len(runs), 4, squeeze=False)
    for row, run in zip(axes, runs, strict=True):
        solved = (
            f"solved at step {run['solved']}" if run["solved"] else f"stalled, {run['accuracy']:.2f} at 512"
        )
        left = torch.tensor(run["left"])
        order = left[-1].argsort(descending=True)
        shown = row[0].imshow(
            left[:, order].T.tolist(), aspect="auto", vmin=0, cmap="viridis", interpolation="nearest"
        )
        figure.colorbar(shown, ax=row[0])
        row[0].set(
            title=f"seed {run['seed']}: {solved}",
            ylabel="block",
            xlabel="channels of the first state left, by position",
        )
        row[1].plot(range(1, len(run["accuracy_by_position"]) + 1), run["accuracy_by_position"])
        row[1].set(ylim=(0, 1.03), xlabel="position", title="accuracy")
        row[2].semilogy(
            range(1, len(run["gradient_by_position"]) + 1),
            [max(g, 1e-9) for g in run["gradient_by_position"]],
        )
        row[2].set(xlabel="position", title="gradient of the last answer's error")
        row[3].plot(*zip(*run["curve"], strict=True))
        row[3].axvline(run["jump"][0], color="0.7", linestyle=":")
        row[3].set(ylim=(0, 1.03), xlabel="step", title=f"accuracy in training, jump at {run['jump'][0]}")
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "statemix"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=80)
