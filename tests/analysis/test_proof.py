"""Machines read back from hard layers: what is enumerated is what the model does, and the verdicts are right."""

from __future__ import annotations

import copy
import doctest
from itertools import product

import pytest
import torch
from torch import nn

from statemix.analysis import proof, prove
from statemix.analysis.enumeration import Enumeration
from statemix.analysis.hard_layers import read_maps, set_at_rest
from statemix.analysis.proof import random_words
from statemix.models import LanguageModel
from statemix.nn import BDLRU, HLRU, Block
from statemix.ops import NORMALIZATIONS
from statemix.tasks import IGNORED, Automaton, get_task
from tests.analysis.exact import group_model, last_symbol

S3 = Automaton.from_generators({"(1 2)": "(1 2)", "(1 2 3)": "(1 2 3)"})
LAST, PARITY = Automaton([[0, 1], [0, 1]]), Automaton([[0, 1], [1, 0]])
HARD = sorted(set(NORMALIZATIONS) - {"none"})


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def layer(kind, normalization, **options):
    size = {"block_size": 3, "num_blocks": 4} if kind is BDLRU else {"order": 3, "num_channels": 4}
    return kind(8, **size, normalization=normalization, hard=True, learned_initial_state=True, **options)


@pytest.mark.parametrize("normalization", HARD)
@pytest.mark.parametrize("kind", [BDLRU, HLRU])
def test_maps_are_what_the_layer_does(kind, normalization):
    torch.manual_seed(0)
    block, x = Block(8, layer(kind, normalization)), torch.randn(20, 8)
    maps, contents = read_maps(block, x), torch.randn(20, 4, 3)
    _, expected = block.step(x, contents)
    assert torch.equal(maps.step(contents, torch.arange(20)), expected)
    some = torch.tensor([3, 1])
    assert torch.equal(maps.step(contents[:, some], torch.arange(20), some), expected[:, some])


@pytest.mark.parametrize("normalization", HARD)
@pytest.mark.parametrize("selective", [True, False])
@pytest.mark.parametrize("kind", [BDLRU, HLRU])
def test_blocks_at_rest_keep_their_contents(kind, selective, normalization):
    torch.manual_seed(0)
    mixer, contents = layer(kind, normalization, selective=selective), torch.randn(4, 3)
    untouched, x = copy.deepcopy(mixer), torch.randn(2, 9, 8)
    set_at_rest(mixer, [0, 2], contents)
    state = mixer.initial_state(2)
    _, after = mixer(x)
    assert torch.equal(after[:, [0, 2]], state[:, [0, 2]])
    expected = contents if kind is BDLRU else contents.mean(-1, keepdim=True).expand(4, 3)
    torch.testing.assert_close(after[0, [0, 2]], expected[[0, 2]])
    assert torch.equal(after[:, [1, 3]], untouched(x)[1][:, [1, 3]])


def test_an_exact_model_is_proved():
    found = prove(group_model(S3, 3), S3)
    assert found.equal and found.proved and found.at_rest == () and found.pairs == 6 and found.lead > 1
    assert found.counterexample is None and found.tested == 64 * 128
    state = torch.full((6,), -1)
    state[0] = S3.start
    for pair, symbol in product(range(6), range(2)):
        state[found.table[pair, symbol]] = S3.table[state[pair], symbol]
    assert torch.equal(state[found.table], S3.table[state]) and torch.equal(found.answers, S3.table[state])
    block = found.blocks[0]
    assert block.contents == 6 and len(set(block.classes)) == 6 and not block.at_rest
    assert [block.rows(symbol) for symbol in range(2)] == ["2 1 3", "2 3 1"]


def test_blocks_that_forget_are_put_at_rest_in_a_copy():
    whole = get_task("permutation", n=3).automaton()
    model = group_model(whole, 3, blocks=12, seed=1)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    found = prove(model, whole)
    assert found.proved and found.equal is None and found.at_rest and (0, 0) not in found.at_rest
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    words = random_words(whole, 20, 300, seed=9)
    assert torch.equal(found.model(words)[0].argmax(-1), whole.answers(words))
    for one in found.blocks:
        assert one.at_rest == (one.place in found.at_rest) and (one.contents == 1 or not one.at_rest)


@pytest.mark.parametrize("depth", [1, 2])
def test_what_is_enumerated_is_what_the_model_does(depth):
    """The contents of every layer along random words are those of the pairs, bit for bit."""
    torch.manual_seed(depth)
    automaton = get_task("even_pairs").automaton()
    options = {"block_size": 2, "num_blocks": 2, "hard": True, "learned_initial_state": True}
    model = LanguageModel(3, 8, lambda dim: BDLRU(dim, **options), depth=depth).eval()
    words = random_words(automaton, 30, 40)
    with torch.no_grad():
        search = Enumeration(model, automaton, 10**5, words)
        found, answers, _ = search.run()
        assert found.complete and not search.at_rest
        pair, states = torch.zeros(30, dtype=torch.int64), None
        for tokens in words.T:
            logits, states = model.step(tokens, states)
            assert torch.equal(logits.argmax(-1), answers[pair, tokens])
            pair = found.table[pair, tokens]
            torch.testing.assert_close(found.contents[pair], states[-1], rtol=1e-5, atol=1e-6)


def shortest_error(model, automaton):
    """By trying all words."""
    for length in range(1, 8):
        words = torch.tensor(list(product(range(automaton.table.shape[1]), repeat=length)))
        wrong = model(words)[0].argmax(-1)[:, -1] != automaton.answers(words)[:, -1]
        if wrong.any():
            return tuple(words[wrong][0].tolist())
    raise AssertionError


def test_the_shortest_word_is_found_on_which_a_model_errs():
    model = group_model(S3, 3)
    with torch.no_grad():  # one of six answers is never given
        model.head.bias[5] = -9.0
    for one, automaton in ((model, S3), (last_symbol(), PARITY)):
        found = prove(one, automaton)
        assert found.equal is False and not found.proved and not found.sampled
        assert found.counterexample == shortest_error(one, automaton)


def test_a_random_word_refutes_what_cannot_be_enumerated():
    whole = get_task("permutation", n=3).automaton()
    model = group_model(whole, 3, blocks=12)
    with torch.no_grad():
        model.layers[0].mixer.readout_projection.weight.normal_()
    found = prove(model, whole)
    assert found.equal is False and found.sampled and found.at_rest
    word = torch.tensor([found.counterexample])
    assert model(word)[0][0, -1].argmax() != whole.answers(word)[0, -1]


@pytest.mark.parametrize("depth", [1, 2])
def test_channels_of_an_hlru(depth):
    found = prove(last_symbol(depth), LAST)
    assert (
        found.equal and found.lead > 1 and found.blocks[0].rows(0) == "new 1" and len(found.blocks) == depth
    )
    assert ("layers before" in found.blocks[-1].rows(0)) == (depth == 2)


def test_rows_that_rounding_could_change_are_put_at_rest():
    model = group_model(S3, 3, blocks=2)
    with torch.no_grad():  # the first row of block 1: two equal weights
        gates = model.layers[0].mixer.gates
        gates.weight.view(4, 2, 3, -1)[:, 1, 0] = 0
    found = prove(model, S3)
    assert (0, 1) in found.at_rest and found.proved
    assert min(one.gap for one in found.blocks) > 1e-4


def test_words_stop_where_no_answer_is_to_come():
    """Expressions of numbers and operators: nothing behind two numbers in a row is looked at."""
    automaton = get_task("modular_arithmetic", modulus=2).automaton()
    torch.manual_seed(0)
    layer = {"block_size": 1, "num_blocks": 1, "hard": True, "learned_initial_state": True}
    found = prove(LanguageModel(6, 8, lambda dim: BDLRU(dim, **layer), depth=1), automaton)
    assert found.pairs is not None and found.equal is False
    assert ((found.table < 0) <= (found.answers == IGNORED)).all() and (found.table < 0).any()
    words = random_words(automaton, 50, 20)
    assert (automaton.trace(words) != automaton.states.index("wrong")).all()


def test_bad_input():
    soft = LanguageModel(2, 8, lambda dim: BDLRU(dim, block_size=2), depth=1)
    with pytest.raises(ValueError, match="model: layer 0 is a BDLRU with hard=False, expected hard=True"):
        prove(soft, PARITY)
    with pytest.raises(ValueError, match="model: got Linear, expected a LanguageModel of hard layers"):
        prove(nn.Linear(2, 2), PARITY)
    options = {"block_size": 2, "hard": True}
    convolved = LanguageModel(2, 8, lambda dim: BDLRU(dim, **options), depth=1, block={"conv_size": 2})
    with pytest.raises(ValueError, match="model: layer 0 has a convolution"):
        prove(convolved, PARITY)
    with pytest.raises(ValueError, match="automaton: got 6 symbols and answers, expected at most 2"):
        prove(last_symbol(), S3)
    with pytest.raises(ValueError, match="max_pairs: got 0, expected at least 1"):
        prove(last_symbol(), PARITY, max_pairs=0)


def test_too_many_pairs():
    found = prove(group_model(S3, 3), S3, max_pairs=5)
    assert found.pairs is None and not found.proved and found.equal is None and found.counterexample is None


def test_the_example_runs():
    failed, tried = doctest.testmod(proof, extraglobs={"LanguageModel": LanguageModel, "BDLRU": BDLRU})
    assert tried and not failed
