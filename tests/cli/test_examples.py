"""Every example in the help texts works."""

from __future__ import annotations

import importlib.util
import re

from statemix.cli.app import COMMANDS, TASKS, TEXT
from statemix.training import PRESETS
from tests.cli.conftest import TINY

SHRUNK = {"train": TINY, "demo": TINY}
TOKENIZERS = importlib.util.find_spec("tokenizers") is not None
GROUPS = {"tasks": TASKS, "text": TEXT}
HELPS = [
    "", *COMMANDS, *GROUPS, *(f"{group} {name}" for group, commands in GROUPS.items() for name in commands),
]  # fmt: skip


def test_every_help_has_an_example_and_every_example_works(statemix):
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
        if example.startswith("text tokenizer") and not TOKENIZERS:
            continue
        done = statemix(example, SHRUNK.get(example.split()[0], ()))
        assert done.code == 0, (example, done.err)
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
