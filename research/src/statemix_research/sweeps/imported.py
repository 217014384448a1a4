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

from statemix.training.files import abandoned, seal, writing
from statemix_research.sweeps.exported import essential, labels_of, read_export
from statemix_research.sweeps.fields import SUMMARY
from statemix_research.sweeps.plan import Plan, Presets, make_plan
from statemix_research.sweeps.probes import PROBES
from statemix_research.sweeps.rows import CURVES, Row
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
    try:
        plan = make_plan(experiment_of(head["experiment"]), head["preset"], head["settings"], to_run=False)
    except ValueError as error:
        raise ValueError(f"{place} 1, {error}") from None
    jobs = {cell.job.key: cell.job for cell in plan.cells}
    _check_cells(rows, plan, jobs, place)
    ended = [row for row in rows if "ended" in row and row["key"] in jobs]
    there = store.keys()
    trained_here = {row["key"] for row in ended if row["key"] in there and _begun(store, row["key"])}
    new = [row for row in ended if row["key"] not in there or _is_lacking(store, row["key"], trained_here)]
    with _staged(store) as staged:
        for row in new:
            history = row["key"] in there and store.attempts(row["key"])
            _lay(jobs[row["key"]], row, staged, with_history=not history)
        for row in ended:
            _lay_probes(row, staged, store, row["key"] in trained_here)
    return Imported(len(new), len(ended) - len(new), len(rows) - len(ended))


def _check_cells(rows: list[Row], plan: Plan, jobs: Mapping[str, Job], place: str) -> None:
    """ValueError for a row whose labels or configuration are not those of its key."""
    labels: dict[str, list[dict[str, Any]]] = {}
    for cell in plan.cells:
        labels.setdefault(cell.job.key, []).append(cell.labels)
    for number, row in enumerate(rows, 2):
        job = jobs.get(row["key"])
        if job is None or "ended" not in row:
            continue
        mine = labels_of(row)
        if mine not in labels[job.key]:
            nearest = max(labels[job.key], key=lambda one: len(one.items() & mine.items()))
            name = next(key for key in {**nearest, **mine} if nearest.get(key, job) != mine.get(key, job))
            told = f"{name}: got {mine.get(name)!r:.60}, expected {nearest.get(name)!r:.60}"
            raise ValueError(f"{place} {number}, {told}, as cells with the key {job.key} have it")
        if not _is_config(row.get("config"), job):
            raise ValueError(f"{place} {number}, config: got another one than that of the key {job.key}")


def _is_config(config: Any, job: Job) -> bool:
    if job.kind != "train":
        return bool(config == essential(job.content))
    try:
        return key_of(job.kind, config) == job.key
    except (AttributeError, TypeError, ValueError):
        return False


def _begun(store: Store, key: str) -> bool:
    """Whether a run was begun in this store, and is not an import."""
    return any(line["event"] in ("started", "reopened") for line in store.attempts(key))


def _is_lacking(store: Store, key: str, trained_here: set[str]) -> bool:
    """Whether a run has a folder and nothing that counts: what an import left that was cut off."""
    return key not in trained_here and store.summary(key) is None


@contextlib.contextmanager
def _staged(store: Store) -> Iterator[Store]:
    """A store whose files are put into this one at the end, all of them or, after an error, none."""
    with writing(store.path):
        store.path.mkdir(parents=True, exist_ok=True)
        for left in store.path.glob(
            STAGE.format(random="*", host="*", pid="*")
        ):  # by imports that were killed
            if left.is_dir() and not left.is_symlink() and abandoned(left):
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
        if (
            all(key in row for key in probe.gives)
            and not store.probe_path(row["key"], name).exists()
            and not (trained_here and probe.on_weights)
        ):
            found = {"run": row["key"], **{key: row[key] for key in probe.gives}}
            _write(staged.probe_path(row["key"], name), found)


def _lay(job: Job, row: Row, staged: Store, with_history: bool) -> None:
    """The files of a run as `rows_of` reads them."""
    folder = staged.folder(job.key)
    _write(folder / "config.json", job.content)
    if "hardware" in row and with_history:
        facts = {"status": row["ended"], "time": row["date"], "hardware": {"device": row["hardware"]}}
        staged.history_path(job.key).write_bytes(history_line(job.key, "ended", **facts, imported=True))
    summary = {key: row[key] for key in SUMMARY if key in row} | {"status": row["ended"]}
    if job.kind == "train":
        summary["accuracy"] = row["accuracies"]
        lines = "".join(json.dumps(line) + "\n" for line in _last_metrics(row))
        (folder / "metrics.jsonl").write_bytes(lines.encode())
    _write(folder / "summary.json", summary)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """As `write_json`, which would wait for the disk."""
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(seal(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path.write_bytes(text.encode())


def _last_metrics(row: Row) -> Iterator[Row]:
    """The last line of each curve."""
    for curve, kind in (
        ("train", {"kind": "train"}),
        ("validation", {"kind": "eval", "split": "validation"}),
    ):
        values = {value: row[name] for name, (where, value) in CURVES.items() if where == curve}
        yield {**kind, "step": row["step"], **values}
