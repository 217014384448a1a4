"""Grids as data: a sweep names its axes, and every point becomes a complete, checked configuration."""

from __future__ import annotations

import functools
import inspect
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from statemix import __version__
from statemix.nn import MIXERS
from statemix.tasks import get_task
from statemix.training import Config, check, flatten, parse_override, shorten_warmup
from statemix_research.sweeps.models import Skipped, get_model_spec, sized
from statemix_research.sweeps.store import Job, key_of
from statemix_research.sweeps.tasks import get_task_spec

Labels = dict[str, Any]
"""What a cell is called by in tables: task, model, m, matched_on, size, lr, seed, …"""

NO_GATES = "–"
"""What stands for the settings of a baseline's gates."""

GATES = ("normalization", "transition_bias")
"""Settings of the gates, which a baseline has none of."""

FREE = ("lr", "seed")
"""Training settings in which the runs of one point of a grid differ."""


class Cell(NamedTuple):
    """One point of a grid: its labels, and the job that fills it. Two cells may share a job."""

    labels: Labels
    job: Job


class InvalidCell(NamedTuple):
    """A point of a grid that does not run, and why; without one that this installation cannot build the rest does."""

    labels: Labels
    reason: str
    is_skipped: bool = False


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

    def expand(self, overrides: Iterable[str] = (), *, to_run: bool = True) -> Iterator[Cell | InvalidCell]:
        """Every cell.

        Args:
            overrides: "key=value" settings for all cells, as in `statemix train`.
            to_run: Every model is built to be checked. Else one for each task, which is quicker and still finds wrong
                overrides.
        """
        parsed, seen = [parse_override(text) for text in overrides], set[str]()
        varied = [key for key in FREE if f"training.{key}" not in _given(parsed)]
        for point in self._points():
            first: Cell | None = None
            for lr, seed in itertools.product(self.rates, self.seeds):
                run = {**point, "lr": lr, "seed": seed}
                try:
                    if first is None:
                        first = cell = self._cell(run, parsed, to_run or point["task"] not in seen)
                    else:
                        cell = _at_other_rates(first, {key: run[key] for key in varied})
                except (Skipped, ValueError, TypeError) as error:
                    yield InvalidCell(_labels(run), str(error), isinstance(error, Skipped))
                else:
                    seen.add(point["task"])
                    yield cell

    def _points(self) -> Iterator[dict[str, Any]]:
        """The combinations of all axes but rates and seeds; a baseline has neither normalisation nor bias."""
        axes: dict[str, tuple[Any, ...]] = {
            "task": self.tasks, "model": self.models, "size": self.sizes,
            "normalization": self.normalizations, "transition_bias": self.transition_biases,
            "depth": self.depths, "weight_decay": self.decays,
        }  # fmt: skip
        for values in itertools.product(*axes.values()):
            point = dict(zip(axes, values, strict=True))
            usual = (self.normalizations[0], self.transition_biases[0])
            if not get_model_spec(point["model"]).is_baseline or tuple(map(point.get, GATES)) == usual:
                yield point

    def _cell(self, run: dict[str, Any], parsed: list[dict[str, Any]], checked: bool) -> Cell:
        task, spec, given = get_task_spec(run["task"]), get_model_spec(run["model"]), _given(parsed)
        content: dict[str, Any] = {
            "task": {**task.task, **self.settings.get("task", {})},
            "model": {"depth": run["depth"], **self.settings.get("model", {})},
            "training": {
                **task.training, **self.settings.get("training", {}), "lr": run["lr"], "seed": run["seed"],
                "weight_decay": run["weight_decay"], "tensorboard": "off",
            },
            "mixer": {},
        }  # fmt: skip
        for section, values in (item for one in parsed for item in one.items()):
            if section not in content or not isinstance(values, dict):
                raise ValueError(f"setting: got {section!r}, expected task.…, mixer.…, model.… or training.…")
            content[section].update(values)
        mixer = sized(spec, content["model"].get("dim", Config().model.dim), *run["size"])
        own = {f"task.{key}" for key in task.task if key != "length"} | {f"mixer.{key}" for key in mixer}
        for key in given:
            if key in own:
                raise ValueError(
                    f"setting: got {key}, which the experiment sets itself, expected another one"
                )
        if not spec.is_baseline:
            mixer |= {key: run[key] for key in GATES}
        content["mixer"] = {**mixer, **content["mixer"]}
        config = resolved(content, checked, shorten="training.warmup" not in given)
        return Cell(_labels(run, config), Job(config["name"], "train", config, self.probes))


def _given(parsed: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names of the settings that a person gave."""
    return [key for one in parsed for key in flatten(one)]


def _labels(run: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Labels:
    """The labels of a run, in the order of the columns of a table of all runs; those of a cell are its settings."""
    (matched_on, size), spec = run["size"], get_model_spec(run["model"])
    labels = {
        "task": get_task_spec(run["task"]).label, "model": spec.label, "layer": spec.layer, "m": spec.m,
        "matched_on": matched_on, "size": size, "normalization": run["normalization"],
        "transition_bias": run["transition_bias"], "depth": run["depth"], "lr": run["lr"],
        "weight_decay": run["weight_decay"], "seed": run["seed"],
    }  # fmt: skip
    if config is not None:
        told = {**config["mixer"], **config["training"], **config["model"]}
        set_here = (*GATES, "depth", *FREE, "weight_decay")
        labels |= {key: told[key] for key in set_here if key in told} | {"length": config["task"]["length"]}
    return labels | dict.fromkeys(GATES, NO_GATES) if spec.is_baseline else labels


def _at_other_rates(cell: Cell, values: Mapping[str, Any]) -> Cell:
    """A cell with other values of `FREE`, in a fraction of the time. ValueError naming the setting."""
    content = dict(cell.job.content)
    content = Config.from_dict({**content, "training": {**content["training"], **values}}).to_dict()
    content["name"] = key_of("train", content)
    labels = {**cell.labels, **{key: content["training"][key] for key in FREE}}
    return Cell(labels, cell.job._replace(key=content["name"], content=content))


def resolved(content: Mapping[str, Any], checked: bool = True, *, shorten: bool = False) -> dict[str, Any]:
    """A complete configuration, every option of the task and the mixer spelt out, named by its hash.

    checked: the model is built to be checked. shorten: the warm-up is cut to the steps. Errors: ValueError naming the
    setting, as `resolve_config`.
    """
    config = Config.from_dict({**content, "version": __version__})
    config = shorten_warmup(config) if shorten else config
    plain = config.to_dict()
    if checked:
        check(config)
    plain["task"] = {**_task_options(json.dumps(plain["task"])), "name": plain["task"]["name"]}
    defaults = _mixer_defaults(plain["mixer"]["name"])
    for key, value in plain["mixer"].items():
        if isinstance(defaults.get(key), float) and type(value) is int:
            plain["mixer"][key] = float(value)  # 0 and 0.0 make no two runs
    plain["mixer"] = {**defaults, **plain["mixer"]}
    return {**plain, "name": key_of("train", plain)}


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
    told = {key: value for key, value in labels.items() if value is not None}
    parts = [str(told[key]) for key in ("task", "panel", "model") if key in told]
    if "matched_on" in told:
        parts.append(f"{told['matched_on']} {told['size']}")
    if told.get("normalization", "softmax") not in ("softmax", NO_GATES):
        parts.append(told["normalization"])
    if told.get("transition_bias", 0.0) not in (0.0, NO_GATES):
        parts.append(f"transition bias {told['transition_bias']}")
    return ", ".join(
        parts + [f"{key} {told[key]}" for key in ("depth", "length", "lr", "seed") if key in told]
    )
