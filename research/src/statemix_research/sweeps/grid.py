"""Grids as data: a sweep names its axes, and every point becomes a complete, checked configuration."""

from __future__ import annotations

import functools
import inspect
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from statemix import __version__
from statemix.nn import MIXERS
from statemix.tasks import get_task
from statemix.training import Config, check, parse_override, shorten_warmup
from statemix_research.sweeps.models import ModelSpec, ShapesOnly, Skipped, get_model_spec, sized
from statemix_research.sweeps.store import Job, Keys, key_of
from statemix_research.sweeps.tasks import get_task_spec

Labels = dict[str, Any]
"""What a cell is called by in tables: task, model, m, matched_on, size, lr, seed, …"""

NO_GATES = "–"
"""The normalisation of a baseline."""

FREE = ("lr", "seed")
"""Training settings in which the runs of one point of a grid differ."""


class Cell(NamedTuple):
    """One point of a grid: its labels, and the job that fills it. Two cells may share a job."""

    labels: Labels
    job: Job


class InvalidCell(NamedTuple):
    """A point of a grid that does not run, and why."""

    labels: Labels
    reason: str


class Expansion(NamedTuple):
    """A whole grid: what runs, what this installation cannot build, and what is impossible."""

    cells: list[Cell]
    skipped: list[InvalidCell]
    invalid: list[InvalidCell]


@dataclass(frozen=True)
class Sweep:
    """The axes of a grid of trainings; a cell for every combination.

    Attributes:
        tasks: Names in `TASK_SPECS`.
        models: Names in `MODEL_SPECS`.
        sizes: Pairs such as ("parameters", 100_000) or ("state", 128), both of one mixer, or ("width", 64): blocks,
            channels, or hidden size.
        settings: Nested configuration for all cells, over what a task brings of its own.
        probes: What is measured on every trained model: names in `probes.PROBES`.
    """

    tasks: tuple[str, ...]
    models: tuple[str, ...]
    sizes: tuple[tuple[str, int], ...] = (("state", 128),)
    rates: tuple[float, ...] = (1e-4, 5e-4, 1e-3)
    seeds: tuple[int, ...] = (0, 1, 2)
    decays: tuple[float, ...] = (0.0,)
    normalizations: tuple[str, ...] = ("softmax",)
    transition_biases: tuple[float, ...] = (0.0,)
    depths: tuple[int, ...] = (2,)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    probes: tuple[str, ...] = ()

    def expand(self, overrides: Iterable[str] = (), *, to_run: bool = True) -> Expansion:
        """Every cell.

        Args:
            overrides: "key=value" settings for all cells, as in `statemix train`.
            to_run: Every model is built to be checked. Else one for each task, which is quicker and still finds wrong
                overrides.
        """
        parsed = [parse_override(text) for text in overrides]
        cells: dict[tuple[Any, ...], Cell] = {}
        skipped, invalid, seen = list[InvalidCell](), list[InvalidCell](), set[str]()
        for point in self._points():
            checked = to_run or point["task"] not in seen
            try:
                for cell in self._runs(point, parsed, checked, invalid):
                    cells.setdefault((cell.job.key, *cell.labels.values()), cell)
                    seen.add(point["task"])
            except Skipped as error:
                skipped += [InvalidCell(_shown(run), str(error)) for run in self._seeded(point)]
        return Expansion(list(cells.values()), skipped, invalid)

    def _points(self) -> Iterator[dict[str, Any]]:
        """The combinations of all axes but rates and seeds; a baseline has neither normalisation nor bias."""
        axes: dict[str, tuple[Any, ...]] = {
            "task": self.tasks, "model": self.models, "size": self.sizes,
            "normalization": self.normalizations, "transition_bias": self.transition_biases,
            "depth": self.depths, "weight_decay": self.decays,
        }  # fmt: skip
        for values in itertools.product(*axes.values()):
            point = dict(zip(axes, values, strict=True))
            is_first = (point["normalization"], point["transition_bias"]) == (
                self.normalizations[0],
                self.transition_biases[0],
            )
            if is_first or not get_model_spec(point["model"]).is_baseline:
                yield point

    def _seeded(self, point: dict[str, Any]) -> list[dict[str, Any]]:
        """A point at every rate and seed."""
        return [{**point, "lr": lr, "seed": seed} for lr, seed in itertools.product(self.rates, self.seeds)]

    def _runs(
        self, point: dict[str, Any], parsed: list[dict[str, Any]], checked: bool, invalid: list[InvalidCell]
    ) -> Iterator[Cell]:
        """The cells of a point; the impossible ones are added to `invalid`. Errors: Skipped."""
        fixed = {key for one in parsed for key in one.get("training", {})}
        vary: Callable[[Mapping[str, Any]], Cell] | None = None
        for run in self._seeded(point):
            try:
                if vary is not None:
                    yield vary({key: run[key] for key in FREE if key not in fixed})
                else:
                    cell = self._cell(run, parsed, checked)
                    vary = _at_other_rates(cell)
                    yield cell
            except (ValueError, TypeError) as error:
                invalid.append(InvalidCell(_shown(run), str(error)))

    def _cell(self, point: dict[str, Any], parsed: list[dict[str, Any]], checked: bool) -> Cell:
        task, spec = get_task_spec(point["task"]), get_model_spec(point["model"])
        content: dict[str, Any] = {
            "task": {**task.task, **self.settings.get("task", {})},
            "model": {"depth": point["depth"], **self.settings.get("model", {})},
            "training": {
                **task.training, **self.settings.get("training", {}), "lr": point["lr"], "seed": point["seed"],
                "weight_decay": point["weight_decay"], "tensorboard": "off",
            },
            "mixer": {},
        }  # fmt: skip
        _override(content, parsed)
        matched_on, size = point["size"]
        mixer = sized(spec, content["model"].get("dim", Config().model.dim), matched_on, size)
        own = {f"task.{key}" for key in task.task if key != "length"} | {f"mixer.{key}" for key in mixer}
        for key in (
            f"{section}.{key}" for one in parsed for section, values in one.items() for key in values
        ):
            if key in own or key == "mixer.name":
                raise ValueError(
                    f"setting: got {key}, which the experiment sets itself, expected another one"
                )
        if not spec.is_baseline:
            mixer |= {key: point[key] for key in ("normalization", "transition_bias")}
        content["mixer"] = {**mixer, **content["mixer"]}
        warmup_given = any("warmup" in one.get("training", ()) for one in parsed)
        config = resolved(content, checked, shorten=not warmup_given)
        return Cell(self._labels(point, spec, config), Job(config["name"], "train", config, self.probes))

    def _labels(self, point: dict[str, Any], spec: ModelSpec, config: dict[str, Any]) -> Labels:
        """In the order of the columns of a table of all runs."""
        (matched_on, size), training, mixer = point["size"], config["training"], config["mixer"]
        return {
            "task": get_task_spec(point["task"]).label, "model": spec.label, "layer": spec.layer, "m": spec.m,
            "matched_on": matched_on, "size": size,
            "normalization": NO_GATES if spec.is_baseline else mixer["normalization"],
            "transition_bias": NO_GATES if spec.is_baseline else mixer["transition_bias"],
            "depth": config["model"]["depth"],
            "lr": training["lr"], "weight_decay": training["weight_decay"], "seed": training["seed"],
            "length": config["task"]["length"],
        }  # fmt: skip


def _override(content: dict[str, Any], parsed: Iterable[Mapping[str, Any]]) -> None:
    for one in parsed:
        for section, values in one.items():
            if section not in content or not isinstance(values, dict):
                raise ValueError(f"setting: got {section!r}, expected task.…, mixer.…, model.… or training.…")
            content[section].update(values)


def _shown(point: dict[str, Any]) -> Labels:
    """The labels of a point that has no cell."""
    (matched_on, size), spec = point["size"], get_model_spec(point["model"])
    labels = {**point, "task": get_task_spec(point["task"]).label, "model": spec.label}
    labels |= {"matched_on": matched_on, "size": size}
    if spec.is_baseline:
        labels |= {"normalization": NO_GATES, "transition_bias": NO_GATES}
    return labels


def _at_other_rates(cell: Cell) -> Callable[[Mapping[str, Any]], Cell]:
    """What makes, from one cell of a point, those with other values of `FREE`, in a tenth of the time."""
    config = cell.job.content
    keys = Keys("train", config, [f"training.{key}" for key in FREE])

    def vary(values: Mapping[str, Any]) -> Cell:
        free = _checked_free(*(values.get(key, config["training"][key]) for key in FREE))
        key = keys.key(free.values())
        content = {**config, "name": key, "training": {**config["training"], **free}}
        return Cell({**cell.labels, **free}, cell.job._replace(key=key, content=content))

    return vary


@functools.lru_cache(maxsize=10_000)
def _checked_free(*values: Any) -> dict[str, Any]:
    """Values of `FREE`, checked and of the right types. ValueError naming the setting."""
    training = Config.from_dict({"training": dict(zip(FREE, values, strict=True))}).training
    return {key: getattr(training, key) for key in FREE}


def resolved(content: Mapping[str, Any], checked: bool = True, *, shorten: bool = False) -> dict[str, Any]:
    """A complete configuration, every option of the task and the mixer spelt out, named by its hash.

    checked: the model is built to be checked. shorten: the warm-up is cut to the steps. Errors: ValueError naming the
    setting, as `resolve_config`.
    """
    config = Config.from_dict({**content, "version": __version__})
    config = shorten_warmup(config) if shorten else config
    plain = config.to_dict()
    if checked:
        training = {key: value for key, value in plain["training"].items() if key not in FREE}
        _check_once(json.dumps({**plain, "training": training}, sort_keys=True))
    plain["task"] = {**_task_options(json.dumps(plain["task"])), "name": plain["task"]["name"]}
    defaults = _mixer_defaults(plain["mixer"]["name"])
    given = {key: _as_default(value, defaults.get(key)) for key, value in plain["mixer"].items()}
    plain["mixer"] = {**defaults, **given}
    return {**plain, "name": key_of("train", plain)}


def _as_default(value: Any, default: Any) -> Any:
    """A whole number as a float where the default is one: 0 and 0.0 make no two runs."""
    return float(value) if isinstance(default, float) and type(value) is int else value


@functools.lru_cache(maxsize=100_000)
def _check_once(content: str) -> None:
    """`check`, once for all learning rates and seeds of a cell."""
    with ShapesOnly():
        check(Config.from_dict(json.loads(content)))


@functools.lru_cache(maxsize=10_000)
def _task_options(task: str) -> Mapping[str, Any]:
    return get_task(**json.loads(task)).options


@functools.cache
def _mixer_defaults(mixer: str) -> Mapping[str, Any]:
    """The defaults of a mixer's constructor."""
    return {
        p.name: p.default for p in inspect.signature(MIXERS[mixer]).parameters.values()
        if p.name not in ("dim", "device", "dtype", "backend") and isinstance(p.default, (bool, int, float, str))
    }  # fmt: skip


def describe(labels: Labels) -> str:
    """ "S3, BD-LRU m = 3, state 128, lr 0.001, seed 0": a cell in a line."""
    parts = [str(labels[key]) for key in ("task", "panel", "model") if labels.get(key) is not None]
    if "matched_on" in labels:
        parts.append(f"{labels['matched_on']} {labels['size']}")
    if labels.get("normalization", "softmax") not in ("softmax", NO_GATES):
        parts.append(labels["normalization"])
    if labels.get("transition_bias", 0.0) not in (0.0, NO_GATES):
        parts.append(f"transition bias {labels['transition_bias']}")
    named = ("depth", "length", "lr", "seed")
    return ", ".join(parts + [f"{key} {labels[key]}" for key in named if labels.get(key) is not None])
