"""Optimiser steps: launched one by one from the host, or whole steps replayed as CUDA graphs.

A captured step reads everything that changes from tensors on the device: the batch, the learning rate, the number of
the step. The order of the instances and the rates are those of the plain steps, so a run may go on either way.
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from statemix.ops._torch_compat import copy_into, recompile_limit
from statemix.tasks import Examples
from statemix.training.build import build_autocast, build_model, build_optimizer, build_task, learning_rate
from statemix.training.config import Config, TrainingConfig
from statemix.training.data import TrainingSet
from statemix.training.evaluation import Scores, evaluate, means, scores, sums

STEPS_PER_GRAPH = 5
"""Steps in one graph, where that many are due."""

WARM_UP = 3
"""Steps launched before a capture: they compile kernels and allocate what libraries keep; their effects are undone."""

RECOMPILATIONS = 256
"""How many variants of the step (sizes, mixers) one process may compile."""

Forward = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]
Action = Callable[[], None]


class TrainingState(NamedTuple):
    """Everything that a step reads and writes."""

    model: nn.Module
    optimizer: torch.optim.AdamW
    data: TrainingSet
    training: TrainingConfig
    autocast: AbstractContextManager[Any]
    totals: Tensor
    """float64 [3]: loss, correct positions and counted positions, summed over steps."""


def build_state(config: Config, device: torch.device) -> TrainingState:
    """Model, optimiser and data of a configuration on a device, before the first step."""
    task, training = build_task(config), config.training
    model = build_model(config, task).to(device)
    return TrainingState(
        model, build_optimizer(model, training), TrainingSet(task, config, device), training,
        build_autocast(training, device), torch.zeros(3, dtype=torch.float64, device=device),
    )  # fmt: skip


def forward(model: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The mean loss, and float64 [3]: loss, correct and counted positions."""
    return scores(model(inputs)[0], targets)


class Steps:
    """A way to run steps: here every operation is launched by the host. capture: a value of `training.capture`."""

    capture = "off"

    def __init__(self, state: TrainingState) -> None:
        self._state = state

    def advance(self, step: int, most: int) -> int:
        """Run at least one and at most `most` steps from `step` on; returns how many."""
        state, training = self._state, self._state.training
        inputs, targets = state.data.batch(step)
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(training, step)
        with state.autocast:
            loss, numbers = forward(state.model, inputs, targets)
        state.optimizer.zero_grad()
        loss.backward()
        if training.gradient_clip:
            nn.utils.clip_grad_norm_(state.model.parameters(), training.gradient_clip)
        state.optimizer.step()
        state.totals.add_(numbers)
        return 1

    def evaluator(self, examples: Examples) -> Callable[[], Scores]:
        """A function that scores the model as it then is."""
        state = self._state
        return lambda: evaluate(state.model, examples, state.training.batch_size, state.autocast)


def build_step(state: TrainingState, captures: tuple[str, ...], start: int = 0) -> Steps:
    """The first of the ways to run steps (`captures_of`) that works, ready for the step `start`.

    A warning tells of one that does not work; a single way that does not work raises its error.
    """
    for capture in captures:
        if capture == "off":
            break
        try:
            return GraphSteps(state, capture, start)
        except Exception as error:
            if capture == captures[-1]:
                raise
            reason = (str(error).splitlines() or [""])[0]
            message = f"training.capture: {capture!r} does not work here ({type(error).__name__}: {reason})"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
    return Steps(state)


def ignore_compiler_warnings() -> None:
    """No warnings of what torch's compiler makes itself or decides for itself."""
    for known in (
        "TensorFloat32 tensor cores",
        ".*should not be instantiated",
        r"\s*Online softmax is disabled",
    ):
        warnings.filterwarnings("ignore", message=known)


@functools.cache
def compiled_forward(backend: str = "inductor") -> Forward:
    """`forward`, compiled for each new set of shapes and shared by models of equal build; without timing, so that it
    is the same on every machine."""
    options: dict[str, Any] | None = {"deterministic": True} if backend == "inductor" else None
    compiled = torch.compile(forward, fullgraph=True, dynamic=False, backend=backend, options=options)

    def run(model: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        with recompile_limit(RECOMPILATIONS), warnings.catch_warnings():
            ignore_compiler_warnings()
            return compiled(model, inputs, targets)

    return run


def narrowed(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy that computes what the model computes under autocast, without casts: its linear layers hold their own
    weights in `dtype`, all other parameters are shared."""
    twin = copy.deepcopy(model)
    for original, module in zip(model.modules(), twin.modules(), strict=True):
        for name, parameter in original.named_parameters(recurse=False):
            linear = type(original) is nn.Linear and parameter.dtype == torch.float32
            setattr(module, name, nn.Parameter(parameter.detach().to(dtype)) if linear else parameter)
    return twin


class DeviceStep:
    """One step that reads its batch, its rate and its number from the device; the host never waits."""

    def __init__(self, state: TrainingState, run_forward: Forward) -> None:
        self._state, self._forward = state, run_forward
        device, training = state.totals.device, state.training
        self._epoch = -1
        self._place = torch.zeros(2, dtype=torch.int64, device=device)  # the step, and its place in the epoch
        rates = [learning_rate(training, step) for step in range(training.steps)]
        self._rates, self._rate = torch.tensor(rates, device=device), torch.zeros(1, device=device)
        for group in state.optimizer.param_groups:
            group["lr"] = self._rate
        narrow = isinstance(state.autocast, torch.autocast)
        self.model = narrowed(state.model, torch.bfloat16) if narrow else state.model
        self.parameters, self._leaves = list(state.model.parameters()), list(self.model.parameters())
        own = [pair for pair in zip(self.parameters, self._leaves, strict=True) if pair[0] is not pair[1]]
        self._wide: list[Tensor] = [wide for wide, _ in own]
        self._narrow: list[Tensor] = [narrow for _, narrow in own]

    def enter(self, step: int) -> None:
        """Stand before a step: its epoch laid out, its number and place on the device."""
        place, epoch = self._state.data.enter(step), step // self._state.data.batches
        if epoch != self._epoch:
            self._epoch = epoch
            position = torch.tensor([step, place])
            if self._place.is_cuda:
                position = position.pin_memory()
            self._place.copy_(position, non_blocking=True)

    def run(self, rows: int) -> None:
        """One step on a batch of `rows` instances."""
        torch.index_select(self._rates, 0, self._place[:1], out=self._rate)
        inputs, targets = self._state.data.batch_at(self._place[1:], rows)
        with self._state.autocast:
            loss, numbers = self._forward(self.model, inputs, targets)
        self._update(loss)
        self._state.totals.add_(numbers)
        self._place.add_(1)

    def _update(self, loss: Tensor) -> None:
        """From gradients to weights: cast, clip, AdamW, and the narrow copies of the weights made anew."""
        grads = torch.autograd.grad(loss, self._leaves, allow_unused=True)
        copies, sources = list[Tensor](), list[Tensor]()
        for parameter, leaf, grad in zip(self.parameters, self._leaves, grads, strict=True):
            if grad is None or (parameter is leaf and grad.stride() == parameter.stride()):
                parameter.grad = grad
            else:  # a fused update takes no other dtype and no other strides
                parameter.grad = torch.empty_like(parameter)
                copies.append(parameter.grad)
                sources.append(grad)
        with torch.no_grad():
            if copies:
                copy_into(copies, sources)
            if clip := self._state.training.gradient_clip:
                nn.utils.clip_grad_norm_(self.parameters, clip)
            self._state.optimizer.step()
            if self._wide:
                copy_into(self._narrow, self._wide)

    def changed(self) -> list[Tensor]:
        """Every tensor that a step changes; the place comes last."""
        moments = [tensor for one in self._state.optimizer.state.values() for tensor in one.values()]
        return [*self.parameters, *self._narrow, *moments, self._state.totals, self._place]

    def rehearse(self, rows: int, times: int) -> None:
        """`times` steps whose effects are undone, even when one fails."""
        before = [tensor.detach().clone() for tensor in self.changed()]
        try:
            for _ in range(times):
                self.run(rows)
                self._place.copy_(before[-1])
        finally:
            with torch.no_grad():
                for tensor, value in zip(self.changed(), before, strict=True):
                    tensor.copy_(value)
            for parameter in self.parameters:
                parameter.grad = None


def recorder(device: torch.device) -> Callable[[Action], Action]:
    """A function that turns what another launches into a CUDA graph and returns its replay.

    Graphs of one recorder share memory and the current stream; no two runs do, as libraries keep a workspace a stream.
    """
    stream, pool = torch.cuda.current_stream(device), torch.cuda.graph_pool_handle()

    def record(run: Action) -> Action:
        graph: Any = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            run()
        return graph.replay  # type: ignore[no-any-return]

    return record


class GraphSteps(Steps):
    """Steps replayed from CUDA graphs on the stream that was current when it was made.

    capture: "graph" or "compiled". start: the step to begin with. record: in place of a `recorder`.
    """

    def __init__(
        self, state: TrainingState, capture: str, start: int, record: Callable[[Action], Action] | None = None
    ) -> None:
        if len(state.data.lengths) > 1 and not state.data.causal:
            raise ValueError("training.capture: instances of several lengths need a causal model, or 'off'")
        super().__init__(state)
        self.capture = capture
        self._step = DeviceStep(state, compiled_forward() if capture == "compiled" else forward)
        self._record = record or recorder(state.totals.device)
        self._replays: dict[tuple[int, int], Action] = {}
        if start < state.training.steps:
            self._step.enter(start)
            self._replay(*self._next(start, state.training.log_every))

    def advance(self, step: int, most: int) -> int:
        """One replay: `STEPS_PER_GRAPH` steps where as many full batches are due, else one."""
        self._step.enter(step)
        rows, count = self._next(step, most)
        self._replay(rows, count)()
        return count

    def evaluator(self, examples: Examples) -> Callable[[], Scores]:
        """The whole evaluation is one graph."""
        state, model = self._state, self._step.model
        held: list[Tensor] = []

        def score() -> None:
            held[:] = [sums(model, examples, state.training.batch_size, state.autocast)]

        score()  # what it needs is loaded before the capture
        replay = self._record(score)

        def run() -> Scores:
            replay()
            return means(held[0], len(examples.inputs))

        return run

    def _next(self, step: int, most: int) -> tuple[int, int]:
        """Rows of the next batches, and how many of them one replay takes."""
        rows = self._state.data.rows(step, STEPS_PER_GRAPH)
        full = len(rows) == STEPS_PER_GRAPH <= most and min(rows) == self._state.data.batch_size
        return rows[0], STEPS_PER_GRAPH if full else 1

    def _replay(self, rows: int, count: int) -> Action:
        if (rows, count) not in self._replays:
            if not any(known == rows for known, _ in self._replays):
                self._step.rehearse(rows, WARM_UP)

            def steps() -> None:
                for _ in range(count):
                    self._step.run(rows)

            self._replays[rows, count] = self._record(steps)
        return self._replays[rows, count]
