"""Automata are learned until proved, from Python and in run folders."""

from __future__ import annotations

import pytest
import torch

from statemix.analysis import prove
from statemix.tasks import IGNORED, Automaton
from statemix.training import (
    Config,
    RunError,
    learn_automaton,
    learn_config,
    learn_run,
    load_run,
)
from statemix.training.learning import CLOSED, Learner, mixer_arguments, training_config

SMALL = {"dim": 32, "num_blocks": 4, "lr": 0.01}
PARITY = Automaton([[0, 1], [1, 0]])
THREE = """
start = "0"
accepting = ["0"]
table.0 = {0 = "0", 1 = "1"}
table.1 = {0 = "2", 1 = "0"}
table.2 = {0 = "1", 1 = "2"}
"""
S3 = Automaton.from_generators({"a": "(1 2)", "b": "(1 2 3)"})
FLIP_FLOP = Automaton([[0, 0, 1], [1, 0, 1]])
ENDS_IN_ABB = Automaton([[1, 0], [1, 2], [1, 3], [1, 0]], 0, [0, 0, 0, 1])


@pytest.fixture
def three(tmp_path):
    path = tmp_path / "three.toml"
    path.write_text(THREE)
    return path


@pytest.mark.parametrize(
    "automaton", [PARITY, S3, FLIP_FLOP, ENDS_IN_ABB], ids=["parity", "S3", "flip-flop", "ends in abb"]
)
def test_an_automaton_is_learned(automaton):
    heard = []
    learned = learn_automaton(
        automaton, **SMALL, steps=2000, told=lambda step, numbers: heard.append((step, numbers))
    )
    assert learned.proved and learned.accuracy == 1.0 and not learned.model.training
    assert prove(learned.model, automaton).equal
    assert heard[-1] == (learned.steps, heard[-1][1]) and heard[-1][1]["letters"] == learned.length
    words = torch.randint(automaton.table.shape[1], (4, 1000))
    assert torch.equal(learned.model(words)[0].argmax(-1), automaton.answers(words))


def test_input_gates_are_closed_where_symbols_permute_the_states():
    for automaton, bias, size in (
        (PARITY, CLOSED, 2),
        (S3, CLOSED, 3),
        (FLIP_FLOP, 0.0, 2),
        (ENDS_IN_ABB, 0.0, 4),
    ):
        arguments = mixer_arguments(automaton)
        assert (arguments["gate_bias"], arguments["block_size"]) == (bias, size)
    assert mixer_arguments(S3, 7)["block_size"] == 7


def test_one_seed_gives_the_same_weights():
    one, two, other = (
        learn_automaton(S3, **SMALL, steps=10, seed=seed).model.state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])


def test_what_was_not_proved_is_returned():
    learned = learn_automaton(S3, **SMALL, steps=1)
    assert not learned.proved and (learned.steps, learned.attempts, learned.length) == (1, 1, 2)
    assert learned.proof.counterexample is not None


def test_the_copy_that_was_proved_is_returned():
    learned = learn_automaton(S3, dim=32, num_blocks=8, lr=0.01, steps=500, max_pairs=20)
    assert learned.proved and learned.proof.at_rest == 0 and learned.proof.pairs <= 20
    whole = prove(learned.model, S3)
    assert whole.equal and whole.pairs == learned.proof.pairs


def test_words_grow_and_a_run_that_stays_begins_anew():
    training = training_config(steps=2000, batch_size=8, length=12, lr=0.0, seed=0)
    assert training.train_lengths == (2, 4, 8, 12)
    learner = Learner(PARITY, mixer_arguments(PARITY, num_blocks=2), Config().model, training)
    before = learner.model.head.weight.clone()
    learner.totals = torch.tensor([0.0, 9.0, 10.0])
    for step in range(10):
        assert learner.length == 2 and learner.climb(step) == 0.9
    assert learner.length == 4 and learner.arrived == 10
    learner.restart_if_stuck(509)
    assert learner.attempts == 1
    learner.restart_if_stuck(510)
    assert (learner.attempts, learner.length, learner.arrived) == (2, 2, 510)
    assert not torch.equal(before, learner.model.head.weight)


def test_answers_may_be_missing():
    ends = Automaton([[1, 2], [2, 2], [2, 2]], 0, [IGNORED, 1, IGNORED])
    assert learn_automaton(ends, **SMALL, steps=500).proved
    with pytest.raises(ValueError, match="automaton: got no state with an answer"):
        learn_automaton(Automaton([[0]], 0, [IGNORED]))


WRONG = {
    "too large": (
        lambda: learn_automaton(S3, max_pairs=5),
        "automaton: got 6 states, expected at most max_pairs = 5",
    ),
    "no rule": (
        lambda: learn_automaton(Automaton.from_generators({"a": "(1 2)", "b": "(1 2 3 4 5 6 7)"})),
        "block_size: got None, expected a number, since the rule for m fails",
    ),
    "steps": (lambda: learn_automaton(S3, steps=0), "training.steps: got 0, expected"),
    "length": (lambda: learn_automaton(S3, length=0), "length: got 0, expected an integer of at least 1"),
    "lr": (lambda: learn_automaton(S3, lr=-1.0), "training.lr: got -1.0, expected"),
    "dim": (lambda: learn_automaton(S3, dim=0), "model.dim: got 0, expected"),
    "block_size": (lambda: learn_automaton(S3, block_size=0), "block_size: got 0, expected"),
    "max_pairs": (lambda: learn_automaton(S3, max_pairs=0), "max_pairs: got 0, expected at least 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_arguments(name):
    call, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_a_run_folder(three, tmp_path):
    config = learn_config(three, **SMALL)
    summary, proof = learn_run(config, tmp_path / "run")
    assert proof.equal and summary["proved"] and summary["status"] == "stopped_early"
    assert summary["accuracy"] == {"16": 1.0, "256": 1.0}
    loaded, model = load_run(tmp_path / "run")
    assert loaded == config and prove(model, Automaton.from_file(three)).equal
    again, second = learn_run(config, tmp_path / "run")
    assert again.items() >= summary.items() and second.equal
    with pytest.raises(RunError, match=r"holds another run: training\.seed: 0 in the folder, 1 given"):
        learn_run(learn_config(three, **SMALL, seed=1), tmp_path / "run")
    three.rename(tmp_path / "file")
    with pytest.raises(RunError, match="is a file, expected a folder"):
        learn_run(config, tmp_path / "file")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(RunError, match="is not empty and not a run folder"):
        learn_run(config, tmp_path / "other")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_s4_with_blocks_of_four(seed):
    s4 = Automaton.from_generators({"a": "(1 2)", "b": "(1 2 3 4)"})
    learned = learn_automaton(s4, seed=seed, steps=3000)
    assert learned.proved and learned.model.layers[0].mixer.block_size == 4
