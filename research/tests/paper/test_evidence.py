"""Figures of experiments, from rows made up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from statemix_research.paper.evidence import Evidence, _origin
from statemix_research.paper.evidence_checks import checked, read_checks
from statemix_research.paper.evidence_figures import draw
from statemix_research.paper.evidence_ranking import entries_of
from statemix_research.paper.evidence_tables import listed, table
from statemix_research.sweeps import get_experiment
from statemix_research.sweeps.experiment import FigureView, TableView

TASKS = ["parity", "even pairs"]
RANKING = FigureView(
    "r", "Ranking", y="mean_accuracy", panel="", kind="ranking", across="task", over=("lr",),
    where={"task": TASKS}, published={"Theirs": (0.8, 0.1), "Others": (0.25, 0.0)},
)  # fmt: skip


def row(model, task, seed, value, validation=0.5, lr=0.1):
    return {
        "model": model, "task": task, "seed": seed, "lr": lr, "mean_accuracy": value, "validation": validation,
        "status": "finished",
    }  # fmt: skip


ROWS = [
    row("A", "parity", 0, 0.6), row("A", "parity", 1, 1.0),
    row("A", "even pairs", 0, 0.5), row("A", "even pairs", 1, 0.5),
    row("A", "parity", 0, 1.0, validation=0.1, lr=0.2),  # better on test data, not chosen
    row("B", "parity", 0, 0.9),  # never run on even pairs
    row("C", "parity", 0, 0.2), row("C", "even pairs", 0, 0.4),
]  # fmt: skip


def test_a_ranking_is_of_what_ran_on_every_task_among_what_is_published():
    entries = entries_of(RANKING, ROWS)
    assert [one.label for one in entries] == ["Others (published)", "C", "A", "Theirs (published)"]
    assert [one.value.mean for one in entries] == pytest.approx([0.25, 0.3, 0.65, 0.8])
    assert sorted(entries[2].runs) == [0.5, 0.5, 0.6, 1.0]
    assert [one.ours for one in entries] == [False, True, True, False]
    figure = draw(RANKING, ROWS)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [one.label for one in entries]
    assert draw(RANKING, [one for one in ROWS if one["model"] == "B"]) is None


def test_a_ranking_of_speeds_has_their_scale():
    view = replace(RANKING, y="tokens_per_s", where={"task": "parity"}, published={})
    rows = [one | {"tokens_per_s": 1e6 * one["mean_accuracy"]} for one in ROWS if one["task"] == "parity"]
    axes = draw(view, rows).axes[0]
    assert axes.get_xlim()[0] == 0
    assert axes.get_xlim()[1] > 9e5
    assert axes.get_xlabel() == "tokens per s"
    assert draw(RANKING, ROWS).axes[0].get_xlabel() == "mean accuracy, mean over the tasks"


@pytest.mark.parametrize("x", ["flops_per_step", "length"])
def test_logarithmic_axes_have_numbers(x):
    rows = [
        {
            "task": "t", "model": "A", "seed": 0, "lr": 0.1, "accuracy": 0.5, "validation": 0.5, "status": "finished",
            "basis": "width", "size": k, x: 64 * 8**k,
        }
        for k in (0, 1, 2)
    ]  # fmt: skip
    figure = draw(FigureView("f", "F", x=x, log_x=True), rows)
    figure.canvas.draw()
    labels = [text.get_text() for text in figure.axes[0].get_xticklabels(which="both")]
    if x == "length":
        assert labels == ["64", "512", "4\u2009096"]  # those that were tested
    else:
        assert "1\u2009000" in labels
    assert not any("$" in label for label in labels)


def test_a_mean_of_fewer_runs_than_others_have_is_white():
    """Of an unfinished sweep those runs end first that stop early, because they succeeded."""
    rows = [
        {"task": "t", "model": model, "seed": seed, "lr": 0.1, "accuracy": 0.5, "validation": 0.5, "m": 1,
         "status": "finished", "basis": "width", "size": 1}
        for model, seeds in (("A", 3), ("B", 2)) for seed in range(seeds)
    ]  # fmt: skip
    axes = draw(FigureView("f", "F", x="m"), rows).axes[0]
    white = [line for line in axes.lines if line.get_markerfacecolor() == "white" and len(line.get_xdata())]
    colors = {
        label: bars[0].get_color() for bars, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    assert [line.get_color() for line in white] == [colors["B"]]


def test_a_run_that_is_trained_and_not_measured_is_not_called_unfinished():
    rows = [
        {"key": "a", "status": "finished", "ended": "finished"},
        {"key": "b", "status": "unfinished", "ended": "stopped_early"},
        {"key": "c", "status": "unfinished"},
        {"key": "c", "status": "unfinished"},
    ]
    lines = list(_origin(Evidence(get_experiment("table1"), "full", (), rows, {}, Path("a file"))))
    assert lines[0] == "- Runs: 1 finished, 1 trained but not measured, 1 unfinished; preset full."


def test_a_legend_stays_inside_its_figure():
    view = FigureView("f", "F", x="m", series=("model", "normalization", "transition_bias"))
    rows = [
        {
            "task": "t", "model": "a model of a long name", "normalization": name, "transition_bias": bias, "m": m,
            "seed": 0, "lr": 0.1, "accuracy": 0.5, "validation": 0.5, "status": "finished",
        }
        for name in ("softmax", "relu") for bias in (0.0, 1.0) for m in (1, 2)
    ]  # fmt: skip
    figure = draw(view, rows)
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width


def test_a_page_says_whether_its_rivals_are_right(tmp_path):
    rows = [{"model": "LSTM"}, {"model": "RWKV-7"}, {"model": "BD-LRU m = 3"}]
    assert list(checked([{"model": "BD-LRU m = 3"}], None)) == []
    assert "were not compared" in next(checked(rows, None))
    entry = {
        "rival": "lstm", "operation": "lstm", "runs": "cuDNN", "dtype": "float32", "bound": 1e-4, "output_error": 2e-7,
        "gradient_errors": {"x": 3e-6, "w": 2e-7}, "passed": True,
    }  # fmt: skip
    other = entry | {"rival": "deltanet", "passed": False}
    path = tmp_path / "rivals.json"

    def lines(*entries):
        path.write_text(json.dumps({"environment": {"device": "a GPU"}, "checks": entries}))
        return list(checked(rows, read_checks(path)))

    said = lines(entry, other)
    assert "on a GPU (" in said[0]
    elsewhere = [{**row, "hardware": "a CPU"} for row in rows]
    assert "on a GPU, not where these runs were made, (" in next(checked(elsewhere, read_checks(path)))
    assert said[0].endswith("outputs and gradients are right. Not compared: rwkv7.")
    assert "| lstm | lstm | cuDNN | float32 | 2.0e-07 | 3.0e-06 | 1e-04 | ok |" in said
    assert not any("deltanet" in line for line in said)
    wrong = entry | {"rival": "rwkv7", "gradient_errors": {"x": None}, "passed": False}
    said = lines(entry, wrong)
    assert "WRONG, their numbers do not count: rwkv7." in said[0]
    assert any("| – | 1e-04 | **WRONG** |" in line for line in said)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"checks: .* is not a file of `statemix rivals --out`"):
        read_checks(path)


def test_columns_of_numbers_come_by_size_and_others_as_they_are():
    rows = [{**row("A", "parity", 0, 0.5), "m": m, "accuracy": m / 10} for m in (4, 1, 2)]
    head, _, line = table(TableView("t", column="m"), rows)
    assert head == "| model | m = 1 | m = 2 | m = 4 |" and line.index("0.100") < line.index("0.400")
    rows = [{**row("A", task, 0, 0.5), "accuracy": 0.5} for task in ("parity", "even pairs")]
    assert table(TableView("t"), rows)[0] == "| model | parity | even pairs |"


def test_equal_time_is_of_times_on_one_device():
    """What was trained elsewhere counts by where its step was timed; a time from elsewhere does not count."""

    def timed(model, size, seconds, place):
        labels = {"basis": "state", "size": size, "timed_on": place, "hardware": "where it was trained"}
        labels |= {"validation": size / 10}  # the largest would be chosen
        return {**row(model, "parity", 0, size / 10), **labels, "milliseconds_per_step": seconds}

    rows = [
        timed("A", 1, 1.0, "here"),
        timed("B", 2, 1.0, "here"),
        timed("B", 3, 9.0, "here"),
        timed("B", 4, 0.1, "there"),
        {**timed("A", 1, 30.0, "there"), "seed": 1},
    ]
    view = TableView("T", value="mean_accuracy", over=("size",), time_of={"model": "A"})
    lines = table(view, rows)
    assert [line.split("<")[0].strip("| ") for line in lines[2:]] == [
        "A | 0.100 ± 0.000 (n = 2)",
        "B | 0.200 (n = 1)",
    ]
    another_rate = {**rows[1], "lr": 0.3, "mean_accuracy": 0.9, "validation": 0.9}
    del another_rate["milliseconds_per_step"], another_rate["timed_on"]  # a rate costs no time
    assert "0.900 (n = 1)" in table(replace(view, over=("size", "lr")), [*rows, another_rate])[3]


def test_a_mean_is_of_all_columns():
    view = TableView("T", value="mean_accuracy", over=("lr",), mean=True)
    lines = [line.split(" | ") for line in table(view, ROWS)[2:]]
    assert {line[0].strip("| "): line[-1].strip("| ") for line in lines} == {
        "A": "0.650 ± 0.141 (n = 2)", "B": "–", "C": "0.300 (n = 1)"
    }  # fmt: skip
    two = table(replace(view, where={"task": [*TASKS, "a third"]}), ROWS)
    assert all(line.endswith("| – |") for line in two[2:])


def test_models_stand_in_the_order_of_the_catalogue():
    """Wherever their first run stands, in tables, colours and legends; others follow as they come."""
    rows = [row(model, task, 0, 0.5) for task, model in [
        (TASKS[0], "LSTM"), (TASKS[0], "another"), (TASKS[0], "BD-LRU m = 4"), (TASKS[1], "H-LRU m = 2"),
        (TASKS[1], "LSTM"),
    ]]  # fmt: skip
    order = ["BD-LRU m = 4", "H-LRU m = 2", "LSTM", "another"]
    lines = table(TableView("T", value="mean_accuracy", over=("lr",)), rows)[2:]
    assert [line.split(" | ")[0].strip("| ") for line in lines] == order
    assert [names[1] for names in listed(rows, ("task", "model"))] == [
        *order[:1],
        *order[2:],
        "H-LRU m = 2",
        "LSTM",
    ]
    rows = [{**one, "size": 1, "basis": "width"} for one in rows]
    legend = draw(FigureView("f", "F", x="size", y="mean_accuracy", series=("model",)), rows).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == order
