"""Speed as an experiment: scans and whole layers, forward and backward."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from statemix.analysis import parameters
from statemix.environment import describe
from statemix.nn import build_mixer
from statemix.ops import bdlru_scan, in_fast_format
from statemix.timing import time_calls
from statemix.training.files import write_json
from statemix_research.baselines.associative import gated
from statemix_research.baselines.passes import layer_passes
from statemix_research.sweeps.grid import Cell, InvalidCell, Labels
from statemix_research.sweeps.models import Skipped, get_model_spec, sized
from statemix_research.sweeps.store import Job, key_of

MULTIPLE = 8
"""Numbers of a row in 16 bytes of bfloat16: what products of whole layers like their widths to be a multiple of."""

LAYER_BUDGET_MS = 4000.0
"""Milliseconds that the samples of one layer may take."""


SCANS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sequential loop": lambda gates, values: bdlru_scan(gates, values, backend="reference")[0],
    "parallel (associative scan)": lambda gates, values: gated(gates, values)[1],
    "statemix": lambda gates, values: bdlru_scan(gates, values)[0],
}
"""What figure 5 compares: one step after another, torch's generic parallel scan, and this library's kernels."""


class Timings:
    """A grid of timings."""

    def expand(self, overrides: Iterable[str] = (), *, to_run: bool = True) -> Iterator[Cell | InvalidCell]:
        """Every cell, all of them checked. ValueError for settings, which a timing has none of."""
        if given := list(overrides):
            raise ValueError(f"setting: got {given[0]!r}, expected none (timings have no training)")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        # on another machine it is another run
        machine = {"device": device, "hardware": str(describe(device)["device"])}
        for labels, content in self._points():
            if isinstance(content, Exception):
                yield InvalidCell(labels, str(content), isinstance(content, Skipped))
            else:
                content |= machine
                yield Cell(labels, Job(key_of("throughput", content), "throughput", content))

    def _points(self) -> Iterator[tuple[Labels, dict[str, Any] | Exception]]:
        """The labels of every cell, and what is timed, or why it cannot be."""
        raise NotImplementedError


@dataclass(frozen=True)
class Scans(Timings):
    """Scans of BD-LRU by implementation, m and length; N is the state size divided by m, or `blocks`."""

    panel: str
    scans: tuple[str, ...]
    m: tuple[int, ...]
    lengths: tuple[int, ...]
    batch: int
    state: int = 0
    blocks: int = 0
    repeats: int = 15

    def _points(self) -> Iterator[tuple[Labels, dict[str, Any] | Exception]]:
        for name, m, length in itertools.product(self.scans, self.m, self.lengths):
            size = {"m": m, "length": length, "blocks": self.blocks or self.state // m}
            labels = {"panel": self.panel, "model": name, **size}
            if size["blocks"]:
                yield labels, {"scan": name, **size, "batch": self.batch, "repeats": self.repeats}
            else:
                yield labels, ValueError(f"m: got {m}, expected at most the state of {self.state}")


@dataclass(frozen=True)
class Layers(Timings):
    """Whole layers with as many parameters, their widths multiples of `MULTIPLE` where that is near."""

    panel: str
    models: tuple[str, ...]
    parameters: int
    dim: int
    batch: int
    length: int
    repeats: int = 15

    def _points(self) -> Iterator[tuple[Labels, dict[str, Any] | Exception]]:
        shared = {name: getattr(self, name) for name in ("parameters", "dim", "batch", "length", "repeats")}
        for name in self.models:
            spec = get_model_spec(name)
            labels = {"panel": self.panel, "model": spec.label, "m": spec.m, "length": self.length}
            try:
                mixer = sized(spec, self.dim, "parameters", self.parameters, MULTIPLE)
            except (Skipped, ValueError) as error:
                yield labels, error
            else:
                yield labels, {"mixer": mixer, **shared}


def measure(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Time one cell, forward and backward, and write its summary: milliseconds and tokens a second."""
    device = torch.device(content["device"])
    torch.manual_seed(0)
    facts, both, options = (_scan if "scan" in content else _layer)(content, device)
    times = time_calls({"both": both}, device=device, repeats=content["repeats"], **options)["both"]
    ms = {
        "median": times.median, "min": min(times.samples), "lower_quartile": times.low, "upper_quartile": times.high,
        "samples": len(times.samples),
    }  # fmt: skip
    tokens = content["batch"] * content["length"]
    summary = {
        "status": "finished", "step": 0, **facts, "ms": ms, "tokens_per_s": 1000 * tokens / times.median,
        "device": content["hardware"], "torch": str(torch.__version__),
    }  # fmt: skip
    write_json(folder / "summary.json", summary)
    return summary


Timed = tuple[dict[str, Any], Callable[[], object], dict[str, Any]]
"""Facts of a summary, what is timed, and options of `time_calls`."""


def _scan(content: Mapping[str, Any], device: torch.device) -> Timed:
    shape = [content[name] for name in ("batch", "length", "blocks", "m")]
    values = in_fast_format(torch.randn(shape, device=device), "values").requires_grad_()
    gates = in_fast_format(torch.randn([*shape, content["m"] + 1], device=device), "gates").requires_grad_()
    grad, scan = torch.randn_like(values), SCANS[content["scan"]]

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(scan(gates, values), (gates, values), grad)

    return {"state_size": content["blocks"] * content["m"]}, both, {}


def _layer(content: Mapping[str, Any], device: torch.device) -> Timed:
    layer = build_mixer(**content["mixer"], dim=content["dim"])
    shape = [content[name] for name in ("batch", "length", "dim")]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    passes = layer_passes(layer, shape, device, dtype)
    return {"parameters": parameters(layer)}, passes.both, {"cuda_graph": True, "budget_ms": LAYER_BUDGET_MS}
