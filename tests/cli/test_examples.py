"""Every example in the help texts works."""

from __future__ import annotations

import importlib.util
import re

from statemix.cli.app import COMMANDS, LM, TASKS, TEXT
from statemix.training import PRESETS
from tests.cli.conftest import TINY

SHRUNK = {
    "train": TINY,
    "demo": TINY,
    "learn": ["--dim=32", "--num-blocks=4", "--lr=0.01"],
    "lm train": ["model.dim=16", "training.steps=2", "data.length=16", "data.eval_sequences=2"],
    "lm eval": ["--max-tokens", "2000"],
    "lm generate": ["--max-tokens", "8"],
}
"""By the start of an example: what is added to it, so that it takes the same way in less time."""

NEEDS = {
    "text tokenizer": "tokenizers",
    "lm train": "accelerate",
    "lm eval": "accelerate",
    "lm generate": "accelerate",
}
"""By the start of an example: the package without which it cannot run."""

GROUPS = {"tasks": TASKS, "text": TEXT, "lm": LM}
HELPS = [
    "", *COMMANDS, *GROUPS, *(f"{group} {name}" for group, commands in GROUPS.items() for name in commands),
]  # fmt: skip


def _of(table, example):
    """The entry whose key the example starts with, or None."""
    return next((value for start, value in table.items() if example.startswith(start)), None)


THREE = """
start = "0"
table.0 = {0 = "0", 1 = "1"}
table.1 = {0 = "2", 1 = "0"}
table.2 = {0 = "1", 1 = "2"}
"""


def test_every_help_has_an_example_and_every_example_works(statemix, tmp_path):
    (tmp_path / "three.toml").write_text(THREE)
    seen = []
    for command in HELPS:
        help_text = statemix(f"{command} --help")
        assert help_text.code == 0
        (example,) = re.findall(r"Example: statemix (.+)", help_text.out)
        assert example.startswith(command)
        assert help_text.out.rstrip().endswith(example), (
            "a line of help is 80 wide: the example goes on in the next"
        )
        seen.append(example)
    assert statemix("").out.endswith("Example: statemix demo\n")
    for example in sorted(seen, key=lambda line: not line.startswith(("train", "demo"))):
        package = _of(NEEDS, example)
        if package and importlib.util.find_spec(package) is None:
            continue
        done = statemix(example, _of(SHRUNK, example) or ())
        refuted = example.startswith("automaton")  # a demo of four steps has learned nothing
        assert done.code == refuted, (example, done.err)
        assert done.out.strip(), example


def test_help_shows_every_command(statemix):
    shown = statemix("--help").out
    for name in [*COMMANDS, *GROUPS]:
        assert re.search(rf"^  {name} ", shown, re.MULTILINE)


def test_help_of_train_names_every_preset(statemix):
    shown = statemix("train --help").out
    assert [name for name in PRESETS if not re.search(rf"\b{name}\b", shown)] == []


def test_tasks(statemix):
    assert "permutation" in statemix("tasks").out
    assert statemix("tasks").out == statemix("tasks list").out
    shown = statemix("tasks show parity length=12 --count 2 --seed 3")
    assert shown.out.count("→") == 2
    assert shown.out == statemix("tasks show parity length=12 --count 2 --seed 3").out
    assert "length=12: " in shown.out
    assert " (an integer of at least " in shown.out
    assert shown.out != statemix("tasks show parity length=12 --count 2 --seed 4").out
