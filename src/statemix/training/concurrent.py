"""Many runs in one process, several at a time, a slice of steps each: on a GPU their kernels overlap."""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from statemix.training.config import Config
from statemix.training.files import RunError
from statemix.training.loop import Run, Summary, check_trainable, open_run
from statemix.training.progress import Progress
from statemix.training.signals import StopSignals


def train_concurrently(
    configs: Sequence[Config],
    folders: Sequence[str | Path],
    *,
    concurrency: int = 8,
    progress: bool | None = None,
    resume: bool = True,
    ended: Callable[[int, Summary], None] = lambda place, summary: None,
) -> list[Summary]:
    """Train every configuration in its folder, `concurrency` at a time; returns the summaries, in order.

    Each run is as `train` would make it: its own folder, metrics, checkpoints, early stop and divergence; on the CPU
    with the same bits. The runs take some twenty steps each in rotation; on a GPU each has a stream of its own, so
    that their kernels overlap. One that ends makes room for the next. One that fails does not stop the others: its
    summary is {"status": "failed", "error", "traceback"}, and unless its folder is not its own the traceback is in
    `failure.txt` there until it is tried again.
    SIGINT, SIGTERM and SIGHUP save all active runs ("interrupted"); those not begun are "waiting".
    progress and resume: as `train`. ended: called with the place and the summary of every run, as it ends.
    Errors: ValueError, before any work, for a configuration, for two runs in one folder, or for a number of folders
    that is not that of the configurations; ImportError for a missing extra.
    """
    _check(configs, folders, concurrency)
    summaries: list[Summary] = [{"status": "waiting"} for _ in configs]
    waiting, active = list(range(len(configs)))[::-1], dict[int, _Active]()
    statuses: Counter[str] = Counter()
    with (
        StopSignals() as signals,
        Progress(progress, "runs", 0, len(configs)) as bar,
        contextlib.ExitStack() as cleanup,
    ):
        cleanup.callback(_close, active)
        while active or (waiting and signals.received is None):
            while waiting and len(active) < concurrency and signals.received is None:
                place = waiting.pop()
                active[place] = _Active(configs[place], folders[place], resume, signals)
            for place, run in list(active.items()):
                summary = run.advance()
                if summary is not None:
                    summaries[place] = summary
                    del active[place]
                    statuses[summary["status"]] += 1
                    bar.tell(statuses.total(), **statuses)
                    ended(place, summary)
    return summaries


def _close(active: dict[int, _Active]) -> None:
    for run in active.values():
        run.close()


def _check(configs: Sequence[Config], folders: Sequence[str | Path], concurrency: int) -> None:
    if len(folders) != len(configs):
        raise ValueError(
            f"folders: got {len(folders)}, expected one for each of {len(configs)} configurations"
        )
    paths = [Path(folder).resolve() for folder in folders]
    for place, path in enumerate(paths):
        if path in paths[:place]:
            raise ValueError(f"folders: got {folders[place]} twice, expected a folder for each run")
    if concurrency < 1:
        raise ValueError(f"concurrency: got {concurrency}, expected at least 1")
    for place, config in enumerate(configs):
        try:
            check_trainable(config)
        except ValueError as error:
            raise ValueError(f"configs[{place}]: {error}") from None


class _Active:
    """One run and what it holds open; no error leaves it, only a KeyboardInterrupt."""

    def __init__(self, config: Config, folder: str | Path, resume: bool, signals: StopSignals) -> None:
        self._arguments, self._signals = (config, folder, resume), signals
        self._held = contextlib.ExitStack()
        self._run: Run | None = None
        self._slices: Generator[None, None, Summary] | None = None

    def advance(self) -> Summary | None:
        """Open the run, or run a slice of it; its summary when it has ended, one way or another."""
        try:
            summary = self._open() if self._slices is None else self._run.advance(self._slices)  # type: ignore[union-attr]
        except Exception as error:
            summary = self._failed(error)
        if summary is not None:
            self.close()
        return summary

    def _open(self) -> Summary | None:
        run = self._held.enter_context(open_run(*self._arguments))
        if isinstance(run, dict):
            return run
        self._held.callback(run.close)
        self._run, self._slices = run, run.slices(self._signals, Progress(False, "", 0, 1))
        return None

    def _failed(self, error: Exception) -> Summary:
        text = "".join(traceback.format_exception(error))
        if self._run is not None:  # else the folder may be someone else's
            with contextlib.suppress(RunError):
                self._run.note_failure(text)
        line = " ".join(str(error).split()) or type(error).__name__
        return {"status": "failed", "error": f"{type(error).__name__}: {line}", "traceback": text}

    def close(self) -> None:
        """Close and unlock what is open; the run's memory is free for the next."""
        self._run = self._slices = None
        self._held.close()
