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

_Slices = Generator[None, None, Summary]


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
    waiting, active = list(range(len(configs)))[::-1], dict[int, _Slices]()
    statuses: Counter[str] = Counter()
    with StopSignals() as signals, Progress(progress, "runs", 0, len(configs)) as bar:
        try:
            while active or (waiting and signals.received is None):
                while waiting and len(active) < concurrency and signals.received is None:
                    place = waiting.pop()
                    active[place] = _train(configs[place], folders[place], resume, signals)
                for place, slices in list(active.items()):
                    try:
                        next(slices)
                    except StopIteration as end:
                        summaries[place] = end.value
                        del active[place]
                        statuses[end.value["status"]] += 1
                        bar.tell(sum(statuses.values()), **statuses)
                        ended(place, end.value)
        finally:
            for slices in active.values():
                slices.close()
    return summaries


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


def _train(config: Config, folder: str | Path, resume: bool, signals: StopSignals) -> _Slices:
    """One run, a slice of steps at a time; no error leaves it, only a KeyboardInterrupt. Closing it unlocks the run."""
    run: Run | Summary | None = None
    with contextlib.ExitStack() as held:
        try:
            run = held.enter_context(open_run(config, folder, resume))
            if isinstance(run, dict):
                return run
            held.callback(run.close)
            yield from run.slices(signals, Progress(False, "", 0, 1))
            return run.summary
        except Exception as error:
            text = "".join(traceback.format_exception(error))
            if isinstance(run, Run):  # else the folder may be someone else's
                with contextlib.suppress(RunError):
                    run.note_failure(text)
            line = " ".join(str(error).split()) or type(error).__name__
            return {"status": "failed", "error": f"{type(error).__name__}: {line}", "traceback": text}
