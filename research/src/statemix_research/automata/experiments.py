"""Lists of runs, written down before they start: which words, which recipes, how many seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from statemix_research.automata.recipes import REMEDIES, get_recipe
from statemix_research.automata.training import train_population
from statemix_research.automata.words import Words, group_words


@dataclass(frozen=True)
class Group:
    """The words of a group: its task in `statemix.tasks`, and how many random elements are letters (0: all)."""

    name: str
    n: int
    generators: int = 0

    def words(self) -> Words:
        """The words. The random letters are the same for every run."""
        if not self.generators:
            return group_words(self.name, self.n)
        order = group_words(self.name, self.n).vocab_size
        drawn = torch.randperm(order, generator=torch.Generator().manual_seed(self.generators))
        return group_words(self.name, self.n, drawn[: self.generators].sort().values)


@dataclass(frozen=True)
class Experiment:
    """Populations to train, one for each of `remedies`: names of `REMEDIES` that are applied together."""

    summary: str
    words: Group
    seeds: int
    remedies: Sequence[tuple[str, ...]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    """Expected on one H200."""


S4_SMALL = {"dim": 32, "num_blocks": 8, "block_size": 4, "lr": 4e-3, "batch_size": 64, "steps": 500, "mlp": False}

EXPERIMENTS: Mapping[str, Experiment] = {
    "screen_s4": Experiment(
        "every remedy alone where most runs stall: S4 with eight blocks", Group("permutation", 4), 12,
        [(name,) for name in REMEDIES if name not in ("no_mlp", "restarts", "more_blocks", "fewer_blocks")], S4_SMALL,
    ),
}  # fmt: skip
"""Every list by name."""


def run_experiment(
    name: str,
    out: Path,
    *,
    device: torch.device | str = "cpu",
    only: Sequence[str] = (),
    told: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Train an experiment's populations that `out`, a file of JSON lines, does not hold yet; every run adds a line.

    only: labels of the populations to train; all if empty. ValueError for an unknown name.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"experiment: got {name!r}, expected one of {', '.join(EXPERIMENTS)}")
    experiment, rows = EXPERIMENTS[name], list[dict[str, Any]]()
    known = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    done = {(row["experiment"], row["remedies"]) for row in known}
    for remedies in experiment.remedies:
        label = " + ".join(remedies)
        if (name, label) in done or (only and label not in only):
            continue
        recipe = get_recipe(*remedies, **{**experiment.settings, **_changed(remedies)})
        _, found = train_population(
            recipe, experiment.words.words(), range(experiment.seeds), device=device,
            told=lambda line, label=label: told(f"{label}: {line}"),
        )  # fmt: skip
        found = [{"experiment": name, "remedies": label, "device": str(device), **row} for row in found]
        with out.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in found)
        rows += found
    return rows


def _changed(remedies: Sequence[str]) -> dict[str, Any]:
    """What the remedies set, which goes before an experiment's settings."""
    return {key: value for name in remedies for key, value in REMEDIES[name].items()}
