"""`statemix automaton` on a run of a few seconds, on a run that is wrong, and on one whose rows are soft."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load_file

from statemix.tasks import get_task
from statemix.training import build_model, load_config, load_run

SETTINGS = (
    "task.name=parity task.target=every task.length=16 mixer.name=bdlru mixer.block_size=2 mixer.num_blocks=2 "
    "mixer.learned_initial_state=true model.dim=16 model.depth=1 training.batch_size=64 training.train_examples=640 "
    "training.eval_examples=32 training.lr=0.02 training.tensorboard=off training.device=cpu"
)
HARD = ("mixer.hard=true",)
PARITY = """
start = "even"
accepting = ["odd"]
table.even = {0 = "even", 1 = "odd"}
table.odd = {0 = "odd", 1 = "even"}
"""


def test_a_run_is_proved(statemix, tmp_path):
    assert statemix(f"train {SETTINGS} mixer.hard=true training.steps=100 --out run").code == 0
    (tmp_path / "parity.toml").write_text(PARITY)
    done = statemix("automaton run --file parity.toml --json found.json --weights found.safetensors")
    assert done.code == 0, done.err
    assert "equal to the automaton for words of every length" in done.out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["proved"] and found["symbols"] == ["0", "1"] and len(found["table"]) == found["pairs"]
    assert len(found["blocks"]) == 2 and set(found["blocks"][0]["maps"]) == {"0", "1"}
    model = build_model(load_config(tmp_path / "run"))
    model.load_state_dict(load_file(tmp_path / "found.safetensors"))
    words = torch.randint(2, (4, 200))
    assert torch.equal(model(words)[0].argmax(-1), words.cumsum(1) % 2)
    task = statemix("automaton run")
    assert task.code == 0 and task.out == done.out

    wrong = statemix(["automaton", "run", "--max-pairs", "1"])
    assert wrong.code == 1 and "more than max_pairs = 1 pairs of states, nothing is proved" in wrong.err
    (tmp_path / "other.toml").write_text(PARITY.replace('1 = "even"', '1 = "odd"'))
    other = statemix("automaton run --file other.toml")
    assert (
        other.code == 1
        and "the model errs after 2 symbols" in other.err
        and other.err.rstrip().endswith(": 1 1")
    )


def test_what_is_refused(statemix, tmp_path):
    assert statemix(f"train {SETTINGS} training.steps=1 --out run").code == 0
    soft = statemix("automaton run")
    assert soft.code == 2 and "layer 0 is a BDLRU with hard=False, expected hard=True" in soft.err
    assert statemix("automaton nowhere").code == 2
    words = [*SETTINGS.replace("task.name=parity task.target=every", "task.name=compression").split(), *HARD]
    assert statemix(["train", *words, "training.steps=1", "--out", "other"]).code == 0
    assert "got 'compression', which is no automaton" in statemix("automaton other").err


def test_a_run_keeps_the_automaton_and_not_its_file(statemix, tmp_path):
    (tmp_path / "parity.toml").write_text(PARITY)
    settings = (
        "task.name=automaton task.file=parity.toml training.steps=1 model.dim=8 training.train_examples=16"
    )
    assert statemix(f"train {settings} training.eval_examples=8 --out run").code == 0
    (tmp_path / "parity.toml").unlink()
    config, _ = load_run(tmp_path / "run")
    assert config.task["file"] == "" and config.task["accepting"] == ["odd"]
    assert get_task(**config.task).automaton().states == ("even", "odd")
    assert statemix("eval run").code == 0
    shown = statemix("tasks show automaton")
    assert shown.code == 0 and "(1 2)" in shown.out
    assert statemix(f"train {settings} --out other").code == 2
