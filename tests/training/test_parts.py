"""The parts of the loop against numbers worked out by hand."""

from __future__ import annotations

import contextlib
import math

import pytest
import torch
from torch import nn

from statemix.tasks import IGNORED, Examples, Task, get_task
from statemix.training import build, build_model, data, evaluation, resolve_config
from statemix.training.data import TrainingSet, evaluation_set
from statemix.training.evaluation import evaluate, macro_accuracy, scores
from tests.training.small import small


def test_loss_and_accuracy_count_what_is_asked():
    logits = torch.tensor([[[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]]])
    targets = torch.tensor([[0, 0, IGNORED]])
    loss, numbers = scores(logits, targets)
    want = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(3))) / 2
    assert loss.item() == pytest.approx(want, rel=1e-6)
    assert numbers.tolist() == [loss.item(), 1, 2]


def test_macro_accuracy():
    """Class 0: 1 of 2 right. Class 1: 1 of 1. Class 2: predicted, never asked: 0. Class 3 does not occur."""
    predictions, targets = torch.tensor([0, 2, 1, 3]), torch.tensor([0, 0, 1, IGNORED])
    assert macro_accuracy(predictions, targets, 4).item() == pytest.approx((0.5 + 1 + 0) / 3)
    assert macro_accuracy(torch.tensor([], dtype=torch.int64), torch.tensor([], dtype=torch.int64), 4) == 0


def test_evaluation_does_not_depend_on_how_positions_fall_into_batches():
    class Model(nn.Module):
        def forward(self, tokens):
            return nn.functional.one_hot((tokens * 3) % 5, 5).float() * 4, None

    torch.manual_seed(0)
    inputs, targets = torch.randint(5, (10, 4)), torch.randint(5, (10, 4))
    targets[3] = IGNORED
    examples = Examples(inputs, targets)
    whole, parts = (evaluate(Model(), examples, size, contextlib.nullcontext()) for size in (10, 3))
    asked = targets != IGNORED
    assert whole["accuracy"] == ((inputs * 3 % 5 == targets) & asked).sum().item() / asked.sum().item()
    assert parts["accuracy"] == whole["accuracy"]
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-6)


def test_long_instances_are_read_in_pieces(monkeypatch):
    config = small("mixer.hard=true", "mixer.learned_initial_state=true")
    task, model, lengths = build.build_task(config), build.build_model(config), []
    examples = evaluation_set(task, 23, "test", 5, 0, torch.device("cpu"))
    want = evaluate(model, examples, 4, contextlib.nullcontext())
    model.register_forward_hook(lambda module, given, out: lengths.append(given[0].shape[1]))
    monkeypatch.setattr(evaluation, "PIECE", 10)
    assert evaluate(model, examples, 4, contextlib.nullcontext()) == pytest.approx(want, rel=1e-5)
    assert lengths == [10, 10, 3] * 2


def test_long_tests_have_fewer_instances():
    config = small("training.eval_tokens=60", "training.eval_lengths=[12, 40, 100]")
    task = build.build_task(config)
    assert [build.eval_examples(config, task, length) for length in (1, 12, 40, 100)] == [40, 5, 1, 1]
    assert build.eval_examples(small(), task, 10**6) == 40


def test_every_instance_once_an_epoch_in_an_order_that_can_be_entered_anywhere():
    config = small("training.train_examples=50", "training.batch_size=16")
    drawn = TrainingSet(build.build_task(config), config, torch.device("cpu"))
    epochs = [[drawn.batch(4 * epoch + k)[0] for k in range(4)] for epoch in range(2)]
    assert [len(batch) for batch in epochs[0]] == [16, 16, 16, 2]
    rows = [sorted(map(tuple, torch.cat(epoch).tolist())) for epoch in epochs]
    assert rows[0] == rows[1]
    assert not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))
    again = TrainingSet(build.build_task(config), config, torch.device("cpu"))
    for step in (5, 2, 7):
        assert torch.equal(again.batch(step)[0], epochs[step // 4][step % 4])


def test_learning_rate():
    training = small(
        "training.steps=105", "training.warmup=5", "training.lr=1.0", "training.min_lr=0.1"
    ).training
    assert [build.learning_rate(training, step) for step in range(5)] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 1.0]
    )
    assert build.learning_rate(training, 5) == pytest.approx(1.0)
    assert build.learning_rate(training, 55) == pytest.approx(0.55)
    assert build.learning_rate(training, 105) == pytest.approx(0.1)
    constant = small("training.schedule=constant").training
    assert build.learning_rate(constant, 59) == constant.lr


def test_vectors_do_not_decay():
    config = small("training.weight_decay=0.5")
    model = build.build_model(config, build.build_task(config))
    optimizer = build.build_optimizer(model, config.training)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == len(list(model.parameters()))
    for parameter in model.parameters():
        assert decay[id(parameter)] == (0.5 if parameter.dim() > 1 else 0.0)


def test_building_a_model_leaves_the_global_random_state_alone():
    config = small()
    before = torch.get_rng_state()
    first, second = (build.build_model(config, build.build_task(config)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_unusable_device_is_named():
    with pytest.raises(ValueError, match=r"training.device: got 'cuda:7', which cannot be used here"):
        build.build_device(small("training.device=cuda:7"))
    with pytest.raises(ValueError, match=r"training.device: got 'nowhere'"):
        build.build_device(small("training.device=nowhere"))


def test_autocast_only_where_asked_on_a_cpu():
    for precision, wanted in (("auto", False), ("float32", False), ("bfloat16", True)):
        training = small(f"training.precision={precision}").training
        with build.build_autocast(training, torch.device("cpu")):
            assert torch.is_autocast_enabled("cpu") == wanted


def test_several_lengths_share_the_instances_and_take_turns():
    config = small("training.train_examples=50", "training.batch_size=8", "training.train_lengths=[3,4,5]")
    drawn = TrainingSet(build.build_task(config), config, torch.device("cpu"))
    again = TrainingSet(build.build_task(config), config, torch.device("cpu"))
    assert tuple(again.batch(13)[0].shape) == tuple(drawn.batch(13)[0].shape)
    batches = [drawn.batch(step)[0] for step in range(8)]
    seen = {length: sum(len(b) for b in batches if b.shape[1] == length) for length in (3, 4, 5)}
    assert seen == {3: 17, 4: 17, 5: 16}
    assert [b.shape[1] for b in batches] != sorted(b.shape[1] for b in batches)


def test_what_was_drawn_is_remembered_while_there_is_room(monkeypatch):
    task, other = get_task("permutation", n=3, length=8), get_task("permutation", n=2, length=8)
    calls, generate = [], Task.generate

    def counting(self, *arguments, **options):
        calls.append(self.options)
        return generate(self, *arguments, **options)

    monkeypatch.setattr(Task, "generate", counting)
    data._draw.cache_clear()
    cpu = torch.device("cpu")
    first = evaluation_set(task, 8, "train", 64, 0, cpu)
    again = evaluation_set(get_task("permutation", n=3, length=8), 8, "train", 64, 0, cpu)
    assert again.inputs is first.inputs and len(calls) == 1
    for changed in ((other, 8, "train", 64, 0), (task, 9, "train", 64, 0), (task, 8, "test", 64, 0),
                    (task, 8, "train", 65, 0), (task, 8, "train", 64, 1)):  # fmt: skip
        assert not torch.equal(evaluation_set(*changed, cpu).inputs, first.inputs)
    assert len(calls) == 6
    assert torch.equal(first.inputs, generate(task, 64, length=8, seed=0, split="train").inputs)
    monkeypatch.setattr(data, "LARGEST_KEPT", 511)  # more than there is room for: made, not kept
    evaluation_set(task, 8, "train", 64, 0, cpu)
    assert len(calls) == 7


def test_a_model_without_a_swiglu():
    for task in ("parity", "compression"):
        config = resolve_config(overrides=[f"task.name={task}", "model.mlp=false"])
        assert all(block.mlp is None for block in build_model(config).layers)
