"""The page: what it says is what the runs say, it needs no network, and it refuses what is no run."""

from __future__ import annotations

import csv
import html.parser
import json
import math
import re
import shutil
import struct
import sys

import pytest

from statemix.report import write_readme_picture, write_report
from statemix.training import resolve_config, train
from tests.training.small import small

ACCURACY = {0: {"6": 0.9, "12": 0.5}, 1: {"6": 0.8, "12": 0.3}, 2: {"6": 1.0, "12": 0.1}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Real runs, their test accuracies replaced by known ones: three seeds of BD-LRU, one of H-LRU."""
    root = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        folder = root / f"block-{seed}"
        train(small(f"training.seed={seed}"), folder)
        summary = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps(summary | {"accuracy": ACCURACY[seed]}))
    train(small("mixer.name=hlru", "mixer.order=2", "mixer.num_channels=3"), root / "order-0")
    return root


@pytest.fixture
def runs(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "runs")


class Page(html.parser.HTMLParser):
    """Everything a page would load, its cells, its open tags."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.loads, self.cells, self.open, self.row = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.row.append("")
        if tag == "tr":
            self.row = []
            self.cells.append(self.row)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.row[-1] += data.strip()


def test_the_page_says_what_the_runs_say(runs, tmp_path):
    page = write_report([runs], tmp_path / "out")
    assert page == tmp_path / "out" / "index.html"
    parsed = Page(page.read_text())
    assert parsed.open == []
    header, block, order = parsed.cells
    block = dict(zip(header, block, strict=True))
    assert block["configuration"] == "BD-LRU m = 3"
    assert (block["m"], block["N"], block["n"]) == ("3", "4", "3")
    assert block["accuracy at 6"] == "0.900 ± 0.100"
    assert block["accuracy at 12"] == "0.300 ± 0.200"
    summary = json.loads((runs / "block-0" / "summary.json").read_text())
    assert (block["state size"], block["FLOPs per step"]) == ("12", "84")
    assert int(re.sub(r"\D", "", block["parameters"])) == summary["parameters"]
    assert block["status"] == "3 finished"
    order = dict(zip(header, order, strict=True))
    assert (order["configuration"], order["n"]) == ("H-LRU m = 2", "1")
    assert "±" not in order["accuracy at 6"]
    with (tmp_path / "out" / "runs.csv").open() as file:
        first = next(csv.DictReader(file))
    assert float(first["accuracy at 12"]) == pytest.approx(0.3)
    assert float(first["accuracy at 12 sd"]) == pytest.approx(math.sqrt(0.04))
    assert first["accuracy at 12 n"] == "3"


def test_the_page_needs_nothing_beside_it(runs, tmp_path):
    text = write_report([runs], tmp_path / "out").read_text()
    assert all(load.startswith("data:image/svg+xml;base64,") for load in Page(text).loads)
    assert len(Page(text).loads) == 3
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL).group(1)
    assert "url(" not in style
    assert "@import" not in style
    assert "<script" not in text
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    stems = ("accuracy_length", "eigenvalues", "learning_curves")
    assert files == sorted([*(f"{s}.{e}" for s in stems for e in ("png", "svg")), "index.html", "runs.csv"])
    for name in files:
        if name.endswith(".png"):
            width, height = struct.unpack(">II", (tmp_path / "out" / name).read_bytes()[16:24])
            assert width > 600
            assert height > 300


def test_the_same_runs_give_the_same_figures(runs, tmp_path):
    for out in ("a", "b"):
        write_report([runs], tmp_path / out)
    for figure in (tmp_path / "a").glob("*.svg"):
        assert figure.read_bytes() == (tmp_path / "b" / figure.name).read_bytes()


def test_runs_that_did_not_finish_are_listed(runs, tmp_path):
    path = runs / "block-2" / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "diverged", "accuracy": {}}))
    (runs / "block-1" / "summary.json").unlink()
    (runs / "block-1" / "model.safetensors").unlink()
    with (runs / "block-1" / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # in the middle of a line
    cells = Page(write_report([runs], tmp_path / "out").read_text()).cells
    row = dict(zip(cells[0], cells[1], strict=True))
    assert row["n"] == "3"
    assert row["status"] == "1 finished, 1 running, 1 diverged"
    assert row["accuracy at 6"] == "0.900"


def test_a_run_without_weights_yet(runs, tmp_path):
    for name in ("summary.json", "model.safetensors"):
        (runs / "order-0" / name).unlink()
    write_report([runs / "order-0"], tmp_path / "out")
    assert "no weights yet" not in (tmp_path / "out" / "index.html").read_text()  # drawn into the figure
    assert (tmp_path / "out" / "index.html").exists()


def test_hostile_names_are_escaped(runs, tmp_path):
    path = runs / "order-0" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"name": "<script>alert(1)</script>"}))
    text = write_report([runs], tmp_path / "out").read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_configurations_that_look_alike_are_told_apart(trained, tmp_path):
    for name, lr in (("a", 0.01), ("b", 0.02)):
        train(small("training.steps=8", f"training.lr={lr}"), tmp_path / name)
    text = write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "out").read_text()
    assert "BD-LRU m = 3 (lr 0.01)" in text
    assert "BD-LRU m = 3 (lr 0.02)" in text


def test_the_readme_picture(runs, tmp_path):
    path = write_readme_picture([runs], tmp_path / "docs" / "picture.png")
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    assert width > 2 * height > 800


def test_a_default_number_of_blocks_is_shown(tmp_path):
    settings = [f"mixer.{k}={v}" for k, v in (("name", "hlru"), ("order", 3))]
    train(small(*settings, "training.steps=8"), tmp_path / "run")
    cells = Page(write_report([tmp_path / "run"], tmp_path / "out").read_text()).cells
    assert dict(zip(cells[0], cells[1], strict=True))["N"] == "3"  # round(8 / 3)


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
    for name, content, message in (
        ("metrics.jsonl", "{}\nnonsense\n{}\n", "metrics.jsonl line 2 is not JSON"),
        ("summary.json", "nonsense", "block-0 is not a run: cannot read summary.json"),
        ("config.json", "[]", "config.json holds list"),
        ("config.json", "{}", "config.json is not a configuration of a run"),
    ):
        before = (runs / "block-0" / name).read_text()
        (runs / "block-0" / name).write_text(content)
        with pytest.raises(ValueError, match=message):
            write_report([runs / "block-0"], tmp_path / "out")
        (runs / "block-0" / name).write_text(before)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_a_missing_extra(runs, tmp_path, monkeypatch, missing):
    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "matplotlib":
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "statemix\[report\]"'):
        write_report([runs], tmp_path / "out")


def test_the_demo_presets_have_their_labels():
    from statemix.report.groups import mixer_label

    names = [mixer_label(resolve_config(f"demo-{kind}").mixer) for kind in ("diagonal", "bdlru", "hlru")]
    assert names == ["diagonal (m = 1)", "BD-LRU m = 3", "H-LRU m = 3"]
