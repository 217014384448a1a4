"""The choice among launches, with a machine made up: the fastest that is right, kept beside what was there."""

from __future__ import annotations

import contextlib
import json
from types import SimpleNamespace

import pytest
import torch

from statemix.cli import tuning
from statemix.cli.tuning import Shape
from statemix.ops import launch as table
from statemix.ops.launch import LaunchConfig, LaunchKey, default_launch

HERE, SHARED = (9, 0), 227 << 10
SHAPE = Shape("bdlru", 4, 8, 2048, 256)
KEY = LaunchKey("bdlru", "forward", 4, 2, False)
QUICK, WRONG = LaunchConfig(2, 4, 8, 3, 128), LaunchConfig(2, 2, 4, 2, 128)


class Machine:
    """A `tuning.Gpu` that knows the time of every launch; what is not named takes a millisecond."""

    capability, shared = HERE, SHARED

    def __init__(self, times=(), chosen=True, shape=SHAPE):
        self.times, self.chosen, self.compiled, self.shape = dict(times), chosen, [], shape

    def key(self, direction):
        return KEY._replace(direction=direction) if self.chosen else None

    def compile(self, direction, launches):
        self.compiled += launches

    def milliseconds(self, direction, launch):
        time = self.times.get(launch, 1.0)
        if isinstance(time, str):
            raise RuntimeError(time)
        return time


def choose(machine, direction="forward"):
    return tuning.choose_best(machine, direction)


def test_the_fastest_right_launch_wins():
    machine = Machine({QUICK: 0.5, WRONG: "error 1e+00\nagainst float64"})
    choice = choose(machine)
    assert choice.key == KEY
    assert (choice.best, choice.best_ms, choice.default, choice.default_ms) == (
        QUICK,
        0.5,
        default_launch(KEY, HERE),
        1.0,
    )
    assert choice.failed == {WRONG: "RuntimeError: error 1e+00 against float64"}
    assert choice.tried == len(machine.compiled) == len(set(machine.compiled))


def test_a_gain_too_small_keeps_the_default():
    choice = choose(Machine({QUICK: 0.995}))
    assert choice.best == choice.default and choice.best_ms == choice.default_ms


def test_the_portable_kernels_are_tried_too():
    assert choose(Machine({None: 0.1})).best is None


def test_a_gpu_before_hopper_tries_the_portable_kernels_alone():
    machine = Machine()
    machine.shared, machine.capability = 0, (8, 0)
    assert choose(machine)[2:] == (None, 1.0, None, 1.0, 1, {})


def test_a_default_that_fails_is_replaced():
    choice = choose(Machine({default_launch(KEY, HERE): "no resources", QUICK: 0.5}))
    assert (choice.best, choice.default_ms) == (QUICK, None)


def test_nothing_right_is_an_error():
    machine = Machine(dict.fromkeys([default_launch(KEY, HERE), *tuning.candidates(KEY, SHARED)], "NaN"))
    with pytest.raises(
        RuntimeError, match=r"bdlru forward m=4 .* no launch of .* is right, the first: RuntimeError: NaN"
    ):
        choose(machine)


def test_without_a_choice_nothing_is_measured():
    assert choose(Machine(chosen=False)) is None


@pytest.mark.parametrize("direction", tuning.DIRECTIONS)
@pytest.mark.parametrize("kind", ["bdlru", "hlru"])
@pytest.mark.parametrize("m", range(1, 17))
@pytest.mark.parametrize("size", [2, 4])
def test_candidates_fit_the_gpu_and_there_are_some(kind, direction, m, size):
    key = LaunchKey(kind, direction, m, size, False)
    found = tuning.candidates(key, SHARED)
    assert found[-1] is None and len(found) > 10 and len(set(found)) == len(found)
    for launch in found[:-1]:
        assert launch.num_workers in (2, 4) and launch.num_stages >= 2
        assert tuning.shared_bytes(key, launch) <= SHARED
        assert (4 + max(4, launch.num_workers * launch.num_warps)) * 32 * launch.num_registers <= 65_536


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A user's table that does not exist yet, in a folder that does not."""
    monkeypatch.setenv("STATEMIX_LAUNCH_TABLE", str(tmp_path / "new" / "launch.json"))
    table.user_table.cache_clear()
    yield table.user_file()
    table.user_table.cache_clear()


def test_saved_choices_are_what_the_kernels_take(path):
    assert table.user_table("made up") == {}
    backward = KEY._replace(direction="backward")
    choices = [choose(Machine({QUICK: 0.5})), choose(Machine({None: 0.1}), "backward")]
    assert tuning.save(path, "made up", choices) == 2
    assert table.choose(KEY, "made up", HERE) == QUICK
    assert table.choose(backward, "made up", HERE) is None
    assert json.loads(path.read_text()) == {
        "devices": {"made up": {str(KEY): list(QUICK), str(backward): None}}
    }


def test_saving_keeps_what_is_there(path):
    tuning.save(path, "another", [choose(Machine({None: 0.1}))])
    tuning.save(path, "made up", [choose(Machine({QUICK: 0.5}))])
    assert tuning.save(path, "made up", [choose(Machine({QUICK: 0.5}), "backward")]) == 2
    tuning.save(path, "made up", [choose(Machine({WRONG: 0.2}))])
    assert table.choose(KEY, "another", HERE) is None
    assert table.choose(KEY, "made up", HERE) == WRONG
    assert len(table.user_table("made up")) == 2


def test_a_damaged_table_is_left_alone(path):
    path.parent.mkdir()
    path.write_text('{"devices": 3}')
    with pytest.raises(ValueError, match=r"launch\.json: not a launch table"):
        tuning.save(path, "made up", [choose(Machine())])
    assert path.read_text() == '{"devices": 3}'
    assert list(path.parent.iterdir()) == [path]


@pytest.fixture
def gpu(monkeypatch):
    """`tuning.Gpu` on the CPU, with the loop for kernels: it obeys no launch, but it computes the right numbers."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda place: HERE)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda place: SimpleNamespace())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda place: None)
    monkeypatch.setattr(torch.cuda, "device", lambda place: contextlib.nullcontext())
    monkeypatch.setattr(tuning, "BACKEND", "reference")
    return tuning.Gpu(Shape("hlru", 2, 3, 5, 8), torch.float32, torch.device("cpu"), repeats=1, threads=2)


@pytest.mark.parametrize("direction", tuning.DIRECTIONS)
def test_a_launch_is_checked_and_timed(gpu, direction):
    gpu.compile(direction, [QUICK, None])
    assert 0 < gpu.milliseconds(direction, QUICK) < 10_000
    assert gpu.key(direction) is None  # the loop asks no table
    assert gpu.capability == HERE


@pytest.mark.parametrize("direction", tuning.DIRECTIONS)
@pytest.mark.parametrize(
    ("spoil", "words"), [(float("nan"), "not finite"), (1.1, r"error .* against float64")]
)
def test_wrong_numbers_are_not_timed(gpu, monkeypatch, direction, spoil, words):
    right = gpu._call
    monkeypatch.setattr(gpu, "_call", lambda *x: lambda: [tensor * spoil for tensor in right(*x)()])
    with pytest.raises(RuntimeError, match=words):
        gpu.milliseconds(direction, QUICK)


def test_a_launch_that_does_not_compile_is_reported_when_it_is_timed(gpu, monkeypatch):
    def broken():
        raise NotImplementedError("out of resources")

    monkeypatch.setattr(gpu, "_call", lambda *_: broken)
    gpu.compile("backward", [QUICK])
    with pytest.raises(NotImplementedError, match="out of resources"):
        gpu.milliseconds("backward", QUICK)


def test_shapes_are_aligned():
    assert tuning.parse_shapes("bdlru:3,hlru:4:5", "8x2048x1024") == [
        Shape("bdlru", 3, 8, 2048, 336), Shape("hlru", 4, 8, 2048, 5),
    ]  # fmt: skip
