"""The page: what it says is what the runs say, it needs no network, and it refuses what is no run."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import struct
import sys

import pytest

from statemix.report import write_report
from statemix.training import RunError
from statemix.training.files import read_json, write_json
from tests.report.page import Page


def test_the_page_says_what_the_runs_say(trained, page):
    assert page.name == "index.html"
    parsed = Page(page.read_text())
    assert parsed.open == []
    rows = parsed.rows()
    block, order = rows["BD-LRU m = 3"], rows["H-LRU m = 2"]
    assert len(rows) == 2
    assert (block["m"], block["N"], block["n"]) == ("3", "4", "3")
    assert block["accuracy at 6"] == "0.900 (0.800–1.000)"
    assert block["accuracy at 12"] == "0.300 (0.100–0.500)"
    summary = json.loads((trained / "block-0" / "summary.json").read_text())
    assert block["state size"] == "12"
    assert int(re.sub(r"\D", "", block["FLOPs per token"])) == summary["flops_per_token"]
    assert int(re.sub(r"\D", "", block["parameters"])) == summary["parameters"]
    assert block["status"] == "3 finished"
    assert order["n"] == "1"
    assert "–" not in order["accuracy at 6"]
    with (page.parent / "runs.csv").open() as file:
        first = next(csv.DictReader(file))
    assert float(first["accuracy at 12"]) == pytest.approx(0.3)
    assert float(first["accuracy at 12 sd"]) == pytest.approx(math.sqrt(0.04))
    assert first["accuracy at 12 n"] == "3"
    assert (first["accuracy at 12 min"], first["accuracy at 12 max"]) == ("0.1", "0.5")


def test_the_page_needs_nothing_beside_it(page):
    text = page.read_text()
    assert all(load.startswith("data:image/svg+xml;base64,") for load in Page(text).loads)
    assert len(Page(text).loads) == 3
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL).group(1)
    assert "url(" not in style
    assert "@import" not in style
    assert "<script" not in text
    for figure in page.parent.glob("*.svg"):
        loads = re.findall(r'(?:href|src)="([^"]*)"', figure.read_text())
        assert all(load.startswith(("#", "data:")) for load in loads)
    files = sorted(path.name for path in page.parent.iterdir())
    stems = ("accuracy_length", "eigenvalues", "learning_curves")
    assert files == sorted([*(f"{s}.{e}" for s in stems for e in ("png", "svg")), "index.html", "runs.csv"])
    for name in files:
        if name.endswith(".png"):
            width, height = struct.unpack(">II", (page.parent / name).read_bytes()[16:24])
            assert width > 600
            assert height > 300


def test_the_same_runs_give_the_same_figures(runs, page, tmp_path):
    write_report([runs], tmp_path)
    for figure in page.parent.glob("*.svg"):
        assert figure.read_bytes() == (tmp_path / figure.name).read_bytes()


def test_the_page_says_whether_splits_are_disjoint(page):
    text = page.read_text()
    assert "At length 6 train, validation and test can share instances" in text
    assert "trained at length 6" in text


def test_errors(runs, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = (
        ([], "folders: got none"),
        ([empty], "empty has no run in it, expected a run folder"),
        ([tmp_path / "absent"], "absent does not exist"),
        ([runs / "block-0" / "config.json"], "is not a folder"),
    )
    for folders, message in cases:
        with pytest.raises(ValueError, match=message):
            write_report(folders, tmp_path / "out")
    line = '{"kind": "train", "step": 8, "loss": null}'
    strange = read_json(runs / "block-0" / "config.json")
    strange["training"]["speed"] = 3
    for name, content, message in (
        ("metrics.jsonl", f"{line}\nnonsense\n{line}\n", "metrics.jsonl line 2 is not JSON"),
        ("metrics.jsonl", f"{line}\n[]\n", "metrics.jsonl line 2 is not a line of metrics"),
        ("summary.json", '{"accuracy": [1]}', "block-0/summary.json is not the summary of a run"),
        ("summary.json", '{"accuracy": {"6": null}}', "block-0/summary.json is not the summary of a run"),
        (
            "config.json",
            json.dumps(strange),
            "block-0/config.json is not .*: training.speed: unknown setting",
        ),
        ("summary.json", "nonsense", "block-0 is not a run: cannot read .*summary.json"),
        ("config.json", "[]", "config.json holds list"),
        ("config.json", "{}", "config.json is not a configuration of a run"),
    ):
        before = (runs / "block-0" / name).read_text()
        (runs / "block-0" / name).write_text(content)
        with pytest.raises(ValueError, match=message):
            write_report([runs / "block-0"], tmp_path / "out")
        (runs / "block-0" / name).write_text(before)
    (runs / "block-0" / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match=r"block-0 is not a run: cannot read metrics.jsonl"):
        write_report([runs], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_before_all_is_made(page, runs, tmp_path):
    """The eigenvalues are the last figure; weights that cannot be read leave the older page as it was."""
    older = shutil.copytree(page.parent, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in older.iterdir()}
    (runs / "block-0" / "model.safetensors").write_bytes(b"damaged")
    summary = runs / "block-1" / "summary.json"
    write_json(summary, read_json(summary) | {"accuracy": {"6": 0.1}})
    with pytest.raises(RunError, match="block-0"):
        write_report([runs / "block-0", runs / "block-1"], older)
    assert {path.name: path.read_bytes() for path in older.iterdir()} == before


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2", "pandas"])
def test_a_missing_extra(runs, tmp_path, monkeypatch, missing):
    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "matplotlib":
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=rf'pip install "{missing}>='):
        write_report([runs], tmp_path / "out")
