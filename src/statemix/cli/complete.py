"""What a shell offers to complete an argument."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def _beginning(incomplete: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]


def settings_like(ctx: Any, incomplete: str) -> list[str]:
    """Presets, names of settings, and the tasks and mixers after task.name= and mixer.name=."""
    from statemix.nn.registry import MIXERS
    from statemix.tasks import TASKS
    from statemix.training import PRESETS, groups

    named = [f"task.name={task}" for task in TASKS] + [f"mixer.name={mixer}" for mixer in MIXERS]
    settings = dict.fromkeys(f"{one.name}=" for group in groups() for one in group.settings)
    presets = [] if ctx.params.get("settings") else list(PRESETS)
    return _beginning(incomplete, [*presets, *settings, *(named if "=" in incomplete else [])])


def task_names(incomplete: str) -> list[str]:
    """The tasks."""
    from statemix.tasks import TASKS

    return _beginning(incomplete, TASKS)
