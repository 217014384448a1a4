"""Runs of every kind: how they are found, grouped, labelled and shown when they did not finish."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from statemix.report import write_report
from statemix.report.drawing import LOOKS, draw_line, look_of, new_figure
from statemix.report.figures import accuracy_length, group_eigenvalues
from statemix.report.runs import find_runs, mixer_label, read_groups
from statemix.report.tables import make_rows
from statemix.training import resolve_config, train
from statemix.training.files import read_json, write_json
from tests.report.copies import copy_run
from tests.report.page import Page
from tests.training.small import small


def test_runs_that_did_not_finish_are_listed(runs, tmp_path):
    path = runs / "block-2" / "summary.json"
    write_json(path, read_json(path) | {"status": "diverged", "accuracy": {}})
    (runs / "block-1" / "summary.json").unlink()
    (runs / "block-1" / "model.safetensors").unlink()
    with (runs / "block-1" / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # in the middle of a line
    page = write_report([runs], tmp_path / "out")
    row = Page(page.read_text()).rows()["BD-LRU m = 3"]
    assert row["n"] == "3"
    assert row["status"] == "1 finished, 1 running, 1 diverged"
    assert row["accuracy at 6"] == "0.900 (n = 1)"  # not the three that the row is about
    assert row["steps"] == "60"
    assert "(2 finished, 1 running, 1 diverged)" in " ".join(page.read_text().split())


def test_a_run_without_weights_yet(runs, trained, tmp_path):
    for name in ("summary.json", "model.safetensors"):
        (runs / "order-0" / name).unlink()
    (row,) = Page(write_report([runs / "order-0"], tmp_path / "out").read_text()).rows().values()
    assert (row["status"], row["steps"], row["seconds"]) == ("1 running", "60", "–")
    assert (row["state size"], row["parameters"]) == ("–", "–")


def test_a_run_whose_weights_are_nan(tmp_path, capfd):
    """As a real divergence leaves them: shown as diverged, never given to LAPACK, another seed preferred."""
    train(small("training.lr=1e30", "training.gradient_clip=0.0", "training.warmup=1"), tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "diverged"
    (row,) = Page(write_report([tmp_path / "run"], tmp_path / "out").read_text()).rows().values()
    assert row["status"] == "1 diverged"
    (group,) = read_groups([tmp_path / "run"])
    assert all(values.isnan().all() for values in group_eigenvalues(group))
    assert "ERROR" not in "".join(capfd.readouterr())


def test_the_spectrum_is_of_a_seed_that_did_not_diverge(runs):
    path = runs / "block-0" / "summary.json"
    first = read_groups([runs / "block-0", runs / "block-1"])
    write_json(path, read_json(path) | {"status": "diverged", "accuracy": {}})
    shown = read_groups([runs / "block-0", runs / "block-1"])
    alone = read_groups([runs / "block-1"])
    assert torch.equal(group_eigenvalues(shown[0])[0], group_eigenvalues(alone[0])[0])
    assert not torch.equal(group_eigenvalues(shown[0])[0], group_eigenvalues(first[0])[0])


def test_a_run_named_twice_counts_once(runs, monkeypatch):
    monkeypatch.chdir(runs)
    assert len(find_runs([runs / "block-0", "block-0", runs])) == 4


def test_tasks_that_differ_are_in_the_labels(trained, tmp_path):
    four = copy_run(trained / "order-0", tmp_path / "four", {"task.n": 4})
    labels = [group.label for group in read_groups([trained / "block-0", four])]
    assert labels == ["BD-LRU m = 3 (n 3)", "H-LRU m = 2 (n 4)"]


def test_one_colour_for_each_model(runs, tmp_path):
    copy_run(runs / "block-0", runs / "other", {"training.lr": 0.5})
    for seed in (1, 2):
        shutil.rmtree(runs / f"block-{seed}")
    groups = read_groups([runs])
    assert [group.look.color for group in groups] == [
        LOOKS["bdlru3"].color,
        LOOKS["hlru2"].color,
        LOOKS["bdlru3"].color,
    ]
    assert groups[0].line != groups[2].line
    text = write_report([runs], tmp_path / "out").read_text()
    assert text.count(f"background:{groups[0].look.color}") == 2
    for figure in ("learning_curves", "accuracy_length"):
        drawn = (tmp_path / "out" / f"{figure}.svg").read_text().lower()
        assert all(group.look.color.lower() in drawn for group in groups)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("bdlru-4", "BD-LRU m = 4"),
        ("hlru-16", "H-LRU m = 16"),
        ("mamba2", "Mamba-2"),
        ("gated_deltaproduct-2", "Gated DeltaProduct, 2"),
        ("bdlru-1", "diagonal (m = 1)"),
        ("hard-bdlru-4", "hard BD-LRU m = 4"),
    ],
)
def test_a_model_has_one_look_by_any_of_its_names(name, label):
    assert look_of(name) == look_of(label) != look_of("mine")


def test_models_differ_in_colour():
    colors = [look.color for name, look in LOOKS.items() if name not in ("bdlru", "hlru", "bdlru1", "hlru1")]
    assert len(colors) - len(set(colors)) == 1  # DeltaProduct by either name


def test_saturated_accuracies_are_zoomed(runs):
    copy_run(runs / "block-0", runs / "in" / "a", accuracy={"6": 1.0, "12": 0.998})
    (axes,) = accuracy_length(read_groups([runs / "in"])).axes
    assert 0.99 < axes.get_ylim()[0] < 0.998
    (axes,) = accuracy_length(read_groups([runs / "block-0"])).axes
    assert axes.get_ylim()[0] == 0


def test_a_default_number_of_blocks_is_shown(tmp_path):
    settings = [f"mixer.{k}={v}" for k, v in (("name", "hlru"), ("order", 3))]
    train(small(*settings, "training.steps=8"), tmp_path / "run")
    (row,) = make_rows(read_groups([tmp_path / "run"]))
    assert (row["m"], row["N"]) == (3, 3)  # round(8 / 3)


def test_the_demo_presets_have_their_labels():
    names = [mixer_label(resolve_config(f"demo-{kind}").mixer) for kind in ("diagonal", "bdlru", "hard")]
    assert names == ["diagonal (m = 1)", "BD-LRU m = 4", "hard BD-LRU m = 4"]


def test_hard_layers_in_the_label():
    labels = [
        mixer_label({"name": "bdlru", "block_size": 4, "hard": rows})
        for rows in ([True, False], [True, True], [False])
    ]
    assert labels == ["half-hard BD-LRU m = 4", "hard BD-LRU m = 4", "BD-LRU m = 4"]


def test_a_point_alone_has_a_bar_for_a_band():
    axes = new_figure(2, 2).subplots()
    draw_line(axes, [4], [0.5], [0.25], [0.75], "#000000")
    _, bar = axes.collections
    assert bar.get_segments()[0].tolist() == [[4, 0.25], [4, 0.75]]
