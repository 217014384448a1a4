"""The eigenvalues that trained runs have learned, in the complex plane."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from statemix.analysis.accounting import entry_of, mixers
from statemix.analysis.spectra import TRANSITIONS, transition_eigenvalues
from statemix.report.groups import Group
from statemix.report.labels import shorten
from statemix.training import load_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEQUENCES, TOKENS = 32, 4096
"""A spectrum is taken on so many test sequences, fewer if they are so long that the tokens would be too many."""

MATRICES = 3000
"""Transitions per mixer that are drawn."""

TITLE_WIDTH = 21
"""Characters of a line of a panel's title."""


def group_eigenvalues(group: Group) -> list[torch.Tensor]:
    """The eigenvalues of every mixer of a group's first seed with weights, on test sequences; or nothing.

    A run that diverged comes last. RunError for weights that cannot be read.
    """
    trained = [run for run in group.runs if run.has_weights]
    if not trained:
        return []
    run = min(trained, key=lambda run: run.status == "diverged")
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # of a run that is not finished: the page says so itself
        _, model = load_run(run.folder)
    shown = [mixer for mixer in mixers(model) if entry_of(TRANSITIONS, mixer)]
    if not shown:
        return []
    for mixer in shown:
        mixer.backend = "reference"  # type: ignore[assignment]  # for so few tokens no kernels need be loaded
    task = run.task()
    count = max(1, min(SEQUENCES, TOKENS // task.input_length()))
    tokens = task.generate(count, seed=run.seed, split="test").inputs
    return transition_eigenvalues(model, tokens, max_matrices=MATRICES)


def draw_spectrum(axes: Axes, group: Group) -> None:
    """Eigenvalues inside the unit circle, entitled with the group's label, and a note if there are none."""
    from matplotlib.patches import Circle

    axes.add_patch(Circle((0, 0), 1, fill=False, edgecolor="#888888", linewidth=1))
    found = group_eigenvalues(group)
    if found:
        points = torch.cat([values.flatten() for values in found])
        axes.plot(points.real, points.imag, ".", color=group.color, alpha=0.12, markersize=3, rasterized=True)
    axes.set(xlim=(-1.08, 1.08), ylim=(-1.08, 1.08), aspect="equal", xlabel="Re λ", ylabel="Im λ")
    axes.set_xticks([-1, 0, 1])
    axes.set_yticks([-1, 0, 1])
    axes.set_title(shorten(group.label, TITLE_WIDTH), fontsize=9.5)
    note = _note(found, any(run.has_weights for run in group.runs))
    if note:
        axes.annotate(note, (0, 0), ha="center", va="center", color="#666666", backgroundcolor="white")


def _note(found: list[torch.Tensor], trained: bool) -> str:
    if not found:
        return "no small blocks" if trained else "no weights yet"
    return "diverged" if all(values.isnan().all() for values in found) else ""
