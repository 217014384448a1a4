"""Damaged files of a store: the run is listed with the file's name, the others as they are; nothing is run again."""

from __future__ import annotations

import json
import os
import random
import shutil

import pytest
from statemix_research.paper.experiments import EXPERIMENTS
from statemix_research.paper.pages import page_lines
from statemix_research.paper.source import read_results
from statemix_research.sweeps import Store, export, jobs_of, rows_of, run_sweep
from statemix_research.sweeps.executors import Processes
from statemix_research.sweeps.store import history_line

from research.tests.sweeps.helpers import QUICK
from statemix.training import RunError

FILES = ("config.json", "summary.json", "metrics.jsonl", "attempts.jsonl", "spectrum.json")


def _link(path, to):
    path.unlink()
    path.symlink_to(to)


def _folder(path):
    path.unlink()
    path.mkdir()


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


def _edited(path, key, value):
    """Another value in the first JSON of a file, the digest as it was."""
    first, *rest = path.read_text().split("\n") if path.suffix == ".jsonl" else [path.read_text()]
    path.write_text("\n".join([json.dumps({**json.loads(first), key: value}), *rest]))


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-20] + b"\n"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "emptied": lambda path: path.write_bytes(b""),
    "list": lambda path: path.write_bytes(b"[1]\n"),
    "null": lambda path: path.write_bytes(b"null\n"),
    "no UTF-8": lambda path: path.write_bytes(path.read_bytes().replace(b'"', b'"\xff', 1)),
    "nested": lambda path: path.write_bytes(b"[" * 100_000),
    "folder": _folder,
    "pipe": _pipe,
    "link to nothing": lambda path: _link(path, "nowhere"),
    "link": lambda path: _link(path, "/dev/null"),
    "NaN": lambda path: _edited(path, "step", float("nan")),
    "infinity": lambda path: _edited(path, "step", float("inf")),
    "huge": lambda path: _edited(path, "step", 10**400),
}  # fmt: skip


def damaged_row(plan, store):
    """The row of the one run that is damaged; the others are as they were."""
    rows = rows_of(plan, store)
    (damaged,) = (row for row in rows if row["status"] == "damaged")
    assert [row["status"] for row in rows if row is not damaged] == ["finished"] * (len(rows) - 1)
    return damaged


CASES = [
    *((name, how) for name in ("summary.json", "metrics.jsonl") for how in DAMAGES),
    *((name, how) for name in ("config.json", "spectrum.json") for how in ("cut", "list", "link")),
    *(("attempts.jsonl", how) for how in ("emptied", "list", "link", "NaN")),
]
"""Every damage of a file of one object, and of lines; the others are read by the same functions."""


@pytest.mark.parametrize(("name", "how"), CASES)
def test_a_damaged_file_is_named(plan, victim, name, how):
    DAMAGES[how](victim / name)
    row = damaged_row(plan, Store(victim.parent))
    assert f"{victim.name}/{name}" in row["error"]
    assert "\n" not in row["error"]
    assert not row.keys() & {"accuracy", "ended", "negative"}


def test_flipped_bits_and_cut_ends_are_noticed(plan, victim):
    """Wherever they are, but for a line of the history that may have been cut off by a kill."""
    drawn = random.Random(0)
    for name in FILES:
        content = (victim / name).read_bytes()
        for _ in range(12):
            place, bit = drawn.randrange(len(content)), 1 << drawn.randrange(8)
            flipped = bytes([content[place] ^ bit])
            (victim / name).write_bytes(content[:place] + flipped + content[place + 1 :])
            status = Store(victim.parent).status(plan.cells[1].job)
            assert status == "damaged", (name, place, bit)
            if name != "attempts.jsonl":
                (victim / name).write_bytes(content[:place])
                assert Store(victim.parent).status(plan.cells[1].job) == "damaged", (name, place)
        (victim / name).write_bytes(content)
    assert Store(victim.parent).status(plan.cells[1].job) == "finished"


WITHOUT_DIGEST = {
    "summary.json": [("accuracy", {"16": 1.5}), ("accuracy", []), ("status", "finishd"), ("torch", 3), ("step", -1)],
    "spectrum.json": [("negative", 2), ("eigenvalues", [[1]]), ("complex", None)],
    "config.json": [("task", {}), ("training", [])],
}  # fmt: skip


@pytest.mark.parametrize("name", WITHOUT_DIGEST)
def test_values_of_files_without_digests_are_checked(plan, victim, name):
    """As earlier versions wrote them."""
    content = json.loads((victim / name).read_text())
    plain = {key: value for key, value in content.items() if key not in ("sha256", "run", "metrics_sha256")}
    (victim / name).write_text(json.dumps(plain))
    assert Store(victim.parent).status(plan.cells[1].job) == "finished"
    for key, value in WITHOUT_DIGEST[name]:
        (victim / name).write_text(json.dumps({**plain, key: value}))
        assert name in damaged_row(plan, Store(victim.parent))["error"]
        (victim / name).write_text(json.dumps({one: plain[one] for one in plain if one != key}))
        assert name in damaged_row(plan, Store(victim.parent))["error"]


def test_files_of_another_run_are_noticed(plan, victim):
    for name in FILES:
        other = victim.parent / plan.cells[2].job.key / name
        mine = (victim / name).read_bytes()
        (victim / name).write_bytes(other.read_bytes())
        assert damaged_row(plan, Store(victim.parent))["error"].count(victim.name)
        (victim / name).write_bytes(mine)


def test_a_run_that_is_no_folder_and_one_under_way(plan, victim):
    store = Store(victim.parent)
    (victim / "summary.json").unlink()
    (victim / "config.json").write_text("{")
    assert "config.json" in damaged_row(plan, store)["error"]
    shutil.rmtree(victim)
    victim.write_text("")
    assert "is not a folder" in damaged_row(plan, store)["error"]


def test_a_page_and_a_file_of_the_rest(plan, victim, tmp_path):
    (victim / "metrics.jsonl").write_bytes(b"")
    text = "\n".join(page_lines(read_results(EXPERIMENTS["fig3"], victim.parent, "small", QUICK)))
    assert f"- Runs: {len(plan.cells) - 1} finished, 1 damaged; preset small; read from" in text
    assert f"- Damaged: {victim.name}, S5, BD-LRU m = 2" in text
    assert f"{victim.name}/metrics.jsonl is damaged" in text
    store = Store(victim.parent)
    assert export(plan, rows_of(plan, store), tmp_path / "x.jsonl") == len(plan.cells) - 1


def test_a_sweep_neither_counts_nor_runs_what_is_damaged(plan, victim):
    store, todo = Store(victim.parent), jobs_of(plan.cells)
    (victim / "summary.json").write_text("{}")
    with Processes(1) as executor:
        progress = run_sweep(todo, store, executor, retry=True)
    assert (progress.counts["finished"], progress.counts["damaged"], progress.left) == (len(todo) - 1, 1, 0)
    assert f"{victim}/summary.json" in progress.damaged[victim.name]
    assert (victim / "summary.json").read_text() == "{}"


def test_a_history_of_earlier_versions_is_read(tmp_path):
    store = Store(tmp_path)
    store.folder("0" * 16).mkdir()
    path = store.history_path("0" * 16)
    path.write_bytes(b'{"event": "started", "time": "2026-01-31T12:00:00+00:00"}\n{"event": "en\n')
    assert [line["event"] for line in store.attempts("0" * 16)] == ["started"]
    path.write_bytes(history_line("1" * 16, "started"))
    with pytest.raises(RunError, match=r"attempts.jsonl line 1 is damaged: run: got '1111"):
        store.attempts("0" * 16)
