"""Runs that differ in their seed alone, trained as one model with stacked weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from statemix.nn import map_state
from statemix.tasks import IGNORED
from statemix.training import SEED_STRIDE
from statemix_research.automata.recipes import Recipe
from statemix_research.automata.tracker import MODELS
from statemix_research.automata.words import Epochs, OneAnswer, Pool, Source

WARM_UP = 3
"""Steps of each length that are launched one by one on a GPU before one is recorded."""

LOOK = 10
"""Steps between two looks at the lengths that runs have come to."""


class _TokenRows(nn.Module):
    """The rows of all tokens as a module, which `functional_call` needs."""

    def __init__(self, tracker: Any) -> None:
        super().__init__()
        self.tracker = tracker

    def forward(self) -> Tensor:
        return self.tracker.token_rows()


class Population:
    """Runs with one recipe and a seed each.

    Everything that a step reads and writes lies on the device, so that on a GPU a step is a replay of a CUDA graph. The
    runs share the scan's launches: `vmap` folds them into its blocks. One run alone goes without it, as the layer's own
    kernels take it. Runs go through the recipe's lengths each at its own pace.
    """

    def __init__(
        self, recipe: Recipe, words: Source, seeds: Sequence[int], device: torch.device | str = "cpu"
    ) -> None:
        if recipe.pieces and any(recipe.length % piece for piece in recipe.lengths):
            raise ValueError(f"lengths: got {recipe.lengths}, expected divisors of length = {recipe.length}")
        if recipe.pieces and isinstance(words, Pool):
            raise ValueError("pieces: got a fixed number of words, whose pieces have no answers of their own")
        self.recipe, self.words = recipe, words.to(device)
        self.seeds, self.device, self.step = list(seeds), torch.device(device), 0
        trackers = [MODELS[recipe.model](recipe, words.vocab_size, seed) for seed in seeds]
        if len(trackers) > 1 and getattr(trackers[0], "alone", False):
            raise ValueError(f"seeds: got {self.seeds}, expected one: {recipe.model!r} cannot be stacked")
        weights, buffers = stack_module_state(trackers)  # type: ignore[arg-type]
        self.weights = {name: x.detach().to(device).requires_grad_() for name, x in weights.items()}
        self._buffers = {name: x.to(device) for name, x in buffers.items()}
        self.template = trackers[0].to(device)
        self.optimizer = self._optimizer()
        self._generator = None if self.device.type == "cuda" else torch.Generator()
        (self._generator or torch.cuda).manual_seed(sum(seeds) + 1)
        self.ladder = torch.tensor(recipe.lengths or (recipe.length,), device=device)
        runs, longest, steps = len(self.seeds), int(self.ladder.max()), range(recipe.steps + 1)
        self.stage, self._streak = (torch.zeros(runs, dtype=torch.int64, device=device) for _ in range(2))
        self.accuracy, self.loss = torch.zeros(runs, longest, device=device), torch.zeros(runs, device=device)
        self._counter = torch.zeros(1, dtype=torch.int64, device=device)
        self.attempts = [0] * runs
        self._kept = dict[int, dict[str, Tensor]]()
        self._arrived = torch.zeros_like(self.stage)  # the step at which the stage began
        self._epochs = Epochs(self.words, runs, recipe.batch_size) if isinstance(self.words, Pool) else None
        self._rates = torch.tensor([self._rate(step) for step in steps], device=device)
        self._temperatures = torch.tensor([self._temperature_at(step) for step in steps], device=device)
        self._temperature = torch.ones(1, device=device)
        self._launched, self._replays = dict[int, int](), dict[int, Callable[[], None]]()

    def _rate(self, step: int) -> float:
        recipe = self.recipe
        if step < recipe.warmup:
            return recipe.lr * (step + 1) / recipe.warmup
        done = min(1.0, (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup))
        return recipe.min_lr + 0.5 * (recipe.lr - recipe.min_lr) * (1 + math.cos(math.pi * done))

    def _temperature_at(self, step: int) -> float:
        first, last = self.recipe.temperature
        return first * (last / first) ** (step / self.recipe.steps)

    def _optimizer(self) -> torch.optim.AdamW:
        recipe, groups = self.recipe, dict[tuple[float, float], list[Tensor]]()
        for name, weight in self.weights.items():
            gates = "mixer.gates" in name
            decays = (weight.dim() > 2 or recipe.published) and not name.endswith("initial")
            decays = decays and (recipe.gate_decay or not gates)
            decays = decays and not (recipe.embedding_decay is False and "embedding" in name)
            key = (recipe.gate_lr if gates else 1.0, recipe.weight_decay if decays else 0.0)
            groups.setdefault(key, []).append(weight)
        settings = [
            {
                "params": those,
                "weight_decay": decay,
                "lr": torch.zeros((), device=self.device),
                "multiple": multiple,
            }
            for (multiple, decay), those in groups.items()
        ]
        on_gpu = self.device.type == "cuda"
        return torch.optim.AdamW(settings, betas=recipe.betas, fused=True, capturable=on_gpu)

    def run(
        self, tokens: Tensor, states: Any = None, starts: Tensor | None = None
    ) -> tuple[Tensor, Any, Tensor]:
        """Logits [R, B, T, V], states and penalties [R] of all runs for tokens [R, B, T]. starts: bool [R, T], where
        the initial state stands in place of the state before."""

        def one(weights: Any, buffers: Any, tokens: Tensor, states: Any, starts: Any) -> Any:
            arguments = (tokens, states, self._temperature, *([] if starts is None else [starts]))
            return functional_call(self.template, (weights, buffers), arguments)

        given = (tokens, states, starts)
        if len(self.seeds) == 1:
            weights, buffers = (
                {name: x.squeeze(0) for name, x in part.items()} for part in (self.weights, self._buffers)
            )
            results = one(weights, buffers, *(map_state(lambda x: x.squeeze(0), x) for x in given))
            return map_state(lambda x: x.unsqueeze(0), results)  # type: ignore[return-value]
        places = [None if x is None else 0 for x in (states, starts)]
        mapped = vmap(one, in_dims=(0, 0, 0, *places), randomness="different")
        return mapped(self.weights, self._buffers, *given)

    def advance(self, steps: int = 1) -> None:
        """Train all runs for some steps, at the longest length that one of them is at."""
        length = self.recipe.length
        self.template.train()
        for step in range(steps):
            if not self.recipe.pieces and step % LOOK == 0:
                length = int(self.ladder[self.stage].max())
            if self.device.type == "cuda":
                self._replay(length)
            else:
                self._train_step(length)
            self.step += 1

    def _replay(self, length: int) -> None:
        """A step as a CUDA graph, after some that were launched one by one on another stream."""
        known = self._replays.get(length)
        if known is not None:
            return known()
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            self._train_step(length)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        self._launched[length] = self._launched.get(length, 0) + 1
        if self._launched[length] == WARM_UP:
            graph: Any = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._train_step(length)
            self._replays[length] = graph.replay
        return None

    def _train_step(self, length: int) -> None:
        recipe = self.recipe
        rate = self._rates[self._counter][0]
        for group in self.optimizer.param_groups:
            group["lr"].copy_(rate * group["multiple"])
        self._temperature.copy_(self._temperatures[self._counter])
        tokens, targets, starts = self._draw(length)
        logits, _, penalty = self.run(tokens, starts=starts)
        losses = F.cross_entropy(
            logits.flatten(0, 2), targets.flatten(), reduction="none", ignore_index=IGNORED
        )
        shown = torch.full_like(self.stage, length) if recipe.pieces else self.ladder[self.stage]
        at = torch.arange(length, device=self.device) < shown[:, None, None]  # [R, 1, T]
        counted = at & (targets != IGNORED)
        loss = (losses.view(targets.shape) * counted).sum((1, 2)) / counted.sum((1, 2)).clamp(min=1)
        self._update((loss + recipe.balance * penalty).sum())
        with torch.no_grad():
            wrong = counted & (logits.argmax(-1) != targets)
            self.accuracy[:, :length].copy_(1 - wrong.sum(1) / counted.sum(1).clamp(min=1))
            self.accuracy[:, :length].mul_(at[:, 0])
            self.loss.copy_(loss.detach())
            right = 1 - wrong.flatten(1).sum(1) / counted.flatten(1).sum(1).clamp(min=1)
            self._climb(right >= recipe.enough, length)
            self._counter += 1

    def _draw(self, length: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Tokens and targets [R, B, T], and where pieces start [R, T]."""
        shape = (len(self.seeds), self.recipe.batch_size)
        if self._epochs is not None:
            return *self._epochs.draw(length, self._generator), None
        if isinstance(self.words, OneAnswer):
            longest = self.ladder[self.stage].view(-1, 1, 1)
            return *self.words.draw(shape, length, self._generator, longest), None
        if not self.recipe.pieces:
            return *self.words.draw(shape, length, self._generator), None
        every = []  # words in pieces of each of the lengths, [2, R, B, T] each
        for piece in self.recipe.lengths:
            drawn = self.words.draw((*shape, length // piece), piece, self._generator)
            every.append(torch.stack([x.flatten(-2) for x in drawn]))
        own = self.stage[None, :, None, None, None].expand(2, -1, 1, shape[1], length)
        tokens, targets = torch.stack(every, 2).gather(2, own).squeeze(2)
        starts = torch.arange(length, device=self.device) % self.ladder[self.stage][:, None] == 0
        return tokens, targets, starts

    def _update(self, loss: Tensor) -> None:
        weights, limit = list(self.weights.values()), self.recipe.gradient_clip
        grads = torch.autograd.grad(loss, weights)
        if limit:
            norm = torch.stack([g.flatten(1).square().sum(1) for g in grads]).sum(0).sqrt()
            scale = (limit / (norm + 1e-6)).clamp(max=1.0)  # a run's own
            grads = tuple(g * scale.view(-1, *[1] * (g.dim() - 1)) for g in grads)
        for weight, grad in zip(weights, grads, strict=True):
            weight.grad = torch.empty_like(weight).copy_(grad)  # a fused update takes no other strides
        self.optimizer.step()

    def _climb(self, exact: Tensor, length: int) -> None:
        """Runs without an error for long enough, or whose time has come, go on to the next length."""
        recipe = self.recipe
        if recipe.patience:
            self._streak.copy_(torch.where(exact & (self.ladder[self.stage] <= length), self._streak + 1, 0))
            up = self._streak >= recipe.patience
            self._streak.copy_(torch.where(up, 0, self._streak))
        else:
            up = ((self._counter + 1) % recipe.stage_steps == 0).expand(len(self.seeds))
        after = (self.stage + up).clamp(max=len(self.ladder) - 1)
        self._arrived.copy_(torch.where(after > self.stage, self._counter + 1, self._arrived))
        self.stage.copy_(after)

    def state_dict(self) -> dict[str, Any]:
        """Everything that training goes on from."""
        generator = self._generator
        return {
            "step": self.step, "tensors": self._tensors(), "optimizer": self.optimizer.state_dict(),
            "attempts": self.attempts, "kept": self._kept,
            "random": torch.cuda.get_rng_state() if generator is None else generator.get_state(),
        }  # fmt: skip

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of a population with the same recipe, words and seeds."""
        self.step, self.attempts, self._kept = state["step"], state["attempts"], state["kept"]
        for name, tensor in self._tensors().items():
            tensor.copy_(state["tensors"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        if self._generator is None:
            torch.cuda.set_rng_state(state["random"].cpu())
        else:
            self._generator.set_state(state["random"].cpu())

    def _tensors(self) -> dict[str, Tensor]:
        """What changes on the device, but for the optimiser's state."""
        own = {
            "stage": self.stage, "streak": self._streak, "arrived": self._arrived, "counter": self._counter,
            "accuracy": self.accuracy, "loss": self.loss,
        }  # fmt: skip
        epochs = {} if self._epochs is None else {"order": self._epochs.order, "batch": self._epochs.batch}
        return {**own, **epochs, **{f"weights.{name}": weight for name, weight in self.weights.items()}}

    def keep(self, run: int) -> None:
        """End a run: its weights are those of now, whatever its neighbours need."""
        self._kept[run] = {name: weight.detach()[run].clone() for name, weight in self.weights.items()}

    @torch.no_grad()
    def end(self) -> None:
        """Give the runs that were ended their weights back."""
        for run, kept in self._kept.items():
            for name, weight in kept.items():
                self.weights[name][run] = weight

    def tracker(self, run: int) -> Any:
        """The model of one run, by its place among the seeds, with weights of its own."""
        tracker = copy.deepcopy(self.template)
        tracker.load_state_dict({name: weight[run] for name, weight in self.weights.items()})
        return tracker

    @torch.no_grad()
    def selected(self) -> Tensor:
        """What the first layer's rows of every run select for every token: int64 [R, V, N, m]; m is the input."""
        module = _TokenRows(self.template)

        def one(weights: Any, buffers: Any) -> Tensor:
            inside = tuple({f"tracker.{name}": x for name, x in part.items()} for part in (weights, buffers))
            return functional_call(module, inside, ())

        return vmap(one)(self.weights, self._buffers).argmax(-1)

    @torch.no_grad()
    def retry_stuck(self, solved: Sequence[bool]) -> int:
        """Begin anew, with weights of another seed, every run that has been at one length for `recipe.retry` steps;
        returns how many."""
        stuck = (self._counter - self._arrived >= self.recipe.retry) & ~torch.tensor(
            solved, device=self.device
        )
        for run in stuck.nonzero().flatten().tolist():
            self.attempts[run] += 1
            seed = self.seeds[run] + SEED_STRIDE * self.attempts[run]
            fresh = MODELS[self.recipe.model](self.recipe, self.words.vocab_size, seed)
            for name, weight in fresh.named_parameters():
                self.weights[name][run] = weight.to(self.device)
                state = self.optimizer.state[self.weights[name]]
                state["exp_avg"][run] = state["exp_avg_sq"][run] = 0
        for counter, value in ((self._arrived, int(self._counter)), (self._streak, 0), (self.stage, 0)):
            counter.masked_fill_(stuck, value)
        return int(stuck.sum())
