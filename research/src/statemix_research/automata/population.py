"""Runs that differ in their seed alone, trained as one model with stacked weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from statemix_research.automata.layer_table import LayerTable, build_model
from statemix_research.automata.recipes import Recipe
from statemix_research.automata.words import Words


class Population:
    """Runs with one recipe and a seed each. All of what a step reads and writes lies on the device."""

    def __init__(self, recipe: Recipe, words: Words, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.recipe, self.words, self.seeds, self.device = recipe, words.to(device), list(seeds), torch.device(device)
        models = [LayerTable(build_model(recipe, words.vocab_size, seed), recipe) for seed in seeds]
        self.template = models[0].to(device)
        stacked, self.buffers = stack_module_state(models)  # type: ignore[arg-type]
        self.weights = {name: x.detach().to(device).requires_grad_() for name, x in stacked.items()}
        self.buffers = {name: x.to(device) for name, x in self.buffers.items()}
        self.optimizer = self._optimizer()
        self.lengths_of = recipe.lengths or (recipe.length,)
        runs, longest = len(self.seeds), max(self.lengths_of)
        self.ladder = torch.tensor(self.lengths_of, device=device)
        self.stage = torch.zeros(runs, dtype=torch.int64, device=device)
        self.streak = torch.zeros(runs, dtype=torch.int64, device=device)
        self.accuracy = torch.zeros(runs, longest, device=device)
        self.loss = torch.zeros(runs, device=device)
        self.counter = torch.zeros(1, dtype=torch.int64, device=device)
        self.rates = torch.tensor([self._rate(k) for k in range(recipe.steps + 1)], device=device)
        self.temperatures = torch.tensor([self._temperature(k) for k in range(recipe.steps + 1)], device=device)
        self.temperature = torch.ones(1, device=device)
        self.generator = torch.Generator(device).manual_seed(1 + sum(seeds)) if self.device.type == "cpu" else None
        self.step = 0

    def _rate(self, step: int) -> float:
        recipe = self.recipe
        if step < recipe.warmup:
            return recipe.lr * (step + 1) / recipe.warmup
        done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
        return recipe.min_lr + 0.5 * (recipe.lr - recipe.min_lr) * (1 + math.cos(math.pi * min(1.0, done)))

    def _temperature(self, step: int) -> float:
        first, last = self.recipe.temperature
        return first * (last / first) ** (step / self.recipe.steps)

    def _optimizer(self) -> torch.optim.AdamW:
        recipe, groups = self.recipe, dict[tuple[float, float], list[Tensor]]()
        for name, weight in self.weights.items():
            gates = "mixer.gates" in name
            decays = weight.dim() > 2 and not name.endswith("initial") and (recipe.gate_decay or not gates)
            key = (recipe.gate_lr if gates else 1.0, recipe.weight_decay if decays else 0.0)
            groups.setdefault(key, []).append(weight)
        return torch.optim.AdamW(
            [
                {"params": those, "weight_decay": decay, "lr": torch.zeros((), device=self.device), "multiple": multiple}
                for (multiple, decay), those in groups.items()
            ],
            fused=True,
        )

    def run(self, tokens: Tensor, states: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [R, B, T, V], states and penalties [R] of all runs for tokens [R, B, T]."""

        def one(weights: Any, buffers: Any, tokens: Tensor, state: Tensor | None) -> Any:
            return functional_call(self.template, (weights, buffers), (tokens, state, self.temperature))

        mapped = vmap(one, in_dims=(0, 0, 0, None if states is None else 0), randomness="different")
        return mapped(self.weights, self.buffers, tokens, states)

    def advance(self) -> None:
        """One step of all runs, launched operation by operation or recorded as a graph."""
        self._train_step(int(self.ladder[self.stage].max()))
        self.step += 1

    def _train_step(self, length: int) -> None:
        recipe, runs = self.recipe, len(self.seeds)
        rate = self.rates[self.counter][0]
        for group in self.optimizer.param_groups:
            group["lr"].copy_(rate * group["multiple"])
        self.temperature.copy_(self.temperatures[self.counter])
        tokens, targets = self.words.draw((runs, recipe.batch_size), length, self.generator)
        logits, _, penalty = self.run(tokens)
        losses = F.cross_entropy(logits.flatten(0, 2), targets.flatten(), reduction="none").view(targets.shape)
        counted = (torch.arange(length, device=self.device) < self.ladder[self.stage][:, None]).float()  # [R, T]
        loss = (losses.mean(1) * counted).sum(1) / counted.sum(1)
        weights = list(self.weights.values())
        grads = torch.autograd.grad((loss + recipe.balance * penalty).sum(), weights)
        for weight, grad in zip(weights, self._clipped(grads), strict=True):
            weight.grad = torch.empty_like(weight).copy_(grad)  # a fused update takes no other strides
        self.optimizer.step()
        with torch.no_grad():
            correct = (logits.detach().argmax(-1) == targets).float().mean(1)  # [R, T]
            self.accuracy[:, :length].copy_(correct)
            self.loss.copy_(loss.detach())
            self._climb((correct * counted).sum(1) >= counted.sum(1))
            self.counter += 1

    def _clipped(self, grads: Sequence[Tensor]) -> Sequence[Tensor]:
        limit = self.recipe.gradient_clip
        if not limit:
            return grads
        norm = sum(g.flatten(1).square().sum(1) for g in grads).sqrt()  # type: ignore[union-attr]
        scale = (limit / (norm + 1e-6)).clamp(max=1.0)
        return [g * scale.view(-1, *[1] * (g.dim() - 1)) for g in grads]

    def _climb(self, exact: Tensor) -> None:
        """Runs without an error for long enough, or whose time has come, go on to the next length."""
        recipe = self.recipe
        if recipe.patience:
            self.streak.copy_(torch.where(exact, self.streak + 1, 0))
            up = self.streak >= recipe.patience
            self.streak.copy_(torch.where(up, 0, self.streak))
        else:
            up = ((self.counter + 1) % recipe.stage_steps == 0).expand(len(self.seeds))
        self.stage.copy_((self.stage + up).clamp(max=len(self.ladder) - 1))

    @torch.no_grad()
    def evaluate(self, length: int, count: int = 64, piece: int = 512) -> Tensor:
        """Accuracy [R] on `count` words of a length, over all positions, read in pieces with the state carried."""
        generator = None if self.generator is None else torch.Generator().manual_seed(7)
        tokens, targets = self.words.draw((len(self.seeds), count), length, generator)
        states, correct = None, torch.zeros(len(self.seeds), device=self.device, dtype=torch.float64)
        for at in range(0, length, piece):
            logits, states, _ = self.run(tokens[..., at : at + piece], states)
            correct += (logits.argmax(-1) == targets[..., at : at + piece]).double().sum((1, 2))
        return correct / (count * length)
