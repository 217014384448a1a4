"""Many runs in one process, several at a time, taking turns: on a GPU their kernels overlap."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from statemix.training.config import Config
from statemix.training.files import RunError
from statemix.training.interruption import Interruption
from statemix.training.loop import Run, opened, require
from statemix.training.progress import Quiet, count_of

Summary = dict[str, Any]


def train_many(
    configs: Sequence[Config],
    folders: Sequence[str | Path],
    *,
    side_by_side: int = 8,
    progress: bool | None = None,
    resume: bool = True,
    ended: Callable[[int, Summary], None] = lambda place, summary: None,
) -> list[Summary]:
    """Train every configuration in its folder, `side_by_side` at a time; returns the summaries, in order.

    Each run is as `train` would make it: its own folder, metrics, checkpoints, early stop and divergence; on the CPU
    with the same bits. The runs take turns of some twenty steps; on a GPU each has a stream of its own, so that their
    kernels overlap. One that ends makes room for the next. One that fails does not stop the others: its summary is
    {"status": "failed", "error", "traceback"}, and unless its folder is not its own the traceback is in `failure.txt`
    there until it is tried again.
    SIGINT, SIGTERM and SIGHUP save all that are under way ("interrupted"); those not begun are "waiting".
    progress and resume: as `train`. ended: told the place and the summary of every run, as it ends.
    Errors: ValueError, before any work, for a configuration, for two runs in one folder, or for a number of folders
    that is not that of the configurations; ImportError for a missing extra.
    """
    _check(configs, folders, side_by_side)
    summaries: list[Summary] = [{"status": "waiting"} for _ in configs]
    waiting = list(range(len(configs)))[::-1]
    under_way: dict[int, _Seat] = {}
    with (
        Interruption() as interruption,
        count_of(progress, len(configs)) as bar,
        contextlib.ExitStack() as all_,
    ):
        all_.callback(_leave, under_way)
        while under_way or (waiting and interruption.signal is None):
            while waiting and len(under_way) < side_by_side and interruption.signal is None:
                place = waiting.pop()
                under_way[place] = _Seat(configs[place], folders[place], resume, interruption)
            for place, seat in list(under_way.items()):
                summary = seat.turn()
                if summary is not None:
                    summaries[place] = summary
                    del under_way[place]
                    bar.ended(summary["status"])
                    ended(place, summary)
    return summaries


def _leave(under_way: dict[int, _Seat]) -> None:
    for seat in under_way.values():
        seat.leave()


def _check(configs: Sequence[Config], folders: Sequence[str | Path], side_by_side: int) -> None:
    if len(folders) != len(configs):
        raise ValueError(
            f"folders: got {len(folders)}, expected one for each of {len(configs)} configurations"
        )
    paths = [Path(folder).resolve() for folder in folders]
    for place, path in enumerate(paths):
        if path in paths[:place]:
            raise ValueError(f"folders: got {folders[place]} twice, expected a folder for each run")
    if side_by_side < 1:
        raise ValueError(f"side_by_side: got {side_by_side}, expected at least 1")
    for place, config in enumerate(configs):
        try:
            require(config)
        except ValueError as error:
            raise ValueError(f"configs[{place}]: {error}") from None


class _Seat:
    """One run and what it holds open; nothing that goes wrong in it leaves it, but a KeyboardInterrupt."""

    def __init__(self, config: Config, folder: str | Path, resume: bool, interruption: Interruption) -> None:
        self._config, self._folder, self._resume = config, folder, resume
        self._interruption, self._held = interruption, contextlib.ExitStack()
        self._run: Run | None = None

    def turn(self) -> Summary | None:
        """Open the run, or take a turn of it; its summary when it has ended, one way or another."""
        try:
            summary = self._turn()
        except Exception as error:
            summary = self._failed(error)
        if summary is not None:
            self.leave()
        return summary

    def _turn(self) -> Summary | None:
        if self._run is not None:
            return self._run.turn()
        run = self._held.enter_context(opened(self._config, self._folder, self._resume))
        if isinstance(run, dict):
            return run
        self._run = run
        self._held.callback(run.close)
        run.start(self._interruption, Quiet())
        return None

    def _failed(self, error: Exception) -> Summary:
        text = "".join(traceback.format_exception(error))
        if self._run is not None:  # else the folder may be someone else's
            with contextlib.suppress(RunError):
                self._run.note_failure(text)
        line = " ".join(str(error).split()) or type(error).__name__
        return {"status": "failed", "error": f"{type(error).__name__}: {line}", "traceback": text}

    def leave(self) -> None:
        """Close and unlock what is open; the run's memory is free for the next."""
        self._run = None
        self._held.close()
