"""A line that moves: step, loss, accuracy, steps per second, time left. Silent when nobody watches."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Protocol


class Progress(Protocol):
    """What the loop tells about itself."""

    def __enter__(self) -> Progress: ...

    def __exit__(self, *error: Any) -> None: ...

    def update(self, step: int, loss: float, accuracy: float) -> None:
        """Numbers of the last few training steps."""

    def evaluated(self, accuracy: float) -> None:
        """Accuracy on the validation split."""


class Quiet:
    """Says nothing."""

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *error: Any) -> None:
        return None

    def update(self, step: int, loss: float, accuracy: float) -> None:
        """Nothing."""

    def evaluated(self, accuracy: float) -> None:
        """Nothing."""


class Bar:
    """A rich progress bar on standard error."""

    def __init__(self, name: str, start: int, steps: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            ProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress
        from rich.progress import Task as RichTask
        from rich.text import Text

        class Speed(ProgressColumn):
            def render(self, task: RichTask) -> Text:
                return Text("" if task.speed is None else f"{task.speed:.0f} steps/s", style="dim")

        self._bar = RichProgress(
            TextColumn("[bold]{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"), TextColumn("accuracy {task.fields[accuracy]}"),
            TextColumn("validation [bold]{task.fields[validation]}"), Speed(), TimeRemainingColumn(),
            console=Console(stderr=True),
        )  # fmt: skip
        self._task = self._bar.add_task(
            name, total=steps, completed=start, loss="-", accuracy="-", validation="-"
        )

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, step: int, loss: float, accuracy: float) -> None:
        """Move on."""
        self._bar.update(self._task, completed=step, loss=f"{loss:.3f}", accuracy=f"{accuracy:.3f}")

    def evaluated(self, accuracy: float) -> None:
        """Show the validation accuracy."""
        self._bar.update(self._task, validation=f"{accuracy:.3f}")


def progress_of(wanted: bool | None, name: str, start: int, steps: int) -> Progress:
    """A bar if `wanted`, or if None and standard error is a terminal and rich is installed; else silence."""
    if wanted is False or (wanted is None and not sys.stderr.isatty()):
        return Quiet()
    try:
        return Bar(name, start, steps)
    except ImportError:
        if wanted:
            raise ImportError('rich is not installed: pip install "statemix[train]"') from None
        return Quiet()


class Count(Protocol):
    """What is told about many runs."""

    def __enter__(self) -> Count: ...

    def __exit__(self, *error: Any) -> None: ...

    def ended(self, status: str) -> None:
        """One more run has ended."""


class NoCount(Quiet):
    """Says nothing."""

    def __enter__(self) -> NoCount:
        return self

    def ended(self, status: str) -> None:
        """Nothing."""


class RunsBar:
    """A rich bar on standard error: runs that have ended, of all, and how."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("[bold]runs"), BarColumn(bar_width=20), MofNCompleteColumn(),
            TextColumn("{task.fields[outcomes]}"), TimeElapsedColumn(), console=Console(stderr=True),
        )  # fmt: skip
        self._outcomes: dict[str, int] = {}
        self._task = self._bar.add_task("runs", total=total, outcomes="")

    def __enter__(self) -> RunsBar:
        self._bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.stop()

    def ended(self, status: str) -> None:
        """One more, and how many ended in which way."""
        self._outcomes[status] = self._outcomes.get(status, 0) + 1
        shown = ", ".join(f"{count} {name}" for name, count in self._outcomes.items())
        self._bar.update(self._task, advance=1, outcomes=shown)


def count_of(wanted: bool | None, total: int) -> Count:
    """As `progress_of`, for many runs."""
    if wanted is False or (wanted is None and not sys.stderr.isatty()):
        return NoCount()
    try:
        return RunsBar(total)
    except ImportError:
        if wanted:
            raise ImportError('rich is not installed: pip install "statemix[train]"') from None
        return NoCount()
