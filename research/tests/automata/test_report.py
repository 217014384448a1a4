"""The page of the lists of runs: from made-up rows, as it is stored, and what it says of H-LRU."""

import itertools
import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest
from statemix_research.automata import report
from statemix_research.automata.experiments import EXPERIMENTS
from statemix_research.automata.recipes import get_recipe

ROOT = Path(__file__).parents[3]
SOURCE = Path("research/results/hard_rows")


def row(*remedies, seed=0, solved=100, accuracy=1.0, at=None, whole=None, proved=True, **settings):
    """A row of a run, as lists keep it."""
    recipe = vars(get_recipe(*remedies, **settings))
    return {
        "remedies": " + ".join(remedies), "device": "cuda", "seed": seed, "solved": solved, "accuracy": accuracy,
        "best": min(1.0, accuracy + 0.01), "at": at or {}, "whole": whole or {}, "proved": proved, "restarted": 1,
        "steps": 500, "seconds": 1.5, "recipe": recipe,
    }  # fmt: skip


def page(results):
    return "\n".join(report.page_lines(results, SOURCE))


def cells(text, first):
    """Cells of the line of a table that begins with some text."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {first}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_without_rows_the_text_is_left():
    text = page({})
    assert [
        name for name in EXPERIMENTS if f"`{name}`" not in text.split("- Lists without runs yet: ")[1]
    ] == []
    assert "## H-LRU" in text and "## The rule for m" in text
    assert "## Protocol" not in text and "published" not in text.split("## S5 at 16")[-1].split("## Data")[-1]
    assert "<!--" not in text


def test_every_list_has_its_place_and_its_command():
    text = page({name: [row(at={"512": 1.0}, whole={"128": 1.0})] for name in EXPERIMENTS})
    commands = re.findall(r"^    statemix-research automata (.*)$", text, re.MULTILINE)
    named = {word for command in commands for word in command.split()}
    assert set(EXPERIMENTS) <= named
    assert "<!--" not in text and "- Lists without runs yet" not in text


def test_what_was_learned():
    rows = [row("base", seed=seed, at={"512": 1.0, "1048576": 0.99996}) for seed in range(4)]
    rows.append(row("base", seed=4, solved=None, proved=False, at={"512": 0.5, "1048576": 0.25}))
    text = page({"s5_at_128": rows[:4]})
    assert cells(text, "`s5_at_128`") == [
        "`s5_at_128`", "BD-LRU m = 5, hard", "5", "4 of 4", "100, 100", "1", "1.0000", "0.9999",
    ]  # fmt: skip
    assert "`s5_at_128` (5)" in text  # runs of another recipe than the list's
    assert cells(page({"s5_at_128": rows}), "`s5_at_128`")[3:] == [
        "4 of 5", "100, 100", "1", "0.5000", "0.2500",
    ]  # fmt: skip
    held_out = page({"s5_held_out": [row("base", accuracy=0.75, proved=False)]})  # has its check alone
    assert cells(held_out, "`s5_held_out`")[3:] == ["0 of 1", "100, 100", "1", "0.7500"]
    signed = page({"hlru_parity": [row("hlru", "signed", "order_1")]})
    assert cells(signed, "`hlru_parity`")[1:3] == ["H-LRU m = 1, hard, tanh", "1"]


def test_protocol_a_beside_the_published_table():
    def rows(*accuracies):
        return [row("base", seed=seed, accuracy=x, proved=None) for seed, x in enumerate(accuracies)]

    results = {f"a_{name}": rows(0.9, 0.8) for name in ("cycle_navigation", "even_pairs", "parity")}
    text = page(results)
    assert cells(text, "BD-LRU m = 5, hard | maximum")[2:] == [
        "86.00 ± 7.07 (81.00; 2)", "86.00 ± 7.07 (81.00; 2)", "–", "86.00 ± 7.07 (81.00; 2)", "–",
    ]  # fmt: skip
    lstm = [row("lstm", seed=seed, proved=None, at={"65536": 1.0}) for seed in range(2)]
    text = page({**results, "a_modular_arithmetic": [*rows(0.5, 0.5), *lstm]})
    assert cells(text, "BD-LRU m = 5, hard | final")[-1] == "76.25 ± 5.30 (72.50; 2)"
    assert cells(text, "LSTM | at 65 536")[2:] == ["–", "–", "100.00 ± 0.00 (100.00; 2)", "–", "–"]
    published = [line for line in text.splitlines() if "(published) | maximum" in line]
    assert len(published) == 9 and len({line.count("|") for line in published}) == 1
    assert published[0].count("|") == text.splitlines()[text.splitlines().index(published[0]) - 1].count("|")


def test_protocol_b_tells_two_recipes_of_one_model_apart():
    whole = {"128": 1.0, "192": 1.0, "256": 1.0, "512": 0.5}
    rows = [row("base", whole=whole), row("base", seed=1, whole={**whole, "512": 1.0})]
    text = page({"b_s5": [*rows, row("plain", proved=None, whole=whole)]})
    assert cells(text, "S5 | BD-LRU m = 5, hard")[-1] == "0.750 (0.500–1.000)"
    assert cells(text, "S5 | BD-LRU m = 5, soft")[2] == "–"
    assert len(cells(text, "S5 | DeltaProduct")) == 7
    assert {"BD-LRU m = 5, hard (`base`)", "BD-LRU m = 5, hard (`no_mlp`)"} == set(
        report.by_model([*rows, row("no_mlp")])
    )


def test_what_the_four_measures_do():
    def rows(label, count):
        made = [row(seed=seed, solved=100 if seed < count else None, steps=3000) for seed in range(3)]
        return [{**one, "remedies": label} for one in made]

    best = "no_mlp + no_input + short_words + balance_1 + retries"
    text = page(
        {"s5_without": [*rows(best, 3), *rows(best.replace(" + no_input", ""), 1), *rows("no_mlp", 0)]}
    )
    assert cells(text, "remedies")[1] == "`s5_without`, 3000 steps"
    assert [cells(text, first)[1] for first in ("all |", "all but `no_input`", "`no_mlp`")] == [
        "3 of 3", "1 of 3", "0 of 3",
    ]  # fmt: skip


def test_the_command_writes_page_picture_and_data(research, tmp_path):
    rows = [
        row("base", whole={"128": 1.0, "512": 0.5}, at={"512": 0.5}),
        row("plain", whole={"128": 1.0}),
    ]
    (tmp_path / "b_s5.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    assert research("automata --out . --page pages").code == 0
    folder = tmp_path / "pages"
    assert (folder / "automata.png").read_bytes().startswith(b"\x89PNG")
    assert "| S5 | BD-LRU m = 5, soft |" in (folder / "automata.md").read_text()
    table = pd.read_csv(folder / "data" / "automata.csv")
    assert table["whole_at_512"].tolist()[0] == 0.5 and math.isnan(table["whole_at_512"][1])
    assert {"list", "remedies", "seed", "solved", "proved", "best", "device", "seconds", "restarts"} <= set(
        table
    )


def test_the_stored_page_is_what_the_command_writes(monkeypatch):
    """After new results: statemix-research automata --page docs/reproduce."""
    monkeypatch.chdir(ROOT)
    results, folder = report.read_results(SOURCE), ROOT / "docs" / "reproduce"
    assert (folder / "automata.md").read_text() == page(results) + "\n"
    assert (folder / "data" / "automata.csv").read_text() == report.to_csv(results)
    assert (folder / "automata.png").is_file()


def repeated(m, lag, sign=1):
    """What a hard H-LRU row does to a window, newest first: the value and sign that each place takes."""
    return ((lag - 1, sign), *((place, 1) for place in range(m - 1)))


def after(first, second):
    return tuple((first[place][0], first[place][1] * sign) for place, sign in second)


def words_of(letters):
    """All that words of some letters do to a window."""
    found, new = set(letters), list(letters)
    while new:
        last = new.pop()
        more = {after(last, letter) for letter in letters} - found
        found |= more
        new += more
    return found


def kept(word):
    return len({place for place, _ in word})


@pytest.mark.parametrize("m", range(1, 6))
def test_windows_of_h_lru_end_with_a_period(m):
    """The page's derivation: what no word loses is a period, the greatest common divisor of the distances."""
    for count in range(1, m + 1):
        for lags in itertools.combinations(range(1, m + 1), count):
            words, period = words_of([repeated(m, lag) for lag in lags]), math.gcd(*lags)
            assert min(map(kept, words)) == period
            idle = next(word for word in words if kept(word) == period and after(word, word) == word)
            assert len({after(after(idle, word), idle) for word in words}) == period  # a cycle


@pytest.mark.parametrize("m", [1, 2, 3])
def test_signs_add_a_parity_for_each_place_of_the_period(m):
    words = words_of([repeated(m, m), repeated(m, m, -1)])
    assert len(words) == m * 2**m
    assert all(kept(word) == m for word in words)
