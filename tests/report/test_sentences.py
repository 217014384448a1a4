"""What a page says in its two sentences, and that no spread leaves 0 to 1."""

from __future__ import annotations

import re

import pytest

from statemix.analysis.statistics import spread
from statemix.report import write_report
from statemix.report.figures import accuracy_length, caption_curves, caption_lengths
from statemix.report.runs import read_groups
from statemix.report.sentences import sentences
from statemix.report.tables import fraction, make_rows, score
from tests.report.copies import copy_run

TASK = "The task is to track the sum of random numbers modulo n (Z_n), n = 3, trained at length 6; "


def told(*folders):
    return sentences(read_groups(folders))


def test_several_models(runs):
    copy_run(runs / "order-0", runs / "order-1", {"training.seed": 1}, accuracy={"6": 0.2, "12": 0.05})
    copy_run(runs / "order-0", runs / "order-2", {"training.seed": 2}, accuracy={"6": 0.2, "12": 0.06})
    (runs / "order-0" / "summary.json").unlink()
    question, answer = told(runs)
    assert question == TASK + "BD-LRU m = 3 and H-LRU m = 2 are compared, 3 seeds each."
    assert answer == (
        "At length 12 (2 times the training length) BD-LRU m = 3 has the highest test accuracy, "
        "0.300 (0.100–0.500, n = 3), and H-LRU m = 2 the lowest, 0.055 (0.050–0.060, n = 2) "
        "(without a test accuracy: 1 running)."
    )


def test_captions_say_how_many(runs):
    (runs / "order-0" / "summary.json").unlink()
    groups = read_groups([runs])
    assert caption_lengths(groups) == (
        "Test accuracy with the final weights. 4 runs. Line: mean over n = 3 runs. "
        "Band: from the lowest to the highest. Faint: single runs. "
        "Trained on CPU."
    )
    assert " Line: mean over n = 1 to 3 runs. " in caption_curves(groups)
    alone = read_groups([runs / "block-0"])
    assert caption_lengths(alone) == "Test accuracy with the final weights. 1 run. Trained on CPU."


def test_ranges_that_overlap_are_not_separable(runs):
    copy_run(runs / "order-0", runs / "order-1", {"training.seed": 1}, accuracy={"12": 0.3})
    copy_run(runs / "order-0", runs / "order-2", {"training.seed": 2}, accuracy={"12": 0.2})
    copy_run(runs / "order-0", runs / "x", {"training.seed": 3}, accuracy={"12": 0.2})
    _, answer = told(
        runs / "block-0", runs / "block-1", runs / "block-2", *(runs / n for n in ("order-1", "order-2", "x"))
    )
    assert answer.endswith("; their ranges over seeds overlap: not separable.")


def test_one_run(runs):
    question, answer = told(runs / "block-0")
    assert (
        question
        == TASK + "one configuration, BD-LRU m = 3, was trained with one seed, so nothing is compared."
    )
    assert answer == (
        "At length 12 (2 times the training length) the test accuracy of BD-LRU m = 3 is 0.500; "
        "a single seed shows no spread."
    )


def test_seeds_of_one_configuration(runs):
    _, answer = told(*(runs / f"block-{seed}" for seed in range(3)))
    assert answer.endswith("the test accuracy of BD-LRU m = 3 is 0.300 (0.100–0.500, n = 3).")


def test_a_single_seed_is_no_spread(runs):
    _, answer = told(runs / "block-0", copy_run(runs / "order-0", runs / "x", accuracy={"12": 0.25}))
    assert answer.endswith("and H-LRU m = 2 the lowest, 0.250; a single seed shows no spread.")


def test_nothing_tested_yet(runs):
    (runs / "block-0" / "summary.json").unlink()
    copy_run(runs / "block-1", runs / "x", status="diverged", accuracy={})
    copy_run(runs / "block-1", runs / "y", status="interrupted", accuracy={})
    _, answer = told(runs / "block-0", runs / "x", runs / "y")
    assert answer == "There is no test accuracy yet: 1 running, 1 diverged, 1 interrupted."


def test_equal_results(runs):
    for name in ("block-0", "order-0"):
        copy_run(runs / name, runs / "same" / name, accuracy={"6": 1.0})
    _, answer = told(runs / "same")
    assert answer == (
        "At length 6 (the training length) the test accuracy of each of 2 configurations is 1.000; "
        "a single seed shows no spread."
    )


def test_several_tasks(runs):
    copy_run(runs / "block-0", runs / "other", {"task.n": 5}, accuracy={"6": 0.75})
    question, answer = told(runs / "block-0", runs / "other")
    assert question.startswith("There are 2 tasks (cyclic, n = 3 and cyclic, n = 5), trained at length 6; ")
    assert (
        "on cyclic, n = 5 at length 6 (the training length) the test accuracy of BD-LRU m = 3 (n 5) is 0.750"
        in answer
    )


def test_many_configurations_are_counted(runs):
    for k in range(8):
        copy_run(
            runs / "block-0", runs / "many" / str(k), {"training.lr": 0.5 + k}, accuracy={"6": 0.1 * (k > 5)}
        )
    question, answer = told(runs / "many")
    assert question == TASK + "8 configurations are compared, one seed each."
    assert "BD-LRU m = 3 (lr 6.5) and BD-LRU m = 3 (lr 7.5) have the highest" in answer
    assert "and 6 configurations the lowest, 0.000;" in answer


def test_no_spread_leaves_0_to_1(runs):
    """Mean and deviation of 1, 1 and 0.8 would reach beyond 1, those of 0, 0 and 0.1 below 0."""
    for seed, (high, low) in enumerate(((1.0, 0.0), (1.0, 0.0), (0.8, 0.1))):
        copy_run(
            runs / "block-0",
            runs / "edge" / str(seed),
            {"training.seed": seed},
            accuracy={"6": high, "12": low},
        )
    (row,) = make_rows(read_groups([runs / "edge"]))
    assert score(row["accuracy at 6"], 3) == "0.933 (0.800–1.000)"
    assert score(row["accuracy at 12"], 3) == "0.033 (0.000–0.100)"
    (axes,) = accuracy_length(read_groups([runs / "edge"])).axes
    drawn = [y for band in axes.collections for path in band.get_paths() for y in path.vertices[:, 1]]
    assert (min(drawn), max(drawn)) == (0.0, 1.0)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf"), "much"])
def test_an_accuracy_beyond_0_to_1_is_refused(runs, value):
    path = runs / "block-0" / "summary.json"
    content = re.sub(
        r'"6": [0-9.]+',
        f'"6": {str(value).replace("nan", "NaN").replace("inf", "Infinity")}',
        path.read_text(),
    )
    path.write_text(re.sub(r',\s*"sha256": "\w+"', "", content))
    with pytest.raises(ValueError, match=r"block-0.*summary\.json"):
        write_report([runs / "block-0"], runs / "out")


def test_numbers_as_people_read_them():
    assert [fraction(x) for x in (0.8684, 0.99996, 1.0, 0.0, 0.0001)] == [
        "0.868",
        ">0.999",
        "1.000",
        "0.000",
        "<0.001",
    ]
    assert score(spread([0.5, 0.75]), 3) == "0.625 (0.500–0.750, n = 2)"
    assert score(spread([0.5, 0.75]), 2) == "0.625 (0.500–0.750)"
    assert score(spread([0.5]), 3) == "0.500 (n = 1)"
    assert score(spread([]), 3) == "–"


def test_labels_have_no_walls_of_decimals(runs):
    for k, lr in enumerate((0.1 + 0.2, 0.003, 0.00300001)):
        copy_run(runs / "block-0", runs / "labels" / str(k), {"training.lr": lr})
    labels = [group.label for group in read_groups([runs / "labels"])]
    assert labels == [f"BD-LRU m = 3 (lr {lr})" for lr in ("0.3", "0.003", "0.00300001")]


def test_a_length_far_beyond_the_trained_one_has_no_exponent(runs):
    copy_run(runs / "block-0", runs / "far", accuracy={"6": 1.0, "24576": 0.5})
    assert told(runs / "far")[1].startswith("At length 24576 (4,096 times the training length) ")
