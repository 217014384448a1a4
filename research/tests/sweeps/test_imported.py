"""Every line of an exported file is checked before anything is written, and all of it comes in or nothing."""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from statemix_research.paper.experiments import EXPERIMENTS, get_experiment
from statemix_research.sweeps import Store, export, import_runs, make_plan, rows_of
from statemix_research.sweeps.rows import FORM, read_export
from statemix_research.sweeps.store import ADDED

from statemix.training import RunError

RECORD = Path(__file__).parents[2] / "results" / "fig3.jsonl"
HEAD, ROWS = read_export(RECORD)
HEAD = {**HEAD, "form": FORM}
ROWS = ROWS[:4]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def write(tmp_path):
    """A function that writes a head and rows as an exported file."""

    def written(rows=ROWS, **head):
        path = tmp_path / "x.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in ({**HEAD, **head}, *rows)))
        return path

    return written


def without(row, name):
    return {key: value for key, value in row.items() if key != name}


BAD = {
    "accuracy": 1.5, "accuracies": {"16": -0.1}, "mean_accuracy": 0.5, "best_accuracy": float("nan"),
    "train_loss": float("inf"), "validation": "0.9", "step": 1.5, "parameters": -1, "seconds": 10**400, "device": None,
    "torch": [2], "hardware": "\ud800", "date": "2026-02-30", "ended": "done", "status": "missing", "key": "xyz",
    "negative": 2, "eigenvalues": [[1.0]], "lr": [0.1], "seed": True, "model": float("inf"), "error": 3,
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_value_that_cannot_be_is_named(write, store, name):
    path = write([*ROWS[:2], {**ROWS[2], name: BAD[name]}, ROWS[3]])
    with pytest.raises(
        ValueError, match=rf"^file: {path} is damaged in line 4, {name}: got .*, expected "
    ) as caught:
        import_runs(path, store, get_experiment)
    assert "\n" not in str(caught.value)
    assert not store.path.exists()
    with pytest.raises(ValueError, match=rf"^store: {path} is damaged in line 4, {name}: got "):
        read_export(path)


def test_a_mean_may_be_rounded_otherwise(write):
    """Versions of Python add numbers in different ways, so that the last digit of a mean is not the same everywhere."""
    mean = ROWS[0]["mean_accuracy"]
    assert len(read_export(write([{**ROWS[0], "mean_accuracy": math.nextafter(mean, 0.0)}]))[1]) == 1
    for other in (mean - 1e-6, None):
        with pytest.raises(ValueError, match="line 2, mean_accuracy: got "):
            read_export(write([{**ROWS[0], "mean_accuracy": other}]))


@pytest.mark.parametrize("name", ["key", "status", "ended", "step", "accuracies", "validation", "device"])
def test_a_value_that_is_missing_is_named(write, store, name):
    path = write([ROWS[0], without(ROWS[1], name)])
    with pytest.raises(ValueError, match=rf"line 3, {name}: missing, expected "):
        import_runs(path, store, get_experiment)


CELLS = {
    "lr": (0.1, "lr: got 0.1, expected 0.001, as cells with the key 57f14884dc2f99dc have it"),
    "model": ("LSTM", "model: got 'LSTM', expected 'BD-LRU m = 1'"),
    "another": (1, "another: got 1, expected None"),
    "config": ({**ROWS[0]["config"], "mixer": {}}, "config: got another one than that of the key"),
}


@pytest.mark.parametrize("name", CELLS)
def test_a_row_fits_the_cell_of_its_key(write, store, name):
    value, words = CELLS[name]
    path = write([{**ROWS[0], name: value}])
    with pytest.raises(ValueError, match=f"is damaged in line 2, {words}"):
        import_runs(path, store, get_experiment)
    assert not store.path.exists()


def test_a_cell_comes_once_and_a_run_has_one_result(write, store):
    with pytest.raises(
        ValueError, match=r"line 5, key: got '57f1.*', expected another cell than that of line 2"
    ):
        import_runs(write([*ROWS[:3], ROWS[0]]), store, get_experiment)
    other = {**ROWS[0], "size": 640, "seconds": 1.0}
    with pytest.raises(ValueError, match=r"line 3, seconds: got 1.0, expected 198.666 as in line 2"):
        read_export(write([ROWS[0], other]))


HEADS = {
    "experiment": ("fig99", "line 1, experiment: got 'fig99', expected one of"),
    "preset": ("large", "line 1, preset: got 'large', expected one of"),
    "settings": (["training.stepz=1"], "line 1, .*training.stepz: unknown setting"),
    "skipped": ([1], r"line 1, skipped: got \[1\], expected a list of"),
    "cells": ("7", "line 1, cells: got '7', expected a whole number"),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_cannot_be_is_named(write, store, name):
    value, words = HEADS[name]
    with pytest.raises(ValueError, match=f"^file: .*x.jsonl is damaged in {words}"):
        import_runs(write(**{name: value}), store, get_experiment)
    assert not store.path.exists()


@pytest.mark.parametrize("content", [b"\xff\xfe{}", b"[" * 100_000, bytes(50), b"{}\n\n"])
def test_bytes_that_are_no_lines(store, tmp_path, content):
    path = write_after_head(tmp_path, content)
    with pytest.raises(ValueError, match=r"x\.jsonl is damaged in line [23], "):
        import_runs(path, store, get_experiment)


def write_after_head(tmp_path, content):
    path = tmp_path / "x.jsonl"
    path.write_bytes(json.dumps(HEAD).encode() + b"\n" + content)
    return path


def test_any_letter_of_an_error_comes_through(write):
    error = "".join(map(chr, range(32))) + "\x85\u2028\u2029 and \U0001f600"
    path = write([{"key": ROWS[0]["key"], "status": "failed", "error": error}, *ROWS[1:]])
    assert read_export(path)[1][0]["error"] == error


def before_added(rows):
    """Rows whose configurations lack the settings that came later, where those are at the value of before."""

    def told(section, entries):
        if not isinstance(entries, dict):
            return entries
        return {key: value for key, value in entries.items() if ADDED.get(f"{section}.{key}", ...) != value}

    return [
        row | {"config": {name: told(name, part) for name, part in row["config"].items()}} for row in rows
    ]


def test_a_record_comes_back_to_the_same_bytes(store, tmp_path):
    """A file of the earlier form comes back as one of the present form, which then is exported to the same bytes."""
    assert import_runs(RECORD, store, get_experiment).new == 70
    plan, again = make_plan(EXPERIMENTS["fig3"], "full", to_run=False), tmp_path / "again.jsonl"
    export(plan, rows_of(plan, store), again)
    assert before_added(read_export(again)[1]) == read_export(RECORD)[1]
    other = Store(tmp_path / "other")
    import_runs(again, other, get_experiment)
    export(plan, rows_of(plan, other), tmp_path / "third.jsonl")
    assert (tmp_path / "third.jsonl").read_bytes() == again.read_bytes()


def contents(store):
    return {
        path.relative_to(store.path): path.is_file() and path.read_bytes() for path in store.path.rglob("*")
    }


@pytest.mark.parametrize("there", [False, True])
def test_after_an_error_nothing_has_come_in(write, store, monkeypatch, there):
    """Also into the folder of a run that is there, and lacks a measurement."""
    if there:
        import_runs(write(ROWS[3:]), store, get_experiment)
        store.probe_path(ROWS[3]["key"], "spectrum").unlink()
    before, moved, rename = contents(store), [], Path.rename

    def failing(self, target):
        moved.append(self)
        if len(moved) == 3:
            raise OSError(28, "No space left on device", str(self))
        return rename(self, target)

    path = write()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", failing)
        with pytest.raises(RunError, match="No space left on device"):
            import_runs(path, store, get_experiment)
    assert len(moved) > 3  # and back
    assert contents(store) == before
    assert import_runs(path, store, get_experiment).new == (3 if there else 4)
    assert store.probed(ROWS[3]["key"], "spectrum") is not None


def test_what_a_killed_import_left_goes_at_the_next(write, store):
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    left = store.path / f".import-0badcafe.{socket.gethostname()}.{int(child.stdout)}.tmp"
    of_another = store.path / f".import-0badcafe.elsewhere.{int(child.stdout)}.tmp"
    for folder in (left, of_another):
        (folder / ROWS[0]["key"]).mkdir(parents=True)
        (folder / ROWS[0]["key"] / "config.json").write_text("{")
    import_runs(write(), store, get_experiment)
    assert not left.exists()
    assert of_another.exists()
    assert {path.name for path in store.path.iterdir()} == {row["key"] for row in ROWS} | {of_another.name}


def test_a_damaged_run_of_the_store_is_named_before_anything_is_written(write, store):
    import_runs(write(ROWS[:1]), store, get_experiment)
    summary = store.folder(ROWS[0]["key"]) / "summary.json"
    summary.write_text("{}")
    with pytest.raises(RunError, match=rf"{summary}"):
        import_runs(write(), store, get_experiment)
    assert [path.name for path in store.path.iterdir()] == [ROWS[0]["key"]]
