"""Where a run stands: a line that moves on a terminal, plain lines in a log, or nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from statemix.extras import installed, missing
from statemix.text import duration, visible
from statemix.waiting import COMPILING, PATIENCE, Lines, compiling, is_watched

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.live import Live
    from rich.text import Text

BAR, NARROWEST = 20, 8
"""Signs of the bar where there is room, and the least for which it is drawn."""


class Progress(Protocol):
    """What the loop tells about itself."""

    def __enter__(self) -> Progress: ...

    def __exit__(self, *error: Any) -> None: ...

    def stepped(self, step: int) -> None:
        """So many steps are done."""

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

    def stepped(self, step: int) -> None:
        """Nothing."""

    def update(self, step: int, loss: float, accuracy: float) -> None:
        """Nothing."""

    def evaluated(self, accuracy: float) -> None:
        """Nothing."""


class Standing:
    """How far a run is, in words."""

    def __init__(self, name: str, start: int, steps: int) -> None:
        self.name, self.start, self.step, self.steps = visible(name), start, start, steps
        self.numbers: dict[str, float] = {}
        self._begun = time.monotonic()
        self._marks: list[tuple[float, int]] = []  # when the first steps were done, and the last

    def stepped(self, step: int) -> None:
        """So many steps are done."""
        if step > self.step:
            self._marks = [*self._marks[:1], (time.monotonic(), step)]
        self.step = step

    def parts(self) -> Iterator[str]:
        """What matters first. The steps before the first look are not counted in the pace: kernels were compiled."""
        yield self.name
        yield f"step {self.step}/{self.steps} ({100 * self.step // self.steps} %)"
        yield from (f"{name} {number:.3f}" for name, number in self.numbers.items())
        if not self._marks and time.monotonic() - self._begun > PATIENCE and compiling():
            yield COMPILING
        if len(self._marks) == 2 and self.step < self.steps:
            (begun, first), (now, last) = self._marks
            yield f"{duration((self.steps - self.step) * (now - begun) / (last - first))} left"


class Bar:
    """A line on a terminal's standard error, as many lines as it needs there."""

    def __init__(self, name: str, start: int, steps: int) -> None:
        self._standing = Standing(name, start, steps)
        self._live = _live(self)

    def __enter__(self) -> Bar:
        self._live.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """The parts side by side, and a bar in the room that is left; no part is broken where it fits a line."""
        yield from lines_of(self._standing, options)

    def stepped(self, step: int) -> None:
        """Move on."""
        self._standing.stepped(step)

    def update(self, step: int, loss: float, accuracy: float) -> None:
        """Show the numbers."""
        self._standing.stepped(step)
        self._standing.numbers |= {"loss": loss, "accuracy": accuracy}

    def evaluated(self, accuracy: float) -> None:
        """Show the validation accuracy."""
        self._standing.numbers["validation"] = accuracy


def lines_of(standing: Standing, options: ConsoleOptions) -> Iterator[Text]:
    """What there is to say, two spaces between, in lines of a terminal; then the bar, if the last has room for it."""
    from rich.text import Text

    width, lines = options.max_width, [""]
    for part in standing.parts():
        joined = f"{lines[-1]}  {part}" if lines[-1] else part
        if len(joined) <= width or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(part)
    room = min(BAR, width - len(lines[-1]) - 2)
    if room >= NARROWEST:
        full = room * standing.step // standing.steps
        signs = ("#", "-") if options.ascii_only else ("━", "╺")
        lines[-1] += f"  {signs[0] * full}{signs[1] * (room - full)}"
    yield from (Text(line, overflow="fold") for line in lines)


class Log:
    """Plain lines on standard error, for what is no terminal."""

    def __init__(self, name: str, start: int, steps: int) -> None:
        self._standing = Standing(name, start, steps)
        self._lines = Lines(lambda: ", ".join(self._standing.parts()), steps, start)

    def __enter__(self) -> Log:
        self._lines.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._lines.__exit__(*error)

    def stepped(self, step: int) -> None:
        """Move on; the line that is now due waits a moment for the numbers of these steps."""
        self._standing.stepped(step)
        self._lines.done = step

    def update(self, step: int, loss: float, accuracy: float) -> None:
        """A line if one is due; the last one waits for the evaluation."""
        self._standing.stepped(step)
        self._standing.numbers |= {"loss": loss, "accuracy": accuracy}
        if step < self._standing.steps:
            self._lines.moved(step)

    def evaluated(self, accuracy: float) -> None:
        """A line if one is due."""
        self._standing.numbers["validation"] = accuracy
        self._lines.moved(self._standing.step)


def progress_of(wanted: bool | None, name: str, start: int, steps: int) -> Progress:
    """What shows a run: on a terminal a line that moves, elsewhere plain lines if `wanted`.

    None: silence where there is no terminal or no rich.
    """
    if not _is_shown(wanted):
        return Quiet()
    return Bar(name, start, steps) if is_watched() else Log(name, start, steps)


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
    """Runs that have ended, of all, and how: on a terminal a line that moves, elsewhere plain lines."""

    def __init__(self, total: int) -> None:
        self._total, self._begun = total, time.monotonic()
        self._outcomes: dict[str, int] = {}
        self._lines = Lines(lambda: str(self), total)
        self._shown: Any = self._lines
        if is_watched():
            self._shown = _live(self)

    def __enter__(self) -> RunsBar:
        self._shown.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._shown.__exit__(*error)

    def __str__(self) -> str:
        done = sum(self._outcomes.values())
        shown = [f"{count} {name}" for name, count in self._outcomes.items()]
        return ", ".join([f"runs: {done}/{self._total}", *shown, duration(time.monotonic() - self._begun)])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[str]:
        """As it is when it is drawn."""
        yield str(self)

    def ended(self, status: str) -> None:
        """One more, and how many ended in which way."""
        self._outcomes[status] = self._outcomes.get(status, 0) + 1
        if self._shown is self._lines:
            self._lines.moved(sum(self._outcomes.values()))


def count_of(wanted: bool | None, total: int) -> Count:
    """As `progress_of`, for many runs."""
    return NoCount() if not _is_shown(wanted) else RunsBar(total)


def _is_shown(wanted: bool | None) -> bool:
    """Whether anything is said: ImportError where it is wanted, and a terminal is to be drawn on without rich."""
    if wanted is False or (wanted is None and not (is_watched() and installed("rich"))):
        return False
    if is_watched() and not installed("rich"):
        raise ImportError(missing("rich"))
    return True


def _live(shown: Bar | RunsBar) -> Live:
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    return Live(shown, console=console, refresh_per_second=4)
