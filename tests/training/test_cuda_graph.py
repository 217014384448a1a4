"""Steps that find everything on the device: the same training as plain steps, here without a GPU, replayed by hand."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from statemix.tasks import IGNORED, Examples
from statemix.training import build, steps
from statemix.training.data import evaluation_set
from statemix.training.evaluation import evaluate, means, sums
from statemix.training.steps import (
    DeviceStep,
    GraphSteps,
    Steps,
    build_state,
    build_step,
    compiled_forward,
    forward,
    narrowed,
)  # fmt: skip
from tests.training.small import small

CPU = torch.device("cpu")
RAGGED = ("training.train_examples=200", "training.batch_size=16")  # 12 batches and one of 8


def state_of(*settings):
    return build_state(small(*settings), CPU)


def by_hand(run):
    """A replay without a GPU: run it again."""
    return run


def run_to(ways, start, end, most=7):
    step = start
    while step < end:
        step += ways.advance(step, min(most, end - step))
    assert step == end


def assert_near(one, other, **tolerance):
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, **tolerance)
    torch.testing.assert_close(one.totals, other.totals, rtol=1e-3, atol=1e-3)


SEVERAL = ("training.train_lengths=[3,5,4]",)


@pytest.mark.parametrize(
    "settings", [(), ("training.weight_decay=0.1", "training.gradient_clip=0.0"), SEVERAL], ids=str
)
def test_device_steps_train_as_plain_steps_do(settings):
    """Over two epochs, so ragged batches and a new order are among them."""
    plain, other = state_of(*RAGGED, *settings), state_of(*RAGGED, *settings)
    run_to(Steps(plain), 0, 30)
    run_to(GraphSteps(other, "graph", 0, by_hand), 0, 30)
    assert_near(plain, other, rtol=1e-4, atol=1e-5)


def test_device_steps_train_as_plain_steps_do_in_bfloat16():
    """The narrow weights hold what autocast would make of the wide ones."""
    settings = (*RAGGED, "training.precision=bfloat16")
    plain, other = state_of(*settings), state_of(*settings)
    run_to(Steps(plain), 0, 12)
    ways = GraphSteps(other, "graph", 0, by_hand)
    run_to(ways, 0, 12)
    assert_near(plain, other, rtol=1e-2, atol=1e-3)
    for wide, narrow in zip(other.model.parameters(), ways._step.model.parameters(), strict=True):
        assert torch.equal(wide.to(narrow.dtype), narrow)


def test_the_compiler_chooses_without_timing(monkeypatch):
    """What it times differs from machine to machine, and with it the last bits of a run."""
    asked = {}
    monkeypatch.setattr(torch, "compile", lambda function, **how: asked.update(how) or function)
    compiled_forward.__wrapped__("inductor")
    assert asked["options"] == {"deterministic": True}
    assert set(asked["options"]) <= set(torch._inductor.list_options())
    compiled_forward.__wrapped__("eager")
    assert asked["options"] is None


@pytest.mark.parametrize("mixer", ["mixer.name=bdlru", "mixer.name=hlru"])
def test_gradients_lie_as_their_parameters_do(mixer):
    """A fused update refuses others; those of products over blocks of channels come transposed."""
    size = "mixer.order=3" if "hlru" in mixer else "mixer.block_size=3"
    assert_gradients_fit(state_of(mixer, size))


def assert_gradients_fit(state):
    step = DeviceStep(state, forward)
    step.enter(0)
    step.run(16)
    updated = [parameter for parameter in step.parameters if parameter.grad is not None]
    assert updated
    assert all(parameter.grad.stride() == parameter.stride() for parameter in updated)


@pytest.mark.parametrize("cut", [3, 12, 13, 20])
def test_they_go_on_from_either_kind(cut):
    """From a plain step to device steps and back: weights, moments and step counts go along."""
    plain, other = state_of(*RAGGED), state_of(*RAGGED)
    run_to(Steps(plain), 0, 30)
    run_to(Steps(other), 0, cut)
    run_to(GraphSteps(other, "graph", cut, by_hand), cut, cut + 5)
    run_to(Steps(other), cut + 5, 30)
    assert_near(plain, other, rtol=1e-4, atol=1e-5)


def test_a_rehearsal_leaves_no_trace():
    state = state_of(*RAGGED, "training.precision=bfloat16")
    step = DeviceStep(state, forward)
    step.enter(59)  # the last: a second step has no learning rate
    kept = step.changed()
    before = [tensor.detach().clone() for tensor in kept]
    step.rehearse(16, 3)
    assert all(torch.equal(a, b) for a, b in zip(kept, before, strict=True))

    def failing(*arguments):
        forward(*arguments)
        raise RuntimeError("no memory")

    step._forward = failing
    with pytest.raises(RuntimeError, match="no memory"):
        step.rehearse(16, 3)
    assert all(torch.equal(a, b) for a, b in zip(kept, before, strict=True))


@pytest.mark.parametrize("settings", [(), SEVERAL], ids=["one length", "several"])
def test_a_batch_found_by_the_device_is_the_one_of_the_host(settings):
    data, padding = state_of(*RAGGED, *settings).data, (0, IGNORED)
    for step in (0, 5, 12, 13, 25, 40):
        place = torch.tensor([data.enter(step)])
        batch = data.batch_at(place, data.rows(step)[0])
        for got, wanted, fill in zip(batch, data.batch(step), padding, strict=True):
            length = wanted.shape[1]
            assert torch.equal(got[:, :length], wanted)
            assert (got[:, length:] == fill).all()


def test_several_lengths_are_captured_for_causal_models_only():
    state = state_of(*SEVERAL)
    state.data.causal = False
    with pytest.raises(ValueError, match=r"training.capture: instances of several lengths"):
        GraphSteps(state, "graph", 0, by_hand)


def test_full_batches_are_unrolled_and_the_ragged_one_stands_alone():
    state = state_of(*RAGGED)
    ways = GraphSteps(state, "graph", 0, by_hand)
    taken, step = [], 0
    while step < 13:
        taken.append(ways.advance(step, 100))
        step += taken[-1]
    assert taken == [5, 5, 1, 1, 1]
    assert set(ways._replays) == {(16, 5), (16, 1), (8, 1)}


def test_narrow_copies_share_what_is_not_a_linear_layer():
    state = state_of()
    twin = narrowed(state.model, torch.bfloat16)
    names = dict(twin.named_parameters())
    assert list(names) == [name for name, _ in state.model.named_parameters()]
    for name, parameter in state.model.named_parameters():
        linear = not any(part in name for part in ("norm", "embedding"))
        assert (names[name] is parameter) != linear, name
        assert names[name].dtype == (torch.bfloat16 if linear else torch.float32)


def test_models_of_equal_build_share_one_compilation():
    torch._dynamo.reset()
    counter = CompileCounter()
    run = compiled_forward(counter)
    for seed in range(3):
        state = state_of(f"training.seed={seed}", "mixer.backend=reference", "task.length=4")
        loss, numbers = run(state.model, *state.data.batch(0))
        want = forward(state.model, *state.data.batch(0))
        torch.testing.assert_close((loss, numbers), want)
    assert counter.frame_count == 1


@pytest.mark.parametrize("size", [16, 7, 100])
def test_sums_on_the_device_are_the_scores(size):
    config = small()
    task = build.build_task(config)
    model = build.build_model(config, task)
    inputs, targets = evaluation_set(task, 6, "test", 40, 0, CPU)
    examples = Examples(inputs, targets.clone())  # the drawn ones are others' too
    examples.targets[::3, 2:] = -100
    want = evaluate(model, examples, size, contextlib.nullcontext())
    got = means(sums(model, examples, size, contextlib.nullcontext()), 40)
    assert got == pytest.approx(want, rel=1e-6)
    examples.targets[:] = -100
    assert means(sums(model, examples, size, contextlib.nullcontext()), 40) == {
        "loss": 0, "accuracy": 0, "macro_accuracy": 0,
    }  # fmt: skip


def test_the_captured_evaluation_scores_the_weights_of_now():
    state = state_of()
    ways = GraphSteps(state, "graph", 0, by_hand)
    examples = evaluation_set(build.build_task(small()), 6, "test", 40, 0, CPU)
    score = ways.evaluator(examples)
    for end in (0, 10):
        run_to(ways, 0, end)
        assert score() == pytest.approx(evaluate(state.model, examples, 16, state.autocast), rel=1e-5)


def test_what_does_not_work_is_told_and_the_next_is_taken(monkeypatch):
    def broken(state, capture, start):
        raise RuntimeError(f"{capture} is broken")

    monkeypatch.setattr(steps, "GraphSteps", broken)
    with pytest.warns(RuntimeWarning, match="'graph' does not work here .*graph is broken"):
        assert build_step(state_of(), ("graph", "off"), 0).capture == "off"
    with pytest.raises(RuntimeError, match="compiled is broken"):
        build_step(state_of(), ("compiled",), 0)
    assert build_step(state_of(), ("off",), 0).capture == "off"


def test_ways_by_device():
    cuda = torch.device("cuda")
    for setting, count, wanted in (
        ("auto", 60, ("graph", "off")), ("auto", 20_000, ("compiled", "graph", "off")), ("off", 60, ("off",)),
        ("graph", 60, ("graph",)), ("compiled", 60, ("compiled",)),
    ):  # fmt: skip
        training = small(f"training.capture={setting}", f"training.steps={count}").training
        assert build.captures_of(training, cuda) == wanted
    assert build.captures_of(small().training, CPU) == ("off",)
    with pytest.raises(ValueError, match=r"training.capture: 'graph' needs a CUDA device, got 'cpu'"):
        build.captures_of(small("training.capture=graph").training, CPU)
