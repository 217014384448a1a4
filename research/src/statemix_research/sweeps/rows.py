"""Runs as flat rows: from a store, and in one compact file (JSON lines), written, read with every value checked, and
put into another store, all that a file holds or nothing."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import operator
import os
import re
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from statemix.training import RunFolder
from statemix.training.files import abandoned, replace_file, seal, writing
from statemix_research.sweeps import fields
from statemix_research.sweeps.grid import Cell
from statemix_research.sweeps.plan import Plan, Presets, make_plan
from statemix_research.sweeps.probes import PROBES
from statemix_research.sweeps.store import (
    DAMAGED,
    DIVERGED,
    FAILED,
    FINISHED,
    MISSING,
    Job,
    Store,
    failure_of,
    history_line,
    key_of,
)  # fmt: skip

Row = dict[str, Any]

FORM = "statemix-experiment-2"

FORMER = {"statemix-experiment-1": {"basis": "matched_on", "left_out": "skipped"}}
"""Earlier forms that are read, and what their keys are called now."""

ESSENTIAL = ("task", "mixer", "model", "training")
"""What an exported row keeps of a configuration."""


STAGE = ".import-{random}.{host}.{pid}.tmp"
"""The folder in a store in which files wait to be put in place; `abandoned` reads its name."""

ACCURACIES = ("accuracies", "accuracy", "mean_accuracy", *fields.CURVES)
"""What the row of a training that came to its end has besides what is `NEEDED`."""


def rows_of(plan: Plan, store: Store) -> list[Row]:
    """A row for every cell: its labels, the status of its run, and all its numbers.

    A damaged run has no numbers, and its "error" names the file.
    """
    here = store.keys()
    return [
        _row(cell, store) if cell.job.key in here else {**cell.labels, "key": cell.job.key, "status": MISSING}
        for cell in plan.cells
    ]


def _row(cell: Cell, store: Store) -> Row:
    job, found = cell.job, store.read(cell.job, under_way=True)
    row: Row = {**cell.labels, "key": job.key, "status": found.status}
    if found.status == DAMAGED:
        return row | {"error": found.damage.replace(f"{store.path}/", "")}
    if found.status == FAILED:
        error = (failure_of(found.history) or {}).get("error", "")
        row["error"] = error.encode("utf-8", "backslashreplace").decode()  # file names may be no UTF-8
    summary = found.summary
    if summary is None:
        return row
    row |= {key: summary[key] for key in fields.SUMMARY if key in summary}
    row["ended"] = summary["status"]
    if job.kind == "train":
        row["accuracies"] = summary["accuracy"]
        row["accuracy"] = summary["accuracy"].get(str(job.content["task"]["length"]))
        row["mean_accuracy"] = mean_of(summary["accuracy"])
        row |= {
            name: found.curves.get(curve, {}).get(value) for name, (curve, value) in fields.CURVES.items()
        }
    last = next((line for line in reversed(found.history) if line["event"] == "ended"), None)
    if last is not None:
        row |= {"hardware": last["hardware"]["device"], "date": last["time"][:10]}
    for result in found.probed.values():
        row |= result
    return row


def mean_of(accuracies: Mapping[str, float]) -> float | None:
    """The mean over test lengths, None without any; added in turn, as `sum` rounds otherwise from Python 3.12 on."""
    return functools.reduce(operator.add, accuracies.values()) / len(accuracies) if accuracies else None


def export(plan: Plan, rows: list[Row], out: Path) -> int:
    """Write every run that came to an end (a probe may still be missing) or failed as a line of JSON; returns how many.

    One head line comes first. Damaged runs are left out. Errors: RunError when the file cannot be written.
    """
    contents = {cell.job.key: cell.job.content for cell in plan.cells}
    head = {
        "form": FORM, "experiment": plan.experiment, "preset": plan.preset, "settings": list(plan.settings),
        "cells": len(rows), "skipped": list(dict.fromkeys((one.labels["model"], one.reason) for one in plan.skipped)),
    }  # fmt: skip
    kept = [row for row in rows if "ended" in row or row["status"] == FAILED]
    lines = [head, *({**row, "config": essential(contents[row["key"]])} for row in kept)]
    text = "".join(json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n" for line in lines)
    replace_file(out, lambda temporary: temporary.write_bytes(text.encode()))
    return len(kept)


def essential(content: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of a configuration that a row keeps."""
    return {key: content[key] for key in ESSENTIAL if key in content}


def read_export(path: Path, experiment: str | None = None, argument: str = "store") -> tuple[Row, list[Row]]:
    """The head line and the rows of an exported file, every value checked; keys of earlier forms are renamed.

    Errors: ValueError naming the `argument` that the file was given as, the line and the key, for a file that is none,
    that is damaged, or of another experiment.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"{argument}: {path} is not a file of exported runs: {reason}") from None
    lines = content.removesuffix(b"\n").split(b"\n")
    with fields.naming(f"{argument}: {path} is not a file of exported runs: line 1, "):
        head = fields.parse(lines[0])
    form = head.get("form")
    if form != FORM and not (isinstance(form, str) and form in FORMER):
        raise ValueError(f"{argument}: {path} has the form {form!r}, expected {FORM!r}")
    names = FORMER.get(form, {})
    head = _renamed(head, names)
    if names and fields.SKIPPED.fits(head.get("skipped")):
        head["skipped"] = [[model, _reworded(reason)] for model, reason in head["skipped"]]
    place = f"{argument}: {path} is damaged in line"
    with fields.naming(f"{place} 1, "):
        fields.check_fields(head, fields.HEAD, fields.HEAD)
    if experiment not in (None, head["experiment"]):
        raise ValueError(f"{argument}: {path} holds {head['experiment']!r}, expected {experiment!r}")
    rows, cells, runs = list[Row](), dict[str, int](), dict[str, tuple[int, Row]]()
    for number, line in enumerate(lines[1:], 2):
        with fields.naming(f"{place} {number}, "):
            row = _renamed(fields.parse(line), names)
            _check_row(row)
            _check_repeated(number, row, cells, runs)
        rows.append(row)
    return head, rows


def _renamed(row: Row, names: Mapping[str, str]) -> Row:
    return {names.get(key, key): value for key, value in row.items()}


def _reworded(reason: str) -> str:
    """The reason for a skipped size, as it is told now."""
    reason = re.sub(r"(\d+) were asked", r"expected about \1", reason)
    return re.sub(r"one of (\d+) numbers was asked", r"expected a state of \1 numbers", reason)


def labels_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a row that say which cell it is of."""
    return {name: value for name, value in row.items() if name not in fields.ROW}


def _check_row(row: Row) -> None:
    """ValueError for what is wrong with a row, taken by itself."""
    needed = ["key", "status"]
    if row.get("status") in (FINISHED, DIVERGED):
        needed.append("ended")
    if "ended" in row:
        needed += (*fields.NEEDED["train"], *ACCURACIES) if "task" in row else fields.NEEDED["throughput"]
    fields.check_fields(row, fields.ROW, needed)
    fields.check_fields(row, dict.fromkeys(labels_of(row), fields.LABEL))
    if "ended" not in row:
        return
    follows = {"status": row["status"]}
    if (row["ended"] == DIVERGED) != (row["status"] == DIVERGED):
        follows["status"] = DIVERGED if row["ended"] == DIVERGED else FINISHED
    if "accuracies" in row:
        follows["accuracy"] = row["accuracies"].get(str(row.get("length")))
        follows["mean_accuracy"] = mean_of(row["accuracies"])
    for name, value in follows.items():
        mean = name == "mean_accuracy" and None not in (value, row[name])
        if row[name] != value and not (mean and math.isclose(row[name], value, rel_tol=1e-12)):
            raise ValueError(
                f"{name}: got {row[name]!r}, expected {value!r}, which the rest of the line makes it"
            )


def _check_repeated(number: int, row: Row, cells: dict[str, int], runs: dict[str, tuple[int, Row]]) -> None:
    """ValueError unless every cell has one line, and cells that share a run share its results."""
    labels = labels_of(row)
    first = cells.setdefault(json.dumps([row["key"], labels], sort_keys=True), number)
    if first != number:
        raise ValueError(f"key: got {row['key']!r}, expected another cell than that of line {first}")
    where, known = runs.setdefault(row["key"], (number, row))
    for name in (row.keys() & known.keys()) - labels.keys() - {"status", "error"}:
        if row[name] != known[name]:
            told = f"{name}: got {row[name]!r:.60}, expected {known[name]!r:.60} as in line {where}"
            raise ValueError(f"{told}, which is of the same run")


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
    with fields.naming(f"{place} 1, "):
        plan = make_plan(experiment_of(head["experiment"]), head["preset"], head["settings"], to_run=False)
    jobs = {cell.job.key: cell.job for cell in plan.cells}
    labels: dict[str, list[dict[str, Any]]] = {}
    for cell in plan.cells:
        labels.setdefault(cell.job.key, []).append(cell.labels)
    ended = []
    for number, row in enumerate(rows, 2):
        if "ended" in row and row["key"] in jobs:
            with fields.naming(f"{place} {number}, "):
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
    summary = {key: row[key] for key in fields.SUMMARY if key in row} | {"status": row["ended"]}
    if job.kind == "train":
        summary["accuracy"] = row["accuracies"]
        last = {"train": {"kind": "train"}, "validation": {"kind": "eval", "split": "validation"}}
        lines = {curve: {**kind, "step": row["step"]} for curve, kind in last.items()}
        for name, (curve, value) in fields.CURVES.items():
            lines[curve][value] = row[name]
        folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines.values()))
    _write(folder.summary, summary)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """As `write_json`, which would wait for the disk."""
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(seal(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path.write_text(text, encoding="utf-8")
