"""Populations of hard runs: words, the model read from a table, stacked training, lists of runs."""

import itertools
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from statemix_research.automata import (
    LANGUAGES,
    REMEDIES,
    Population,
    diagnosis,
    get_recipe,
    group_words,
    training,
    words,
)
from statemix_research.automata import experiments as lists
from statemix_research.automata.evaluation import Check, evaluate, fixed_words, fresh_words, is_proved
from statemix_research.automata.tracker import (
    LARGEST_FUSED,
    MODELS,
    Tracker,
    balanced,
    build_model,
    one_to_one,
)
from statemix_research.automata.training import TimeIsUp, train_population

from statemix.tasks import IGNORED, get_task

SMALL = {"dim": 16, "num_blocks": 4, "block_size": 3, "batch_size": 8, "length": 6, "steps": 20, "lr": 4e-3}


def drawn(source, length, count=64):
    return source.draw((count,), length, torch.Generator().manual_seed(0))


def test_group_words_are_running_products():
    tokens, targets = drawn(group_words("permutation", 3), 12)
    table = get_task("permutation", n=3).table
    product = torch.zeros(64, dtype=torch.int64)
    for t in range(12):
        product = table[product, tokens[:, t]]
        assert torch.equal(product, targets[:, t])


def test_generators_are_the_only_letters():
    source, generators = group_words("permutation", 4, torch.tensor([3, 9])), torch.tensor([3, 9])
    tokens, targets = drawn(source, 20)
    assert set(tokens.flatten().tolist()) == {0, 1}
    product, table = torch.zeros(64, dtype=torch.int64), get_task("permutation", n=4).table
    for t in range(20):
        product = table[product, generators[tokens[:, t]]]
        assert torch.equal(product, targets[:, t])
    assert source.automaton() is not None


def test_long_words_are_followed_in_chunks(monkeypatch):
    source = group_words("permutation", 3)
    letters = torch.randint(6, (64, 5), generator=torch.Generator().manual_seed(0))
    whole = source.states(letters)
    monkeypatch.setattr(words, "CHUNK", 8)
    assert torch.equal(source.states(letters), whole)


PLAIN = {
    "parity": lambda word: 1 + sum(x == 2 for x in word) % 2,
    "even_pairs": lambda word: 1 + (word[0] != word[-1]),
    "cycle_navigation": lambda word: 4 + sum({1: 0, 2: 1, 3: -1}[x] for x in word) % 5,
    "modular_arithmetic": lambda word: (
        5 + eval("".join(" +-*="[x] if x < 5 else str(x - 5) for x in word[:-1])) % 5
    ),
}


@pytest.mark.parametrize("name", LANGUAGES)
def test_languages_have_one_right_answer(name):
    source = LANGUAGES[name]
    tokens, targets = drawn(source, 12)
    for word, target in zip(tokens.tolist(), targets.tolist(), strict=True):
        (end,) = [t for t, answer in enumerate(target) if answer != IGNORED]
        assert word[end + 1 :] == [0] * (11 - end)
        assert target[end] == PLAIN[name](word[: end + 1])
    lengths = (targets != IGNORED).nonzero()[:, 1] + 1
    assert lengths.min() >= 3
    assert lengths.max() == 12


def test_held_out_pairs_never_stand_side_by_side():
    every = group_words("permutation", 4)
    source = words.hold_out(every, 0.3)
    tokens, targets = drawn(source, 40)
    assert torch.equal(every.written(tokens.T.contiguous())[1], targets)
    seen = set(zip(tokens[:, :-1].flatten().tolist(), tokens[:, 1:].flatten().tolist(), strict=True))
    held_out = {(a, b) for a in range(24) for b in range(24) if source.instead[a, b] != b}
    assert 0.2 < len(held_out) / 576 < 0.4
    assert not seen & held_out
    assert len(seen) > 0.9 * (576 - len(held_out))


def test_an_epoch_reads_every_word_of_a_pool_once():
    pool = lists._group("permutation", 3, pool=10, length=6)()
    epochs, generator = words.Epochs(pool, 2, 5), torch.Generator().manual_seed(0)
    batches = [epochs.draw(4, generator) for _ in range(6)]
    for run in range(2):
        for first in (0, 2, 4):
            tokens = torch.cat([batch[0][run] for batch in batches[first : first + 2]])
            assert sorted(tokens.tolist()) == sorted(pool.tokens[:, :4].tolist())
    assert not torch.equal(batches[0][0], batches[2][0])
    assert torch.equal(pool.words.written(batches[0][0].permute(2, 0, 1))[1], batches[0][1])
    assert drawn(pool, 9)[0].shape == (64, 9)
    with pytest.raises(ValueError, match="batch_size: got 11, expected at most the pool's 10 words"):
        words.Epochs(pool, 2, 11)


def test_a_population_trains_on_a_pool():
    source = lists._group("permutation", 3, pool=16, length=6)()
    population = Population(get_recipe(**SMALL), source, [0, 1])
    population.advance(3)
    assert population.accuracy.isfinite().all()
    with pytest.raises(ValueError, match="pieces: got a fixed number of words"):
        Population(get_recipe("short_words", **{**SMALL, "length": 16}), source, [0])


def test_fixed_test_words_belong_to_their_seed():
    longer = replace(LANGUAGES["parity"], shortest=40)
    check = Check(length=50, count=300, words=longer, fixed=True)
    both, alone = fixed_words(check, [2, 3]), fixed_words(check, [3])
    assert [tokens.shape[1] for tokens, _ in both] == [256, 44]
    assert all(
        torch.equal(x[0][1], y[0][0]) and torch.equal(x[1][1], y[1][0])
        for x, y in zip(both, alone, strict=True)
    )
    expected = longer.draw((300,), 50, torch.Generator().manual_seed(6))[0]
    assert torch.equal(torch.cat([tokens[1] for tokens, _ in both]), expected)


@pytest.mark.parametrize("changes", [{}, {"depth": 2}, {"mlp": False}, {"hard": False}])
def test_the_tracker_is_the_model(changes):
    recipe = get_recipe(**{**SMALL, **changes})
    model = build_model(recipe, 6, seed=0)
    tracker, tokens = (
        Tracker(model, recipe),
        torch.randint(6, (3, 10), generator=torch.Generator().manual_seed(0)),
    )
    expected, got = model(tokens)[0], tracker(tokens)[0]
    torch.testing.assert_close(got, expected)
    inputs = list(model.parameters())
    gradients = (torch.autograd.grad(logits.square().sum(), inputs) for logits in (got, expected))
    for mine, models in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, models, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_the_state_is_carried(model):
    recipe = get_recipe(**SMALL, model=model)
    tracker, tokens = MODELS[model](recipe, 6, 0), torch.arange(12).view(2, 6) % 6
    first, states, _ = tracker(tokens[:, :4])
    second, _, _ = tracker(tokens[:, 4:], states)
    torch.testing.assert_close(torch.cat([first, second], 1), tracker(tokens)[0])


def test_the_control_is_torchs_lstm():
    recipe = get_recipe("lstm", **{**SMALL, "depth": 2})
    tracker, tokens = MODELS["lstm"](recipe, 6, 0), torch.arange(12).view(2, 6) % 6
    expected = tracker.head(tracker.lstm(tracker.embedding(tokens).transpose(0, 1))[0].transpose(0, 1))
    torch.testing.assert_close(tracker(tokens)[0], expected)


def test_the_published_control_drops_between_layers_and_decays_all_but_embeddings():
    for how, kept, decaying in ((("lstm", "published"), True, 6), (("lstm",), False, 3)):
        recipe = get_recipe(*how, **{**SMALL, "depth": 1, "dropout": 0.5}, embedding_decay=False)
        tracker, tokens = MODELS["lstm"](recipe, 6, 0), torch.arange(12).view(2, 6) % 6
        assert torch.equal(tracker(tokens)[0], tracker.eval()(tokens)[0]) is kept
        groups = Population(recipe, group_words("permutation", 3), [0]).optimizer.param_groups
        assert sum(len(group["params"]) for group in groups if group["weight_decay"]) == decaying


def test_a_population_is_its_runs():
    """Two seeds at once take the steps that each takes alone, up to the order of additions."""
    recipe, source = get_recipe("balance", **SMALL), group_words("permutation", 3)
    both = Population(recipe, source, [0, 1])
    tokens, _ = both.words.draw((2, 8), 6, torch.Generator().manual_seed(5))
    for run, seed in enumerate((0, 1)):
        alone = Tracker(build_model(recipe, 6, seed), recipe)
        expected, _, penalty = alone(tokens[run])
        got, _, penalties = both.run(tokens)
        torch.testing.assert_close(got[run], expected)
        torch.testing.assert_close(penalties[run], penalty)


@pytest.mark.parametrize("remedy", REMEDIES)
def test_every_remedy_trains(remedy):
    sizes = {name: value for name, value in SMALL.items() if name not in REMEDIES[remedy]}
    if REMEDIES[remedy].get("pieces"):
        sizes["length"] = max(REMEDIES[remedy]["lengths"])
    seeds = [0] if remedy in ("lstm", "pdssm") else [0, 1]
    population = Population(get_recipe(remedy, **sizes), group_words("permutation", 3), seeds)
    before = {name: weight.detach().clone() for name, weight in population.weights.items()}
    population.advance(2)
    assert population.loss.isfinite().all()
    assert all(
        (weight != before[name]).any() for name, weight in population.weights.items() if "bias" not in name
    )


def test_one_run_is_learned_and_stays_right():
    _, rows = train_population(
        get_recipe(dim=32, num_blocks=8, block_size=3, batch_size=32, length=8, steps=400, lr=8e-3, mlp=False),
        group_words("permutation", 3), [0], check=Check(every=25), lengths=((2048, 4),),
    )  # fmt: skip
    assert rows[0]["solved"] <= 400
    assert rows[0]["accuracy"] == rows[0]["at"][2048] == rows[0]["whole"][2048] == 1.0
    assert rows[0]["proved"] is True


def test_proofs_are_of_runs_that_the_layer_alone_computes():
    for remedies, source, expected in (
        (("base",), words.hold_out(group_words("permutation", 3), 0.1), False),
        (("sinkhorn",), group_words("permutation", 3), None),
        (("base",), group_words("permutation", 3, torch.tensor([1, 2])), False),
        (("hlru",), group_words("permutation", 3), False),
        (("base",), LANGUAGES["parity"], None),
        (("lstm",), group_words("permutation", 3), None),
    ):
        assert is_proved(Population(get_recipe(*remedies, **SMALL), source, [0]), 0) is expected


@pytest.mark.parametrize(
    "model", [("balance",), ("layers", "steps_20_000"), ("one_layer",), ("hlru",), ("plain",)]
)
def test_one_run_alone_is_that_of_a_population(model):
    """Its gradients and its states, without `vmap`."""
    changed = {name for remedy in model for name in REMEDIES[remedy]}
    recipe = get_recipe(*model, **{name: value for name, value in SMALL.items() if name not in changed})
    source = group_words("permutation", 3)
    alone, both = (Population(recipe, source, seeds) for seeds in ([1], [0, 1]))
    tokens, _ = source.draw((2, 8), 6, torch.Generator().manual_seed(5))
    grads = []
    for population, given in ((alone, tokens[1:]), (both, tokens)):
        logits, states, penalty = population.run(given)
        again, _, _ = population.run(given, states)
        loss = (again[-1].sin().sum() + logits[-1].cos().sum()) + penalty[-1]
        grads.append(torch.autograd.grad(loss, list(population.weights.values()), allow_unused=True))
    for got, want in zip(*grads, strict=True):
        assert (got is None) == (want is None)
        if got is not None:
            torch.testing.assert_close(got[0], want[1])


def test_the_control_trains_alone():
    recipe, source = get_recipe("lstm", **{**SMALL, "steps": 100, "lr": 0.03}), group_words("permutation", 3)
    with pytest.raises(ValueError, match=r"seeds: got \[0, 1\], expected one: 'lstm' cannot be stacked"):
        Population(recipe, source, [0, 1])
    population = Population(recipe, source, [0])
    population.advance(1)
    first = population.loss.item()
    population.advance(60)
    assert population.loss.item() < 0.9 * first


def test_words_with_an_error_are_not_whole(monkeypatch):
    population = Population(get_recipe(**SMALL), group_words("permutation", 3), [0, 1])
    _, targets = population.words.draw((2, 5), 600, torch.Generator().manual_seed(7))
    logits = torch.nn.functional.one_hot(targets, 6).float()
    logits[0, 3, 540] = logits[0, 3, 20] = logits[1, :, 0] = 0
    logits[0, 3, 540, (targets[0, 3, 540] + 1) % 6] = logits[0, 3, 20, (targets[0, 3, 20] + 1) % 6] = 1
    logits[1, torch.arange(5), 0, (targets[1, :, 0] + 1) % 6] = 1
    at = [0]

    def run(tokens, states=None):
        at[0] += tokens.shape[-1]
        return logits[..., at[0] - tokens.shape[-1] : at[0], :], None, None

    monkeypatch.setattr(population, "run", run)
    accuracy, whole = evaluate(population, fresh_words(population, 600, 5))
    assert accuracy.tolist() == pytest.approx([1 - 2 / 3000, 1 - 5 / 3000])
    assert whole.tolist() == [0.8, 0.0]


def test_lengths_grow_when_exact():
    recipe = get_recipe(**{**SMALL, "lengths": (1, 6), "patience": 2})
    population = Population(recipe, group_words("permutation", 3), [0, 1])
    population._climb(torch.tensor([True, False]), 1)
    population._climb(torch.tensor([True, True]), 1)
    assert population.stage.tolist() == [1, 0]
    population._climb(
        torch.tensor([True, True]), 1
    )  # only one letter was seen: the first run learns nothing from it
    assert population.stage.tolist() == [1, 1]
    assert population._streak.tolist() == [0, 0]


def test_pieces_start_from_the_initial_state():
    recipe = get_recipe(**{**SMALL, "depth": 2})
    tracker = Tracker(build_model(recipe, 6, seed=0), recipe)
    tokens = torch.randint(6, (3, 6), generator=torch.Generator().manual_seed(0))
    whole = tracker(tokens, starts=torch.arange(6) % 2 == 0)[0]
    torch.testing.assert_close(whole, tracker(tokens.view(9, 2))[0].view(3, 6, 6))


def test_pieces_fill_a_word():
    with pytest.raises(ValueError, match=r"lengths: got \(2, 4, 8, 16\), expected divisors of length = 6"):
        Population(get_recipe("short_words", **SMALL), group_words("permutation", 3), [0])


def test_a_run_reads_pieces_of_its_own_length():
    recipe = get_recipe("short_words", **{**SMALL, "length": 16})
    population = Population(recipe, group_words("permutation", 3), [0, 1])
    population.stage.copy_(torch.tensor([0, 2]))
    tokens, targets, starts = population._draw(16)
    assert [run.nonzero().flatten().tolist() for run in starts] == [[0, 2, 4, 6, 8, 10, 12, 14], [0, 8]]
    states = population.words
    for run, piece in enumerate((2, 8)):
        letters = tokens[run].view(-1, piece).T
        torch.testing.assert_close(targets[run].view(-1, piece), states.written(letters)[1])


def test_enough_right_answers_lead_on():
    recipe = get_recipe("short_words", **{**SMALL, "length": 16, "enough": 0.0, "patience": 2})
    population = Population(recipe, group_words("permutation", 3), [0])
    stages = []
    for _ in range(7):
        population.advance()
        stages.append(population.stage.item())
    assert stages == [0, 1, 1, 2, 2, 3, 3]
    assert population._arrived.tolist() == [6]


def test_closed_input_gates_stay_closed():
    population = Population(get_recipe("no_input", **SMALL), group_words("permutation", 3), [0, 1])
    population.advance(5)
    assert population.selected().max() == SMALL["block_size"] - 1
    bias = population.weights["model.layers.0.mixer.gates.bias"].unflatten(1, (4, -1))[:, -1]
    assert (bias == -30).all()


def test_a_run_that_is_stuck_begins_anew():
    recipe = get_recipe("short_words", **{**SMALL, "length": 16, "retry": 3})
    source = group_words("permutation", 3)
    population = Population(recipe, source, [0, 1, 2])
    population.advance(3)
    population.stage.copy_(torch.tensor([1, 0, 0]))
    population._arrived.copy_(torch.tensor([2, 0, 0]))
    before = {name: weight.detach().clone() for name, weight in population.weights.items()}
    assert population.retry_stuck([False, False, True]) == 1
    fresh = dict(Tracker(build_model(recipe, 6, 1 + 1_000_000), recipe).named_parameters())
    for name, weight in population.weights.items():
        assert torch.equal(weight[1], fresh[name])
        assert torch.equal(weight[[0, 2]], before[name][[0, 2]])
        moments = population.optimizer.state[weight]["exp_avg"]
        assert not moments[1].any() and moments[0].any()
    assert population.stage.tolist() == [1, 0, 0] and population._arrived.tolist() == [2, 3, 0]


def test_a_solved_run_ends_and_its_neighbour_goes_on():
    population = Population(get_recipe(**SMALL), group_words("permutation", 3), [0, 1])
    population.keep(0)
    before = {name: weight.detach().clone() for name, weight in population.weights.items()}
    population.advance(2)
    population.end()
    for name, weight in population.weights.items():
        assert torch.equal(weight[0], before[name][0])
    assert any((weight[1] != before[name][1]).any() for name, weight in population.weights.items())


def test_what_is_solved_is_proved():
    recipe = get_recipe(
        *lists.BEST, dim=32, num_blocks=4, block_size=3, batch_size=32, length=16, steps=2000, lr=4e-3
    )
    _, rows = train_population(recipe, group_words("permutation", 3), range(3), check=Check(proof=True))
    assert [row["proved"] for row in rows] == [True] * 3
    assert [row["accuracy"] for row in rows] == [1.0] * 3


def test_one_to_one_rows_are_permutations():
    raw = torch.randn(7, 5, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    rows = one_to_one(raw)
    assert (rows.detach().round().sum(-1) == 1).all()
    assert (rows.detach().round().sum(-2) == torch.tensor([1, 1, 1, 1, 0])).all()
    (gradient,) = torch.autograd.grad((rows * torch.randn(rows.shape)).sum(), raw)
    assert gradient[..., :-1].abs().min() > 0


def test_sinkhorn_steps_balance_columns():
    raw = torch.zeros(4, 5)
    raw[:, 0] = 3.0
    columns = balanced(raw, 20).exp()[:, :-1].sum(0)
    assert columns.max() <= 1.001
    assert raw.softmax(-1)[:, :-1].sum(0).max() > 3


def test_lists_go_on_where_they_stopped(tmp_path, monkeypatch):
    one = lists.Experiment(
        "", lists._group("permutation", 3), 2, [("base",), ("balance",)], {**SMALL, "steps": 2}
    )
    monkeypatch.setattr(lists, "EXPERIMENTS", {"small": one})
    out = tmp_path / "small.jsonl"
    lists.run_experiment("small", out, only=["balance"], told=lambda line: None)
    lists.run_experiment("small", out, told=lambda line: None)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["remedies"], row["seed"]) for row in rows] == [
        ("balance", 0), ("balance", 1), ("base", 0), ("base", 1)
    ]  # fmt: skip
    assert lists.run_experiment("small", out, told=lambda line: None) == []
    with pytest.raises(ValueError, match="experiment: got 'none'"):
        lists.run_experiment("none", out)


def test_processes_share_a_list_by_seeds(tmp_path, monkeypatch):
    one = lists.Experiment(
        "words of S3", lists._group("permutation", 3), 3, [("base",)], {**SMALL, "steps": 2}, at_once=1
    )
    monkeypatch.setattr(lists, "EXPERIMENTS", {"small": one})
    out = tmp_path / "small.jsonl"
    for seeds in ([2], [0, 1], [0]):
        lists.run_experiment("small", out, seeds=seeds, told=lambda line: None)
    assert [row["seed"] for row in lists.read_rows(out)] == [2, 0, 1]
    with pytest.raises(ValueError, match=r"seeds: got \[3\], expected some of 0, 1, 2"):
        lists.run_experiment("small", out, seeds=[0, 3])
    with pytest.raises(ValueError, match=r"only: got \['bas'\], expected some of base"):
        lists.run_experiment("small", out, only=["bas"])


def test_every_list_can_begin():
    for name, experiment in lists.EXPERIMENTS.items():
        check = experiment.check()
        assert check.words is None or check.words.vocab_size == experiment.words().vocab_size
        assert name.startswith(("screen", "b_")) or experiment.seconds > 0
        for remedies in experiment.remedies:
            recipe = get_recipe(*remedies, **{**experiment.settings, **lists._changed(remedies)})
            assert not recipe.pieces or all(recipe.length % piece == 0 for piece in recipe.lengths)


def test_unknown_names():
    with pytest.raises(ValueError, match="remedy: got 'none', expected one of base"):
        get_recipe("none")
    with pytest.raises(ValueError, match="unknown setting 'size'"):
        get_recipe(size=3)


def test_words_of_another_length_are_longer():
    tokens, _ = drawn(replace(LANGUAGES["parity"], shortest=40), 50)
    assert (tokens[:, :40] != 0).all()


def test_each_run_reads_words_up_to_its_own_length():
    longest = torch.tensor([3, 8]).view(-1, 1, 1)
    tokens, targets = LANGUAGES["parity"].draw((2, 400), 12, torch.Generator().manual_seed(0), longest)
    lengths = (tokens != 0).sum(-1)
    assert set(lengths[0].tolist()) == {3}
    assert set(lengths[1].tolist()) == {3, 4, 5, 6, 7, 8}
    assert ((targets != IGNORED).sum(-1) == 1).all()
    population = Population(get_recipe(**{**SMALL, "lengths": (3, 6)}), LANGUAGES["parity"], [0, 1])
    population.stage[1] = 1
    assert [(row != 0).sum(-1).max().item() for row in population._draw(6)[0]] == [3, 6]


LADDER = {**SMALL, "lengths": (2, 6), "patience": 3, "enough": 0.3, "retry": 12}


@pytest.mark.parametrize(("pool", "left_at"), [(0, (5, 10)), (40, (5, 10)), (0, (2, 4))])
def test_a_population_goes_on_where_it_was_left(pool, left_at, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "STEPS", left_at[0])
    recipe, file = get_recipe(**LADDER), tmp_path / "run.pt"
    source = lists._group("permutation", 3, pool=pool, length=16)()

    def train(**options):
        check = Check(every=5, length=20, count=8)
        return train_population(recipe, source, [0, 1], check=check, saved=file, **options)

    whole, expected = train()
    for step in left_at:
        with monkeypatch.context() as patch:  # the clock ticks once a look, and the time is up at the third
            patch.setattr(training, "time", SimpleNamespace(monotonic=itertools.count(1).__next__))
            with pytest.raises(TimeIsUp, match=f"step {step}: 0 of 2 solved"):
                train(until=3)
    population, rows = train()
    for name, weight in whole.weights.items():
        assert torch.equal(weight, population.weights[name]), name
    assert [{**row, "seconds": 0} for row in rows] == [{**row, "seconds": 0} for row in expected]
    recipe = replace(recipe, lr=1.0)
    with pytest.raises(ValueError, match="of another recipe"):
        train()


def test_a_diagnosis_is_drawn(tmp_path, monkeypatch):
    one = lists.Experiment("", lists._group("permutation", 3), 2, [("base",)], SMALL)
    monkeypatch.setitem(lists.EXPERIMENTS, "small", one)
    runs = diagnosis.diagnose_experiment("small", 2, 60)
    for run in runs:
        assert run["copied"] + run["taken"] == pytest.approx(1.0)
        assert len(run["left"]) == len(run["gradient_by_position"]) == diagnosis.LENGTH
        assert len(run["left"][0]) == len(run["block_permuting"]) == 4
    diagnosis.draw(runs, tmp_path / "runs.svg")
    assert "channels of the first state left" in (tmp_path / "runs.svg").read_text()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_population_learns_on_a_gpu():
    """Captured steps at two lengths, and a test of long words."""
    recipe = get_recipe(
        dim=32, num_blocks=8, block_size=3, batch_size=32, length=8, steps=800, lr=8e-3, lengths=(2, 8)
    )  # fmt: skip
    population, rows = train_population(
        recipe, group_words("permutation", 3), range(4), device="cuda", lengths=((1 << 15, 2),)
    )
    assert set(population._replays) == {2, 8}
    assert sum(row["solved"] is not None for row in rows) >= 2
    assert max(row["at"][1 << 15] for row in rows) == 1.0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_short_words_lead_to_a_proof_on_a_gpu():
    """Captured steps on pieces, runs that begin anew, and a proof of each."""
    recipe = get_recipe(
        *lists.BEST, dim=32, num_blocks=4, block_size=3, batch_size=32, length=16, steps=4000, lr=4e-3
    )
    population, rows = train_population(
        recipe,
        group_words("permutation", 3),
        range(4),
        device="cuda",
        check=Check(proof=True),
        lengths=((1 << 15, 2),),
    )
    assert set(population._replays) == {16}
    assert [(row["proved"], row["at"][1 << 15]) for row in rows] == [(True, 1.0)] * 4


def test_runs_climb_within_one_advance():
    """A population looks at its lengths while it trains, not at the beginning alone."""
    recipe = get_recipe(
        "layers",
        dim=8,
        num_blocks=2,
        block_size=2,
        batch_size=4,
        length=8,
        lengths=(2, 4, 8),
        enough=0.0,
        patience=3,
    )
    population = Population(recipe, group_words("cyclic", 2), [0, 1])
    population.advance(40)
    assert population.stage.tolist() == [2, 2]


@pytest.mark.parametrize("changes", [{}, {"input_blocks": 0.5}, {"normalization": "tanh", "depth": 2}])
def test_large_blocks_copy_as_the_layer_scans(changes):
    recipe = get_recipe(**{**SMALL, "block_size": LARGEST_FUSED + 1, **changes})
    tracker, tokens = Tracker(build_model(recipe, 6, seed=0), recipe), torch.arange(60).view(3, 20) % 7 % 6
    assert tracker.copies
    found = []
    for copies in (True, False):
        tracker.copies = copies
        logits, states, _ = tracker(tokens)
        logits, states, _ = tracker(tokens, states)
        loss = logits.square().sum() + states[0].sin().sum()
        found.append((logits, states[0], torch.autograd.grad(loss, list(tracker.parameters()))))
    for got, want in zip(found[0][:2], found[1][:2], strict=True):
        assert torch.equal(got, want)
    for got, want in zip(found[0][2], found[1][2], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.filterwarnings("ignore:RNN module weights are not part of single contiguous chunk")
@pytest.mark.parametrize("model", [("one_layer",), ("plain",), ("lstm",), ("pdssm",)])
def test_protocol_a_trains_on_a_gpu(model):
    """Steps of the models of protocol A are replayed, and lower the loss."""
    sizes = {} if model == ("one_layer",) else {"num_blocks": 8, "block_size": 2, "depth": 2}
    recipe = get_recipe(*model, dim=32, batch_size=64, length=8, lr=4e-3, dropout=0.01, **sizes)
    population = Population(recipe, LANGUAGES["parity"], [0], "cuda")
    population.advance(4)
    before = population.loss.tolist()
    population.advance(200)
    assert set(population._replays) == {8}
    assert all(after < 0.9 * loss for after, loss in zip(population.loss.tolist(), before, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.filterwarnings("ignore:RNN module weights are not part of single contiguous chunk")
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_replayed_step_draws_its_own_dropout(dropout):
    """The same words and weights have another loss at each replay, with dropout alone."""
    sizes = {"dim": 32, "batch_size": 8, "length": 8, "depth": 2, "lr": 0.0, "min_lr": 0.0}
    population = Population(
        get_recipe("lstm", "published", **sizes, dropout=dropout), LANGUAGES["parity"], [0], "cuda"
    )
    drawn = population._draw(8)
    population._draw = lambda length: drawn
    population.advance(4)
    losses = []
    for _ in range(5):
        population.advance(1)
        losses.append(population.loss.item())
    assert set(population._replays) == {8}
    assert len(set(losses)) == (5 if dropout else 1)
