"""What configurations are called on a page: as short as tells them apart, and harmless wherever it is printed."""

from __future__ import annotations

import json
import math
import textwrap
from typing import Any

from statemix.text import visible
from statemix.training import flatten

SIZES = {"bdlru": ("block_size", "num_blocks"), "hlru": ("order", "num_channels")}
"""Which arguments of a mixer are m and N."""

TITLES = {"bdlru": "BD-LRU", "hlru": "H-LRU"}

IGNORED = ("name", "version", "training.seed", "training.device")
"""What does not make two configurations different."""

DIGITS = 3
"""Significant digits of a number in a label, unless it takes more to tell it from the others."""

LINES = 3
"""Lines of a label in a figure."""


def shorten(label: str, width: int) -> str:
    """A label as lines of at most `width` characters for a figure; what is beyond `LINES` lines is cut."""
    lines = textwrap.wrap(label, width, max_lines=LINES, placeholder=" …")
    return "\n".join(lines) or label[:width]


def mixer_label(mixer: dict[str, Any]) -> str:
    """ "BD-LRU m = 3", "H-LRU m = 4", "diagonal (m = 1)", or the mixer's own name."""
    name = mixer["name"]
    if name not in SIZES:
        return visible(name)
    m = mixer.get(SIZES[name][0])
    if m == 1:
        return "diagonal (m = 1)"
    return f"{TITLES[name]} m = {visible(m)}"


def model_labels(configs: list[dict[str, Any]]) -> list[str]:
    """The mixer's label, with the task where tasks differ."""
    names = [visible(config["task"]["name"]).replace("_", " ") for config in configs]
    several = len(set(names)) > 1
    return [
        f"{mixer_label(config['mixer'])}, {name}" if several else mixer_label(config["mixer"])
        for config, name in zip(configs, names, strict=True)
    ]


def run_labels(configs: list[dict[str, Any]]) -> list[str]:
    """The mixer's label; with the task's settings where tasks differ, and where a label is taken twice with the
    settings that tell its configurations apart."""
    plain = [mixer_label(config["mixer"]) for config in configs]
    flat = [{k: v for k, v in flatten(config).items() if k not in IGNORED} for config in configs]
    alike: dict[str, list[dict[str, Any]]] = {}
    for one, label in zip(flat, plain, strict=True):
        alike.setdefault(label, []).append(one)
    varied = {label: _varied(members) for label, members in alike.items()}
    tasks = {key: values for key, values in _varied(flat).items() if key.startswith("task.")}
    labels = []
    for mine, label in zip(flat, plain, strict=True):
        told = {key: (varied[label] | tasks)[key] for key in mine if key in varied[label] or key in tasks}
        details = ", ".join(_detail(key, mine[key], values) for key, values in told.items())
        labels.append(f"{label} ({details})" if details else label)
    return labels


def _varied(flat: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The settings that are not the same, or not there, in all configurations, with their different values."""
    keys = dict.fromkeys(key for one in flat for key in one)
    values = {key: {json.dumps(one.get(key)): one.get(key) for one in flat} for key in keys}
    return {key: list(found.values()) for key, found in values.items() if len(found) > 1}


def _detail(key: str, value: Any, among: list[Any]) -> str:
    """ "lr 0.001"; the task's name stands alone."""
    if isinstance(value, float) and math.isfinite(value):
        others = [other for other in among if isinstance(other, float) and other != value]
        value = next(
            (
                text
                for text, digits in ((f"{value:.{digits}g}", digits) for digits in range(DIGITS, 17))
                if all(text != f"{other:.{digits}g}" for other in others)
            ),
            value,
        )
    return visible(value) if key == "task.name" else f"{key.rpartition('.')[2]} {visible(value)}"
