"""Grids as data: a sweep names its axes, and every point becomes a complete, checked configuration."""

from __future__ import annotations

import functools
import inspect
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from statemix.nn.registry import MIXERS
from statemix.tasks import get_task
from statemix.training import Config, check, parse_override, shorten_warmup
from statemix_research.sweeps.models import LeftOut, SizesAlone, get_model, sized
from statemix_research.sweeps.problems import get_problem
from statemix_research.sweeps.store import Job, Keys, key_of

Labels = dict[str, Any]
"""What a cell is called by in tables: task, model, m, basis, size, lr, seed, …"""

PLAIN = "–"
"""The normalisation of a mixer that has none."""


class Cell(NamedTuple):
    """One point of a grid: its labels, and the job that fills it. Two cells may share a job."""

    labels: Labels
    job: Job


class Refusal(NamedTuple):
    """A point of a grid that does not run, and why."""

    labels: Labels
    reason: str


class Expansion(NamedTuple):
    """A whole grid: what runs, what this installation cannot build, and what is impossible."""

    cells: list[Cell]
    left_out: list[Refusal]
    refused: list[Refusal]


@dataclass(frozen=True)
class Sweep:
    """The axes of a grid of trainings; a cell for every combination.

    problems, models: names in `PROBLEMS` and `MODELS`. sizes: pairs such as ("parameters", 100_000) (of one mixer),
    ("state", 128) (numbers of one mixer) or ("width", 64) (blocks, channels, hidden or state size). settings: nested
    configuration over all cells; what a problem brings of its own lies under it.
    """

    problems: tuple[str, ...]
    models: tuple[str, ...]
    sizes: tuple[tuple[str, int], ...] = (("state", 128),)
    rates: tuple[float, ...] = (1e-4, 5e-4, 1e-3)
    seeds: tuple[int, ...] = (0, 1, 2)
    decays: tuple[float, ...] = (0.0,)
    normalizations: tuple[str, ...] = ("softmax",)
    transition_biases: tuple[float, ...] = (0.0,)
    depths: tuple[int, ...] = (2,)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    measures: tuple[str, ...] = ()
    """What is measured on every trained model: names in `measures.MEASURES`."""

    def expand(self, overrides: Iterable[str] = (), *, to_run: bool = True) -> Expansion:
        """Every cell. `overrides`: "key=value" settings for all of them, as in `statemix train`.

        to_run: every model is built to be checked. Else one for each problem, which takes a fraction of the time and
        tells what is wrong with the overrides.
        """
        over = [parse_override(text) for text in overrides]
        cells: dict[tuple[Any, ...], Cell] = {}
        left_out, refused, seen = list[Refusal](), list[Refusal](), set[str]()
        for point in self._points():
            to_check = to_run or point["problem"] not in seen
            try:
                for cell in self._runs(point, over, to_check, refused):
                    cells.setdefault((cell.job.key, *cell.labels.values()), cell)
                    seen.add(point["problem"])
            except LeftOut as error:
                left_out += [Refusal(_shown(run), str(error)) for run in self._seeded(point)]
        return Expansion(list(cells.values()), left_out, refused)

    def _points(self) -> Iterator[dict[str, Any]]:
        """The combinations of all axes but rates and seeds."""
        axes: dict[str, tuple[Any, ...]] = {
            "problem": self.problems, "model": self.models, "size": self.sizes,
            "normalization": self.normalizations, "transition_bias": self.transition_biases,
            "depth": self.depths, "weight_decay": self.decays,
        }  # fmt: skip
        for values in itertools.product(*axes.values()):
            point = dict(zip(axes, values, strict=True))
            first = (point["normalization"], point["transition_bias"])
            if get_model(point["model"]).ours or first == (self.normalizations[0], self.transition_biases[0]):
                yield point

    def _seeded(self, point: dict[str, Any]) -> list[dict[str, Any]]:
        """A point at every rate and seed."""
        return [{**point, "lr": lr, "seed": seed} for lr, seed in itertools.product(self.rates, self.seeds)]

    def _runs(
        self, point: dict[str, Any], over: list[dict[str, Any]], to_check: bool, refused: list[Refusal]
    ) -> Iterator[Cell]:
        """The cells of a point; those that are impossible are added to `refused`. LeftOut if there are none here."""
        fixed = {key for one in over for key in one.get("training", {})}
        another: Callable[[Mapping[str, Any]], Cell] | None = None
        for run in self._seeded(point):
            try:
                if another is not None:
                    yield another({key: run[key] for key in FREE if key not in fixed})
                else:
                    cell = self._cell(run, over, to_check)
                    another = _at_other_rates(cell)
                    yield cell
            except (ValueError, TypeError) as error:
                refused.append(Refusal(_shown(run), str(error)))

    def _cell(self, point: dict[str, Any], over: list[dict[str, Any]], to_check: bool) -> Cell:
        problem, model = get_problem(point["problem"]), get_model(point["model"])
        content: dict[str, Any] = {
            "task": {**problem.task, **self.settings.get("task", {})},
            "model": {"depth": point["depth"], **self.settings.get("model", {})},
            "training": {
                **problem.training, **self.settings.get("training", {}), "lr": point["lr"], "seed": point["seed"],
                "weight_decay": point["weight_decay"], "tensorboard": "off",
            },
        }  # fmt: skip
        asked: dict[str, Any] = {}
        for one in over:
            for section, values in one.items():
                if section not in ("task", "model", "training", "mixer") or not isinstance(values, dict):
                    raise ValueError(
                        f"setting: got {section!r}, expected task.…, mixer.…, model.… or training.…"
                    )
                (asked if section == "mixer" else content[section]).update(values)
        basis, size = point["size"]
        dim = content["model"].get("dim", Config().model.dim)
        mixer = sized(model, dim, basis, size)
        of_labels = {f"task.{key}" for key in problem.task if key != "length"} | {
            f"mixer.{key}" for key in mixer
        }
        for key in (f"{section}.{key}" for one in over for section, values in one.items() for key in values):
            if key in of_labels or key == "mixer.name":
                raise ValueError(
                    f"setting: got {key}, which the experiment sets itself, expected other settings"
                )
        if model.ours:
            mixer |= {key: point[key] for key in ("normalization", "transition_bias")}
        warmup_given = any("warmup" in one.get("training", ()) for one in over)
        config = resolved(content | {"mixer": {**mixer, **asked}}, to_check, shorten=not warmup_given)
        training = config["training"]
        labels: Labels = {
            "task": problem.label, "model": model.label, "layer": model.layer, "m": model.m,
            "basis": basis, "size": size,
            "normalization": config["mixer"]["normalization"] if model.ours else PLAIN,
            "transition_bias": config["mixer"]["transition_bias"] if model.ours else PLAIN,
            "depth": config["model"]["depth"],
            "lr": training["lr"], "weight_decay": training["weight_decay"], "seed": training["seed"],
            "length": config["task"]["length"],
        }  # fmt: skip
        return Cell(labels, Job(config["name"], "train", config, self.measures))


def _shown(point: dict[str, Any]) -> Labels:
    basis, size = point["size"]
    model = get_model(point["model"])
    rest = {key: value for key, value in point.items() if key not in ("problem", "model", "size")}
    if not model.ours:
        rest |= {"normalization": PLAIN, "transition_bias": PLAIN}
    return {
        "task": get_problem(point["problem"]).label,
        "model": model.label,
        "basis": basis,
        "size": size,
        **rest,
    }


FREE = ("lr", "seed")
"""Settings of the training that differ between the runs of a point, and nothing else does."""


def _at_other_rates(cell: Cell) -> Callable[[Mapping[str, Any]], Cell]:
    """What makes, of one cell of a point, those with other values of `FREE`: a tenth of the work of the first."""
    config = cell.job.content
    keys = Keys("train", config, [f"training.{key}" for key in FREE])

    def another(values: Mapping[str, Any]) -> Cell:
        free = _free_checked(*(values.get(key, config["training"][key]) for key in FREE))
        key = keys.key(free.values())
        content = {**config, "name": key, "training": {**config["training"], **free}}
        return Cell({**cell.labels, **free}, Job(key, cell.job.kind, content, cell.job.measures))

    return another


@functools.lru_cache(maxsize=10_000)
def _free_checked(*values: Any) -> dict[str, Any]:
    """Values of `FREE`, checked and of the right types. ValueError naming the setting."""
    given = dict(zip(FREE, values, strict=True))
    training = Config.from_dict({"training": given}).training
    return {key: getattr(training, key) for key in FREE}


def resolved(content: Mapping[str, Any], to_check: bool = True, *, shorten: bool = False) -> dict[str, Any]:
    """A complete configuration, every option of the task and the mixer spelt out, named by its hash; the model is built
    to be checked if that is asked for.

    shorten: the warm-up is cut to the steps.
    Errors: ValueError naming the setting, as `resolve_config`.
    """
    from statemix import __version__

    config = Config.from_dict({**content, "version": __version__})
    config = shorten_warmup(config) if shorten else config
    plain = config.to_dict()
    if to_check:
        _checked(json.dumps(_without(plain, *FREE), sort_keys=True))
    plain["task"] = {**_options(json.dumps(plain["task"])), "name": plain["task"]["name"]}
    defaults = _defaults(plain["mixer"]["name"])
    plain["mixer"] = {
        **defaults,
        **{key: _alike(value, defaults.get(key)) for key, value in plain["mixer"].items()},
    }
    return {**plain, "name": key_of("train", plain)}


def _without(content: dict[str, Any], *settings: str) -> dict[str, Any]:
    kept = {key: value for key, value in content["training"].items() if key not in settings}
    return {**content, "training": kept}


def _alike(value: Any, default: Any) -> Any:
    """A whole number as a float where that is meant: 0 and 0.0 make no two runs."""
    return float(value) if isinstance(default, float) and type(value) is int else value


@functools.lru_cache(maxsize=100_000)
def _checked(content: str) -> None:
    """`check`, once for all learning rates and seeds of a cell."""
    with SizesAlone():
        check(Config.from_dict(json.loads(content)))


@functools.lru_cache(maxsize=10_000)
def _options(task: str) -> Mapping[str, Any]:
    return get_task(**json.loads(task)).options


@functools.cache
def _defaults(mixer: str) -> Mapping[str, Any]:
    """The defaults of a mixer's constructor."""
    return {
        p.name: p.default for p in inspect.signature(MIXERS[mixer]).parameters.values()
        if p.name not in ("dim", "device", "dtype", "backend") and isinstance(p.default, (bool, int, float, str))
    }  # fmt: skip


def describe(labels: Labels) -> str:
    """ "S3, BD-LRU m = 3, state 128, lr 0.001, seed 0": a cell in a line."""
    parts = [str(labels[key]) for key in ("task", "panel", "model") if labels.get(key) is not None]
    if "basis" in labels:
        parts.append(f"{labels['basis']} {labels['size']}")
    if labels.get("normalization", "softmax") not in ("softmax", PLAIN):
        parts.append(labels["normalization"])
    if labels.get("transition_bias", 0.0) not in (0.0, PLAIN):
        parts.append(f"transition bias {labels['transition_bias']}")
    parts += [
        f"{key} {labels[key]}" for key in ("depth", "length", "lr", "seed") if labels.get(key) is not None
    ]
    return ", ".join(parts)
