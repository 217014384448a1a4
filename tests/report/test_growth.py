"""Many runs and long ones: grouped, thinned, and read in little time and memory."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest

from statemix.report import write_report
from statemix.report.captions import PANELS
from statemix.report.curves import POINTS, Thinned, read_metrics
from statemix.report.figures import accuracy_length, spectrum_groups
from statemix.report.groups import COLORS, merge_groups, read_groups
from tests.report.copies import copy_run
from tests.report.page import Page


@pytest.fixture(scope="module")
def many(trained, tmp_path_factory):
    """300 runs of 150 configurations of two models."""
    root = tmp_path_factory.mktemp("many")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        for k in range(300):
            source = trained / ("block-0", "order-0")[k % 2]
            settings = {"training.lr": 0.001 * (1 + k // 4), "training.seed": k // 2 % 2}
            copy_run(source, root / f"run-{k:03}", settings, accuracy={"6": 0.5 + k / 1000, "12": 0.2})
    return root


def test_300_runs_are_grouped_in_little_time(many, tmp_path):
    began = time.process_time()
    text = write_report([many], tmp_path).read_text()
    assert time.process_time() - began < 30  # 300 panels and legends took minutes
    assert "300 runs: grouped by model, 150 configurations in 2 groups." in text
    assert f"the {PANELS} of 150 configurations" in text
    assert len(Page(text).rows()) == 150
    assert len(text) < 3e6
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 151


def test_configurations_drawn_together_share_a_colour(many):
    groups = read_groups([many])
    drawn = merge_groups(groups)
    assert [(group.label, len(group.runs), group.configurations) for group in drawn] == [
        ("BD-LRU m = 3", 150, 75),
        ("H-LRU m = 2", 150, 75),
    ]
    assert {group.color for group in groups} == {group.color for group in drawn} == set(COLORS[:2])
    assert len({group.label for group in groups}) == 150
    (legend,) = accuracy_length(drawn).legends
    labels = [" ".join(text.get_text().split()) for text in legend.get_texts()]
    assert labels == ["BD-LRU m = 3: 75 configurations", "H-LRU m = 2: 75 configurations"]


def test_models_beyond_the_colours_are_put_together(trained, tmp_path):
    for order in range(1, 13):
        copy_run(
            trained / "order-0", tmp_path / f"{order:02}", {"mixer.order": order}, best_accuracy=order / 20
        )
    drawn = merge_groups(read_groups([tmp_path]))
    assert len(drawn) == len(COLORS)
    assert drawn[0].label == "H-LRU m = 12"
    assert (drawn[-1].label, len(drawn[-1].runs)) == ("4 others", 4)
    assert sum(len(group.runs) for group in drawn) == 12


def test_the_spectra_are_of_the_best(trained, tmp_path):
    for k in range(PANELS + 2):
        best, status = (1.0, "diverged") if k == 0 else (k / 20, "finished")
        copy_run(
            trained / "order-0",
            tmp_path / f"{k:02}",
            {"training.lr": 1.0 + k},
            best_accuracy=best,
            status=status,
        )
    shown = [group.config["training"]["lr"] for group in spectrum_groups(read_groups([tmp_path]))]
    assert shown == [float(k + 1) for k in range(2, PANELS + 2)]


PROCESS = Path("/proc/self")


def peak_megabytes():
    (line,) = [line for line in (PROCESS / "status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


@pytest.mark.skipif(
    not (PROCESS / "clear_refs").exists(), reason="the peak of memory is read as Linux tells it"
)
def test_a_million_lines_take_little_memory(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"kind": "train", "step": step, "loss": 1 / (1 + step)}) for step in range(10_000)]
    path.write_text(("\n".join(lines) + "\n") * 100)
    (PROCESS / "clear_refs").write_text("5")  # the peak begins anew
    before = peak_megabytes()
    metrics = read_metrics(path)
    assert metrics.last_step == 9999
    assert POINTS <= len(metrics.curves["train", "loss"].steps) <= 2 * POINTS
    assert peak_megabytes() - before < 50  # as dictionaries they are almost a thousand


def thinned(count):
    curve = Thinned()
    for step in range(count):
        curve.add(3 * step, step / 7)
    return curve.curve()


def test_short_curves_are_whole():
    curve = thinned(2 * POINTS - 1)
    assert list(curve.steps) == list(range(0, 6 * POINTS - 3, 3))
    assert list(curve.values) == [step / 7 for step in range(2 * POINTS - 1)]
    assert list(thinned(0).steps) == []


def test_long_curves_keep_their_shape_their_end_and_common_steps():
    long, longer = thinned(5 * POINTS + 1), thinned(50 * POINTS)
    for curve, count in ((long, 5 * POINTS + 1), (longer, 50 * POINTS)):
        assert POINTS <= len(curve.steps) <= 2 * POINTS + 1
        assert (curve.steps[0], curve.steps[-1]) == (0, 3 * (count - 1))
        assert all(value == pytest.approx(step / 21) for step, value in zip(*curve, strict=True))
    inside = {step for step in longer.steps if step < long.steps[-1]}
    assert inside <= set(long.steps)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"kind": "train", "step": "8", "loss": 1.0}', r"step: got '8', expected a whole number"),
        ('{"kind": "train", "step": 1.5, "loss": 1.0}', r"step: got 1.5"),
        ('{"kind": "train", "step": 8, "loss": "low"}', r"loss: got 'low', expected a number or null"),
        ('{"kind": "eval", "step": 8, "split": "validation", "accuracy": [1]}', r"accuracy: got \[1\]"),
        ('{"kind": "train", "step": 1' + "0" * 30 + ', "loss": 1.0}', "is not a line of metrics"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_a_line_that_is_no_metric_is_named(tmp_path, line, message):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"kind": "note", "step": 1}}\n{line}\n{{"kind": "note", "step": 3}}\n')
    with pytest.raises(ValueError, match=rf"metrics\.jsonl line 2 .*{message}"):
        read_metrics(path)


def test_other_lines_and_separators_are_no_curves(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"kind": "eval", "step": 4, "split": "test", "accuracy": 0.1}\n'
        '{"kind": "train", "step": 5, "loss": null}\n'
        '{"kind": "note\u2028", "step": 6}\n{"kind": "eval", "step": 7, "acc'
    )
    metrics = read_metrics(path)
    assert metrics.last_step == 6
    assert all(not curve.steps for curve in metrics.curves.values())


def test_unfinished_models_are_built_once(many, tmp_path, monkeypatch):
    """Costs of runs without a summary are counted once for each model, not for each learning rate."""
    from statemix.report import table

    built = []
    real = table.build_model
    monkeypatch.setattr(table, "build_model", lambda *arguments: built.append(1) or real(*arguments))
    table._counted.cache_clear()
    for k in range(0, 40, 4):
        run = copy_run(many / f"run-{k:03}", tmp_path / f"{k}")
        (run / "summary.json").unlink()
    text = write_report([tmp_path], tmp_path / "out").read_text()
    assert len(built) == 1
    assert re.search(r"1 running", text)
