"""Exported runs put into a store: all that a file holds, or nothing."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from statemix.training import RunFolder
from statemix.training.files import abandoned, seal, writing
from statemix_research.sweeps.fields import CURVES, SUMMARY, naming
from statemix_research.sweeps.plan import Presets, make_plan
from statemix_research.sweeps.probes import PROBES
from statemix_research.sweeps.rows import Row, essential, labels_of, read_export
from statemix_research.sweeps.store import Job, Store, history_line, key_of

STAGE = ".import-{random}.{host}.{pid}.tmp"
"""The folder in a store in which files wait to be put in place; `abandoned` reads its name."""


class Imported(NamedTuple):
    """How many rows of a file were imported, were in the store already, and are left out."""

    new: int
    known: int
    left_out: int


def import_runs(path: Path, store: Store, experiment_of: Callable[[str], Presets]) -> Imported:
    """Put the runs of an exported file into a store, without weights and curves: they count as done.

    A run is trained again if something is to be probed on its weights that was not. Runs that are in the store gain
    probes alone, and none on the weights of runs that were trained here, which are others. A row is left out that
    failed, or that its experiment does not have here: the experiment changed since, or it times another machine.
    Every line is checked before anything is written. After an error no run comes in; killed while it puts them in
    place, the same import goes on.

    Args:
        experiment_of: The experiment of a name, ValueError for an unknown one.

    Errors: ValueError as `read_export`, and for a preset, settings or cells that the experiment does not have; RunError
    when the store cannot be written, or has a damaged file of a run that is to come in.
    """
    head, rows = read_export(path, argument="file")
    place = f"file: {path} is damaged in line"
    with naming(f"{place} 1, "):
        plan = make_plan(experiment_of(head["experiment"]), head["preset"], head["settings"], to_run=False)
    jobs = {cell.job.key: cell.job for cell in plan.cells}
    labels: dict[str, list[dict[str, Any]]] = {}
    for cell in plan.cells:
        labels.setdefault(cell.job.key, []).append(cell.labels)
    ended = []
    for number, row in enumerate(rows, 2):
        if "ended" in row and row["key"] in jobs:
            with naming(f"{place} {number}, "):
                _check_cell(row, jobs[row["key"]], labels[row["key"]])
            ended.append(row)
    there = store.keys()
    begun = ("started", "reopened")  # here, which an import is not
    trained_here = {
        row["key"] for row in ended
        if row["key"] in there and any(line["event"] in begun for line in store.attempts(row["key"]))
    }  # fmt: skip
    lacking = {  # what an import left that was cut off: a folder and nothing that counts
        row["key"] for row in ended
        if row["key"] in there and row["key"] not in trained_here and store.summary(row["key"]) is None
    }  # fmt: skip
    new = [row for row in ended if row["key"] not in there or row["key"] in lacking]
    with _staged(store) as staged:
        for row in new:
            _lay(jobs[row["key"]], row, staged, with_history=not store.attempts(row["key"]))
        for row in ended:
            _lay_probes(row, staged, store, row["key"] in trained_here)
    return Imported(len(new), len(ended) - len(new), len(rows) - len(ended))


def _check_cell(row: Row, job: Job, labels: list[dict[str, Any]]) -> None:
    """ValueError for a row whose labels or configuration are not those of its key."""
    mine = labels_of(row)
    if mine not in labels:
        nearest = max(labels, key=lambda one: len(one.items() & mine.items()))
        name = next(key for key in {**nearest, **mine} if nearest.get(key, job) != mine.get(key, job))
        told = f"{name}: got {mine.get(name)!r:.60}, expected {nearest.get(name)!r:.60}"
        raise ValueError(f"{told}, as cells with the key {job.key} have it")
    config = row.get("config", {})
    with contextlib.suppress(AttributeError, TypeError, ValueError):  # of a section that is none
        if (
            (key_of("train", config) == job.key)
            if job.kind == "train"
            else (config == essential(job.content))
        ):
            return
    raise ValueError(f"config: got another one than that of the key {job.key}")


@contextlib.contextmanager
def _staged(store: Store) -> Iterator[Store]:
    """A store whose files are put into this one at the end, all of them or, after an error, none."""
    with writing(store.path):
        store.path.mkdir(parents=True, exist_ok=True)
        for left in store.path.glob(STAGE.format(random="*", host="*", pid="*")):
            if left.is_dir() and not left.is_symlink() and abandoned(left):  # an import was killed
                shutil.rmtree(left, ignore_errors=True)
        name = STAGE.format(random=secrets.token_hex(4), host=socket.gethostname(), pid=os.getpid())
        stage = store.path / name
        stage.mkdir()
        try:
            yield Store(stage)
            _put(stage, store.path)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def _put(stage: Path, place: Path) -> None:
    """Move every folder to its place; into one that is there, file by file, the summary last. After an error what was
    moved is taken back."""
    os.sync()  # at once: file by file it would take seconds
    moved: list[tuple[Path, Path]] = []
    try:
        for folder in sorted(stage.iterdir()):
            whole = [] if (place / folder.name).exists() else [folder]
            for path in whole or sorted(folder.iterdir(), key=lambda path: path.name == "summary.json"):
                target = place / path.relative_to(stage)
                path.rename(target)
                moved.append((path, target))
        os.sync()
    except BaseException:
        for path, target in reversed(moved):
            with contextlib.suppress(OSError):
                target.rename(path)
        raise


def _lay_probes(row: Row, staged: Store, store: Store, trained_here: bool) -> None:
    """What was probed of a run, as far as the store does not have it and it holds for the weights there."""
    for name, probe in PROBES.items():
        holds = all(key in row for key in probe.gives) and not (trained_here and probe.on_weights)
        if holds and not store.probe_path(row["key"], name).exists():
            found = {"run": row["key"], **{key: row[key] for key in probe.gives}}
            _write(staged.probe_path(row["key"], name), found)


def _lay(job: Job, row: Row, staged: Store, with_history: bool) -> None:
    """The files of a run as `rows_of` reads them."""
    folder = RunFolder(staged.folder(job.key))
    _write(folder.config, job.content)
    if "hardware" in row and with_history:
        facts = {"status": row["ended"], "time": row["date"], "hardware": {"device": row["hardware"]}}
        staged.history_path(job.key).write_bytes(history_line(job.key, "ended", **facts, imported=True))
    summary = {key: row[key] for key in SUMMARY if key in row} | {"status": row["ended"]}
    if job.kind == "train":
        summary["accuracy"] = row["accuracies"]
        last = {"train": {"kind": "train"}, "validation": {"kind": "eval", "split": "validation"}}
        lines = {curve: {**kind, "step": row["step"]} for curve, kind in last.items()}
        for name, (curve, value) in CURVES.items():
            lines[curve][value] = row[name]
        folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines.values()))
    _write(folder.summary, summary)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """As `write_json`, which would wait for the disk."""
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(seal(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path.write_text(text, encoding="utf-8")
