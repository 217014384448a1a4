"""Automata: from tables, generators and files; their errors; the automata of the other tasks."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from statemix.tasks import TASKS, Automaton, automata, block_size, get_task
from statemix.tasks.automata import cycle_notation, images

PARITY = {"even": {"0": "even", "1": "odd"}, "odd": {"0": "odd", "1": "even"}}
TRACKED = [
    ("permutation", {"n": 4}),
    ("alternating", {"n": 4}),
    ("cyclic", {"n": 5}),
    ("parity", {"target": "every"}),
    ("even_pairs", {"target": "every"}),
    ("cycle_navigation", {"target": "every"}),
    ("modular_arithmetic", {"target": "every", "length": 12}),
    ("modular_arithmetic", {"target": "every", "modulus": 3}),
    ("automaton", {}),
]


@pytest.mark.parametrize(("name", "options"), TRACKED)
def test_the_automaton_of_a_task_gives_its_targets(name: str, options: dict[str, Any]) -> None:
    task = get_task(name, **options)
    inputs, targets = task.generate(60)
    assert torch.equal(task.automaton().answers(inputs), targets)


def test_tasks_without_one_say_so() -> None:
    tracked = {name for name, _ in TRACKED}
    for name in set(TASKS) - tracked:
        with pytest.raises(ValueError, match=f"task: got '{name}', which is no automaton"):
            get_task(name).automaton()


def test_generators_give_the_group() -> None:
    s4 = Automaton.from_generators({"swap": "(1 2)", "turn": [1, 2, 3, 0]})
    assert (
        s4.table.shape == (24, 2)
        and s4.is_group
        and s4.symbols == ("swap", "turn")
        and len(set(s4.states)) == 24
    )
    whole = get_task("permutation", n=4).automaton()
    number = {name: i for i, name in enumerate(whole.states)}
    token = [number["(1 2)"], number[cycle_notation((1, 2, 3, 0))]]
    renamed = torch.tensor([number[name] for name in s4.states])
    assert torch.equal(renamed[s4.table], whole.table[renamed][:, token])


@pytest.mark.parametrize("text", ["e", "(1 2)", "(1 3)(2 4)", "(1 2 3)(4 5)"])
def test_cycles_are_read_as_they_are_written(text: str) -> None:
    assert cycle_notation(images("a", text)) == text


@pytest.mark.parametrize("ending", ["toml", "json"])
def test_a_file_stands_for_its_options(tmp_path: Path, ending: str) -> None:
    content = {"table": PARITY, "start": "even", "accepting": ["odd"]}
    rows = "\n".join(f'[table.{q}]\n0 = "{row["0"]}"\n1 = "{row["1"]}"' for q, row in PARITY.items())
    toml = f'start = "even"\naccepting = ["odd"]\n{rows}\n'
    path = tmp_path / f"parity.{ending}"
    path.write_text(toml if ending == "toml" else json.dumps(content))
    task = get_task("automaton", file=str(path), length=20)
    assert task.options == {"file": "", "generators": {}, **content, "target": "every", "length": 20}
    given = get_task("automaton", **content, length=20)
    assert torch.equal(task.generate(20, seed=1).targets, given.generate(20, seed=1).targets)
    words = task.generate(20).inputs
    assert torch.equal(Automaton.from_file(path).answers(words), words.cumsum(1) % 2)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"table": {"even": {"0": "even"}, "odd": {}}, "start": "even"}, r"table.odd: got no next state for '0'"),
    (
        {"table": {"a": {"0": "a"}, "b": {"0": "a", "1": "b"}}, "start": "a"},
        "table.b: got symbol '1', expected those of",
    ),
    ({"table": {"a": {"0": "c"}}, "start": "a"}, "table.a.0: got state 'c', expected one of 'a'"),
    ({"table": {"a": "a"}, "start": "a"}, "table.a: got 'a', expected a next state for every symbol"),
    ({"table": {"a": {}}, "start": "a"}, "table: got .*, expected at least one state and one symbol"),
    ({"table": PARITY}, "start: got none, expected one of 'even', 'odd'"),
    ({"table": PARITY, "start": "both"}, "start: got 'both', expected one of 'even', 'odd'"),
    (
        {"table": PARITY, "start": "even", "accepting": ["one"]},
        "accepting: got 'one', expected states out of",
    ),
    ({"table": PARITY, "generators": {"a": "(1 2)"}}, "table: got one beside generators"),
    ({"start": "even"}, "start: got one beside generators"),
    ({"generators": {}}, "table: got none, expected a table of transitions, or generators"),
    ({"generators": {"a": "(1 2"}}, r"generators.a: got '\(1 2', expected a permutation such as"),
    ({"generators": {"a": "(1 1)"}}, r"generators.a: got '\(1 1\)', expected a permutation"),
    ({"generators": {"a": "(0 1)"}}, "generators.a: got"),
    ({"generators": {"a": [0, 2]}}, r"generators.a: got \[0, 2\], expected a permutation"),
    (
        {"generators": {"a": "(1 2 3 4 5 6 7 8 9)", "b": "(1 2)"}},
        "generators: got a group of more than 100000",
    ),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_what_describes_no_automaton(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"automaton.{message}"):
        get_task("automaton", **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0, 2], [1, 1]],), "table: got states from 0 to 2, expected 0 to 1"),
        (([],), r"table: got shape \[0\], expected \[states, symbols\]"),
        (([[0]], 1), "start: got 1, expected a state from 0 to 0"),
        (([[0]], 0, torch.tensor([1, 2])), "outputs: got 2 of them, expected 1 as in table"),
        (([[0]], 0, None, ("a", "b")), "states: got 2 of them, expected 1"),
    ],
)
def test_tables_of_numbers_are_checked(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Automaton(*arguments)


def test_files_that_are_none(tmp_path: Path) -> None:
    for name, text, message in (
        ("a.txt", "", "file: got '.*a.txt', expected a name that ends in .toml or .json"),
        ("a.toml", "start =", "file: .*a.toml is not TOML"),
        ("a.json", "{", "file: .*a.json is not JSON"),
        ("b.json", "[1]", "file: .*b.json holds a list, expected table"),
        ("b.toml", "length = 3", "automaton.file: .*b.toml gives length, expected other ones of table"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=message):
            get_task("automaton", file=str(tmp_path / name))
    with pytest.raises(FileNotFoundError):
        get_task("automaton", file=str(tmp_path / "none.toml"))


@pytest.mark.parametrize("module", [automata, block_size])
def test_the_examples_run(module: Any) -> None:
    failed, tried = doctest.testmod(module, extraglobs={"torch": torch})
    assert tried and not failed
