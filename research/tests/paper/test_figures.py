"""Tables and figures of experiments, from rows made up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from statemix_research.paper.experiment import Figure, Table
from statemix_research.paper.figures import draw, entries_of, short
from statemix_research.paper.selection import frame_of
from statemix_research.paper.tables import table, to_csv

from statemix.report import look_of

TASKS = ["parity", "even pairs"]
RANKING = Figure(
    "Ranking", kind="ranking", y="mean_accuracy", panel="", across="task", where={"task": TASKS},
    published={"Theirs": (0.8, 0.1), "Others": (0.25, 0.0)},
)  # fmt: skip


def row(model, task, seed, value, validation=0.5, lr=0.1, **more):
    return {
        "model": model, "task": task, "seed": seed, "lr": lr, "accuracy": value, "mean_accuracy": value,
        "validation": validation, "ended": "finished", **more,
    }  # fmt: skip


ROWS = [
    row("A", "parity", 0, 0.6), row("A", "parity", 1, 1.0),
    row("A", "even pairs", 0, 0.5), row("A", "even pairs", 1, 0.5),
    row("A", "parity", 0, 1.0, validation=0.1, lr=0.2),  # better on test data, not chosen
    row("B", "parity", 0, 0.9),  # never run on even pairs
    row("C", "parity", 0, 0.2), row("C", "even pairs", 0, 0.4),
]  # fmt: skip


def test_a_ranking_is_of_what_ran_on_every_task_among_what_is_published():
    entries = entries_of(RANKING, frame_of(ROWS))
    labels = ["Others (published)", "C", "A", "Theirs (published)"]
    assert [one.label for one in entries] == labels
    assert [one.mean for one in entries] == pytest.approx([0.25, 0.3, 0.65, 0.8])
    assert [one.n for one in entries] == [1, 1, 2, 1]
    assert 0.55 <= entries[2].low < 0.65 < entries[2].high <= 0.75
    drawn = draw(RANKING, frame_of(ROWS))
    assert [text.get_text() for text in drawn.figure.axes[0].get_yticklabels()] == labels
    assert draw(RANKING, frame_of([one for one in ROWS if one["model"] == "B"])) is None


def test_a_ranking_of_speeds_has_their_scale():
    view = replace(RANKING, y="tokens_per_s", where={"task": "parity"}, published={})
    rows = [one | {"tokens_per_s": 1e6 * one["accuracy"]} for one in ROWS if one["task"] == "parity"]
    axes = draw(view, frame_of(rows)).figure.axes[0]
    assert axes.get_xlim()[0] == 0
    assert axes.get_xlim()[1] > 9e5
    assert axes.get_xlabel() == "tokens per second"


@pytest.mark.parametrize("x", ["flops_per_step", "length"])
def test_logarithmic_axes_have_numbers(x):
    rows = [row("A", "t", 0, 0.5, matched_on="width", size=k, **{x: 64 * 8**k}) for k in (0, 1, 2)]
    figure = draw(Figure("F", x=x, log_x=True), frame_of(rows)).figure
    figure.canvas.draw()
    labels = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert not any("$" in label for label in labels)
    if x == "length":
        assert labels == ["64", "512", "4096"]  # those that were tested
    else:
        assert "1k" in labels
    assert [short(number) for number in (64, 4096, 2.5e6)] == ["64", "4.096k", "2.5M"]


def test_bands_stay_where_accuracies_are_and_n_is_told():
    rows = [
        row("A", "t", seed, value, m=m) for m in (1, 2) for seed, value in enumerate((1.0, 1.0, 0.1)[: m + 1])
    ]
    drawn = draw(Figure("F", x="m"), frame_of(rows))
    assert drawn.n == (2, 3)
    (band,) = drawn.figure.axes[0].collections
    low, high = (getattr(band.get_datalim(drawn.figure.axes[0].transData), name) for name in ("y0", "y1"))
    assert (low, high) == (0.1, 1.0)


def test_a_saturated_panel_is_left_out_and_told_of():
    rows = [row("A", task, 0, value, m=m) for task, value in (("easy", 0.999), ("hard", 0.5)) for m in (1, 2)]
    drawn = draw(Figure("F", x="m"), frame_of(rows))
    assert [axes.get_title() for axes in drawn.figure.axes] == ["hard"]
    assert "at least 0.995: easy" in drawn.note


def test_a_model_has_one_colour_and_a_panel_at_most_eight():
    rows = [row(f"BD-LRU m = {m}", "t", 0, 0.5, size=s, matched_on="width") for m in (1, 4) for s in (1, 2)]
    axes = draw(Figure("F", x="size"), frame_of(rows)).figure.axes[0]
    assert [line.get_color() for line in axes.lines] == [look_of(f"bdlru-{m}").color for m in (1, 4)]
    rows = [row(f"model {k}", "t", 0, 0.5, m=m) for k in range(9) for m in (1, 2)]
    with pytest.raises(ValueError, match="got 9 series, expected at most 8"):
        draw(Figure("F", x="m"), frame_of(rows))


def test_a_legend_stays_inside_its_figure():
    view = Figure("F", x="m", series=("model", "normalization", "transition_bias"))
    rows = [
        row("a model of a long name", "t", 0, 0.5, normalization=name, transition_bias=bias, m=m)
        for name in ("softmax", "relu") for bias in (0.0, 1.0) for m in (1, 2)
    ]  # fmt: skip
    figure = draw(view, frame_of(rows)).figure
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width


def test_columns_of_numbers_come_by_size_and_others_as_they_are():
    rows = [row("A", "parity", 0, m / 10, m=m) for m in (4, 1, 2)]
    head, _, line = table(Table("t", columns=("m",)), frame_of(rows))
    assert head == "| model | m = 1 | m = 2 | m = 4 |"
    assert line.index("0.100") < line.index("0.400")
    rows = [row("A", task, 0, 0.5) for task in ("parity", "even pairs")]
    assert table(Table("t"), frame_of(rows))[0] == "| model | parity | even pairs |"


def test_a_mean_is_of_all_columns():
    view = Table("T", mean=True, where={"task": TASKS})
    lines = [line.split(" | ") for line in table(view, frame_of(ROWS))[2:]]
    assert {line[0].strip("| "): line[-1].strip("| ") for line in lines} == {
        "A": "0.650",
        "B": "–",
        "C": "0.300",
    }
    three = table(replace(view, where={"task": [*TASKS, "a third"]}), frame_of(ROWS))
    assert all(line.endswith("| – |") for line in three[2:])


def test_a_table_by_test_length():
    rows = [row("A", "t", seed, 0.5, accuracies={"16": 1.0, "128": seed / 2}) for seed in (0, 1)]
    lines = table(Table("T", columns=("test length",)), frame_of(rows))
    assert lines[0] == "| model | 16 | 128 |"
    assert lines[2] == "| A | 1.000 (1.000–1.000; 2) | 0.250 (0.000–0.500; 2) |"
    head, first, _ = to_csv(frame_of(rows)).splitlines()
    assert head.endswith("accuracy_at_16,accuracy_at_128")
    assert first.endswith(("1,0.0", "1,0"))
