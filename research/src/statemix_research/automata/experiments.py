"""Lists of runs, written down before they start: which words, which recipes, how many seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from statemix_research.automata.evaluation import Check
from statemix_research.automata.recipes import REMEDIES, get_recipe
from statemix_research.automata.training import Row, train_population
from statemix_research.automata.words import LANGUAGES, Pool, Source, group_words, hold_out

MILLION = 1 << 20


@dataclass(frozen=True)
class Experiment:
    """Populations to train: one for each of `remedies`, names of `REMEDIES` that are applied together.

    words: a function to the words. at_once: seeds of a population (0: all). lengths: (length, words) to test at.
    """

    summary: str
    words: Callable[[], Source]
    seeds: int
    remedies: Sequence[tuple[str, ...]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[], Check] = Check
    lengths: Sequence[tuple[int, int]] = ()
    at_once: int = 0
    seconds: float = 0.0
    """Expected on one H200."""


def _group(name: str, n: int, generators: int = 0, pool: int = 0, length: int = 128) -> Callable[[], Source]:
    """Words of a group. generators: of so many random elements, the same for every run (0: of all). pool: from so many
    words of a length (0: fresh ones)."""

    def words() -> Source:
        every = group_words(name, n)
        if generators:
            drawn = torch.randperm(every.vocab_size, generator=torch.Generator().manual_seed(generators))
            every = group_words(name, n, drawn[:generators].sort().values)
        if not pool:
            return every
        return Pool(every, *every.draw((pool,), length, torch.Generator().manual_seed(0)))

    return words


S4_SMALL = {
    "dim": 32, "num_blocks": 8, "block_size": 4, "lr": 4e-3, "batch_size": 64, "steps": 500, "mlp": False,
}  # fmt: skip
ALONE = (
    "base", "balance", "sinkhorn", "identity", "permutation", "soft_backward", "sharp_backward", "annealed",
    "larger_blocks", "no_input", "half_input", "slow_gates", "fast_gates", "no_decay", "doubled", "doubled_when_exact",
    "large_batch", "small_batch", "momentum",
)  # fmt: skip
"""Remedies that are tried alone in `S4_SMALL`."""

BEST = ("no_mlp", "no_input", "short_words", "balance_1", "retries")
"""What lists without a choice of remedies are trained with."""


def _best(words: str) -> tuple[str, ...]:
    """`BEST` with another ladder of lengths."""
    return tuple(words if one == "short_words" else one for one in BEST)


GROUP_SIZES = {"dim": 128, "num_blocks": 16, "lr": 2e-3}
"""Of the models that learn a group's words."""

GROUPS = {
    "s3": ("permutation", 3, 3),
    "s4": ("permutation", 4, 4),
    "a5": ("alternating", 5, 5),
    "s5": ("permutation", 5, 5),
}
"""The groups of the tables: task, n and block size."""

LANGUAGE_RECIPE = {
    "depth": 2, "dim": 128, "num_blocks": 24, "block_size": 5, "length": 40, "batch_size": 256, "steps": 100_000,
    "lr": 2e-3, "min_lr": 1e-5, "warmup": 10_000, "weight_decay": 0.01, "embedding_decay": False, "gradient_clip": 0.0,
    "dropout": 0.01,
}  # fmt: skip
"""Protocol A's model and optimiser."""

LANGUAGE_RECIPES = [
    ("no_mlp", "no_input", "one_layer", "words_to_40", "retries", "steps_20_000"),
    ("plain", "steps_20_000"),
    ("lstm",),
    ("lstm", "published"),
    ("lstm", "published", "dropout_0.1"),
    ("pdssm", "published"),
]
"""What is trained on each language of protocol A."""


def _language(name: str) -> Experiment:
    longer = replace(LANGUAGES[name], shortest=40)
    return Experiment(
        f"protocol A: {name}, trained to 40, tested to 256; the maximum and the last of the checks",
        lambda: LANGUAGES[name], 5, LANGUAGE_RECIPES, LANGUAGE_RECIPE,
        partial(
            Check, every=5000, length=256, count=8192, solved_from=0.9995, words=longer, fixed=True, exact=False
        ),
        ((65_536, 64),), at_once=1, seconds=240,
    )  # fmt: skip


def _at_128(label: str) -> Experiment:
    name, n, m = GROUPS[label]
    return Experiment(
        f"words of {label.upper()} trained at 128, tested to 1 048 576",
        _group(name, n), 5, [_best("short_to_128")],
        {**GROUP_SIZES, "block_size": m, "length": 128, "batch_size": 16}, partial(Check, proof=True),
        ((512, 64), (2048, 64), (MILLION, 1)), seconds=90,
    )  # fmt: skip


def _protocol_b(label: str) -> Experiment:
    name, n, m = GROUPS[label]
    settings = {
        **GROUP_SIZES, "block_size": m, "length": 128, "batch_size": 2048, "steps": 4800, "lr": 1e-3,
        "weight_decay": 1e-6, "gradient_clip": 0.0,
    }  # fmt: skip
    return Experiment(
        f"protocol B: {label.upper()}, 100 000 words of 128, tested to 512",
        _group(name, n, pool=100_000), 5,
        [_best("prefixes_to_128"), *([("plain", "no_mlp")] if label == "s5" else [])], settings,
        lengths=((128, 256), (192, 256), (256, 256), (512, 256)), at_once=1, seconds=150,
    )  # fmt: skip


def _hlru(what: str, words: Callable[[], Source], *recipes: tuple[str, ...]) -> Experiment:
    return Experiment(
        f"H-LRU with hard rows: {what}", words, 5, [("hlru", "no_mlp", *recipe) for recipe in recipes],
        {"dim": 64, "num_blocks": 32, "lr": 4e-3, "steps": 2000}, partial(Check, proof=True), ((2048, 64),), seconds=20,
    )  # fmt: skip


def _turns(n: int) -> Source:
    """Words of one letter, which generates the cyclic group of n elements."""
    return group_words("cyclic", n, torch.tensor([1]))


EXPERIMENTS: Mapping[str, Experiment] = {
    "screen_s4": Experiment(
        "every remedy alone where most runs stall: S4 with eight blocks", _group("permutation", 4), 12,
        [(name,) for name in ALONE], S4_SMALL,
    ),
    "screen_s4_blocks": Experiment(
        "the same for remedies that change what blocks do, and for some together",
        _group("permutation", 4), 12,
        [("half_one_to_one",), ("one_to_one",)], S4_SMALL,
    ),
    "screen_s4_long": Experiment(
        "what stalls in the end: four times the steps", _group("permutation", 4), 12,
        [("base",), ("doubled_when_exact",), ("larger_blocks",), ("sharp_backward",)], {**S4_SMALL, "steps": 2000},
    ),
    "screen_s4_short": Experiment(
        "short words first, alone and with what helps them", _group("permutation", 4), 36,
        [
            ("base",), ("short_words",), ("short_words", "balance_1"), ("no_input", "short_words"),
            ("no_input", "short_words", "balance_1"), ("one_to_one", "short_words"), BEST,
        ],
        {**S4_SMALL, "steps": 600},
    ),
    "s5": Experiment(
        "S5 at 16: the target, 20 of 20 seeds proved within 10 000 steps", _group("permutation", 5), 20, [BEST],
        GROUP_SIZES, partial(Check, proof=True), ((2048, 64), (65_536, 4)), at_once=5, seconds=60,
    ),
    "s5_without": Experiment(
        "S5 at 16: the same without one part of it, and without any", _group("permutation", 5), 20,
        [tuple(one for one in BEST if one != part) for part in BEST[1:]] + [("no_mlp",)],
        {**GROUP_SIZES, "steps": 3000}, partial(Check, proof=True), at_once=5, seconds=60,
    ),
    **{f"{label}_at_128": _at_128(label) for label in GROUPS},
    **{f"a_{name}": _language(name) for name in LANGUAGES},
    **{f"b_{label}": _protocol_b(label) for label in GROUPS},
    "hlru_parity": _hlru(
        "parity, signed rows of order 1, and others", partial(group_words, "cyclic", 2),
        ("signed", "order_1"), ("order_2",), ("order_4",), ("order_8",),
    ),
    **{
        f"hlru_cycle_{n}": _hlru(f"a cycle of {n}, one letter", partial(_turns, n), (f"order_{n}",))
        for n in (2, 3, 5, 7)
    },
    "hlru_cycle_5_all": _hlru(
        "a cycle of 5, all letters", partial(group_words, "cyclic", 5), ("order_5",), ("order_8",)
    ),
    "s5_held_out": Experiment(
        "S5 at 16 without a tenth of the pairs of letters, tested on all pairs",
        lambda: hold_out(group_words("permutation", 5), 0.1), 5, [BEST], GROUP_SIZES,
        lambda: Check(words=group_words("permutation", 5)), seconds=30,
    ),
    "s5_32_generators": Experiment(
        "S5 with 32 random generators, trained at 40, tested at 256", _group("permutation", 5, generators=32), 5,
        [_best("short_to_40")], {**GROUP_SIZES, "length": 40},
        lambda: Check(length=256, count=256, proof=True), ((256, 1024), (65_536, 4)), seconds=60,
    ),
}  # fmt: skip
"""Every list by name."""


def run_experiment(
    name: str,
    out: Path,
    *,
    device: torch.device | str = "cpu",
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    told: Callable[[str], None] = print,
    until: float = math.inf,
) -> list[dict[str, Any]]:
    """Train an experiment's populations that `out`, a file of JSON lines, does not hold yet; every run adds a line.

    only: labels of the populations to train ("no_mlp + balance"); all if empty. seeds: the first seeds of those to
    train; all if empty. Processes can share a list, each with seeds of its own. until: a time of `time.monotonic`
    after which `TimeIsUp` is raised; the same call then goes on where this one was, as it does after a kill.
    ValueError for an unknown name, a seed that no population begins with, or an unknown label.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"experiment: got {name!r}, expected one of {', '.join(EXPERIMENTS)}")
    experiment, rows = EXPERIMENTS[name], list[dict[str, Any]]()
    done = {(row["experiment"], row["remedies"], row["seed"]) for row in read_rows(out)}
    size = experiment.at_once or experiment.seeds
    begins, labels = range(0, experiment.seeds, size), [" + ".join(one) for one in experiment.remedies]
    for argument, given, known in (("seeds", seeds, begins), ("only", only, labels)):
        if unknown := [one for one in given if one not in known]:
            raise ValueError(f"{argument}: got {unknown}, expected some of {', '.join(map(str, known))}")
    for remedies, label in zip(experiment.remedies, labels, strict=True):
        for first in seeds or begins:
            if (name, label, first) in done or (only and label not in only):
                continue
            runs = range(first, min(first + size, experiment.seeds))
            recipe = get_recipe(*remedies, **{**experiment.settings, **_changed(remedies)})
            saved = out.with_name(f"{name}-{'-'.join(remedies)}-{first}.pt")
            _, found = train_population(
                recipe, experiment.words(), runs, device=device, check=experiment.check(), lengths=experiment.lengths,
                told=partial(_tell, told, f"{name}, {label}: "), saved=saved, until=until,
            )  # fmt: skip
            found = [{"experiment": name, "remedies": label, "device": str(device), **row} for row in found]
            with out.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in found)
            saved.unlink(missing_ok=True)
            rows += found
    return rows


def _tell(told: Callable[[str], None], before: str, line: str) -> None:
    told(before + line)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of results; none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def solved(rows: Sequence[Row]) -> str:
    """ "3 of 5" runs are solved."""
    return f"{sum(row['solved'] is not None for row in rows)} of {len(rows)}"


def proved(rows: Sequence[Row]) -> str:
    """ "3 of 5" runs are proved; a dash where none can be."""
    known = [row.get("proved") for row in rows]
    return "–" if set(known) == {None} else f"{known.count(True)} of {len(rows)}"


def _changed(remedies: Sequence[str]) -> dict[str, Any]:
    """What the remedies set, which goes before an experiment's settings."""
    return {key: value for name in remedies for key, value in REMEDIES[name].items()}
