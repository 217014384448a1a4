"""Many runs and long ones: grouped, thinned, and read in little time and memory."""

from __future__ import annotations

import os
import time
from array import array
from pathlib import Path

import pytest

from statemix.report import write_report
from statemix.report.drawing import MAX_SERIES, OTHERS, look_of
from statemix.report.figures import PANELS, accuracy_length, spectrum_groups
from statemix.report.runs import POINTS, merge_groups, read_groups, read_metrics, thinned
from tests.report.copies import copy_run
from tests.report.page import Page


@pytest.fixture(scope="module")
def many(trained, tmp_path_factory):
    """60 runs of 30 configurations of two models."""
    root = tmp_path_factory.mktemp("many")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        for k in range(60):
            source = trained / ("block-0", "order-0")[k % 2]
            settings = {"training.lr": 0.001 * (1 + k // 4), "training.seed": k // 2 % 2}
            copy_run(source, root / f"run-{k:03}", settings, accuracy={"6": 0.5 + k / 1000, "12": 0.2})
    return root


def test_60_runs_are_grouped_in_little_time(many, tmp_path):
    began = time.process_time()
    text = write_report([many], tmp_path).read_text()
    assert time.process_time() - began < 10  # a panel and a legend entry each took minutes
    assert "60 runs, grouped by model: 30 configurations in 2 groups." in text
    assert f"the {PANELS} of 30 configurations" in text
    assert len(Page(text).rows()) == 30
    assert len(text) < 3e6
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 31


def test_configurations_drawn_together_share_a_colour(many):
    groups = read_groups([many])
    drawn = merge_groups(groups)
    assert [(group.label, len(group.runs), group.configurations) for group in drawn] == [
        ("BD-LRU m = 3", 30, 15),
        ("H-LRU m = 2", 30, 15),
    ]
    assert (
        {group.look for group in groups}
        == {group.look for group in drawn}
        == set(map(look_of, ("bdlru-3", "hlru-2")))
    )
    assert len({group.label for group in groups}) == 30
    (legend,) = accuracy_length(drawn).legends
    labels = [" ".join(text.get_text().split()) for text in legend.get_texts()]
    models = ["BD-LRU m = 3: 15 configurations", "H-LRU m = 2: 15 configurations"]
    assert labels == [*models, "training length", "chance"]


def test_more_models_than_a_panel_has_room_for_are_put_together(trained, tmp_path):
    for order in range(1, 13):
        copy_run(
            trained / "order-0", tmp_path / f"{order:02}", {"mixer.order": order}, best_accuracy=order / 20
        )
    drawn = merge_groups(read_groups([tmp_path]))
    assert len(drawn) == MAX_SERIES and drawn[-1].look == OTHERS
    assert drawn[0].label == "H-LRU m = 12"
    assert (drawn[-1].label, len(drawn[-1].runs)) == ("5 others", 5)
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
def test_half_a_million_lines_take_little_memory(tmp_path):
    pytest.importorskip("pandas")  # not a part of what is measured
    path = tmp_path / "metrics.jsonl"
    with path.open("w") as file:
        file.writelines(f'{{"kind": "train", "step": {step}, "loss": 0.5}}\n' for step in range(500_000))
    (PROCESS / "clear_refs").write_text("5")  # the peak begins anew
    before = peak_megabytes()
    last_step, curves = read_metrics(path)
    assert last_step == 499_999
    assert POINTS <= len(curves["loss"]) <= 2 * POINTS + 1
    assert peak_megabytes() - before < 50  # as dictionaries they are several hundred


def test_short_curves_are_whole():
    points = array("q", range(0, 6 * POINTS, 3))
    assert thinned(points) == points
    assert list(thinned(array("d"))) == []


def test_long_curves_keep_their_shape_their_end_and_common_steps():
    long, longer = (thinned(array("q", range(count))) for count in (5 * POINTS + 1, 50 * POINTS))
    for steps, count in ((long, 5 * POINTS + 1), (longer, 50 * POINTS)):
        assert POINTS <= len(steps) <= 2 * POINTS + 1
        assert (steps[0], steps[-1]) == (0, count - 1)
    assert {step for step in longer if step < long[-1]} <= set(long)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"kind": "train", "step": "8", "loss": 1.0}', "'str' object"),
        ('{"kind": "train", "step": 1.5, "loss": 1.0}', "'float' object"),
        ('{"kind": "train", "step": 8, "loss": "low"}', "must be real number, not str"),
        (
            '{"kind": "eval", "step": 8, "split": "validation", "accuracy": [1]}',
            "must be real number, not list",
        ),
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
    last_step, curves = read_metrics(path)
    assert last_step == 6
    assert all(curve.empty for curve in curves.values())
