"""What the figures of a page draw, and of how many runs."""

from __future__ import annotations

from collections.abc import Sequence

from statemix.report.groups import Group, merge_groups

PANELS = 9
"""Configurations whose eigenvalues are drawn."""

SINGLE_RUNS = 20
"""Runs of a group that are drawn one by one; of more, their range is."""


def caption_lengths(groups: list[Group]) -> str:
    """Of the figure of test accuracy."""
    tested = [sum(bool(run.accuracy()) for run in group.runs) for group in merge_groups(groups)]
    runs = sum(len(group.runs) for group in groups)
    missing = runs - sum(tested)
    untested = f" Without a test accuracy: {missing} of {_count(runs)}." if missing else ""
    band = " Band: from the lowest to the highest." if max(tested) > 1 else ""
    return f"Test accuracy with the final weights. {_lines(groups, tested)}{band}{untested}"


def caption_curves(groups: list[Group]) -> str:
    """Of the figure of learning curves."""
    counts = [len(group.runs) for group in merge_groups(groups)]
    band = " Band: from the lowest to the highest." if max(counts) > SINGLE_RUNS else ""
    return f"Training loss and validation accuracy by step. {_lines(groups, counts)}{band}"


def caption_eigenvalues(groups: list[Group]) -> str:
    """Of the figure of eigenvalues."""
    told = (
        "Eigenvalues of the learned transitions A_t on test sequences, every layer, of one seed "
        "(the first that has weights and did not diverge). The circle has radius 1."
    )
    if len(groups) <= PANELS:
        return told
    return f"{told} Shown: the {PANELS} of {len(groups)} configurations with the highest validation accuracy."


def _lines(groups: list[Group], counts: Sequence[int]) -> str:
    """What a line stands for, given how many runs are behind each of the merged groups."""
    runs, drawn = sum(len(group.runs) for group in groups), len(counts)
    if drawn < len(groups):
        kinds = "one group" if drawn == 1 else f"{drawn} groups"
        told = f"{runs} runs: grouped by model, {len(groups)} configurations in {kinds}."
    else:
        told = f"{_count(runs)[0].upper()}{_count(runs)[1:]}."
    if max(counts) <= 1:
        return told if runs == 1 else f"{told} One run a line."
    faint = " Faint: single runs." if any(1 < count <= SINGLE_RUNS for count in counts) else ""
    return f"{told} Line: mean over n = {_range(counts)} runs.{faint}"


def _range(counts: Sequence[int]) -> str:
    some = [count for count in counts if count]
    low, high = min(some), max(some)
    return str(low) if low == high else f"{low} to {high}"


def _count(runs: int) -> str:
    return "one run" if runs == 1 else f"{runs} runs"
