"""Speed as an experiment: scans and whole layers, forward and backward, timed by the bench's own clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from benchmarks.cases import Case
from benchmarks.clock import time_calls
from benchmarks.contestants import CONTESTANTS
from benchmarks.layers import Setting, time_layer
from torch import Tensor

from statemix.environment import describe
from statemix.nn import build_mixer
from statemix.ops import bdlru_scan
from statemix.ops.layout import in_fast_format
from statemix.training.files import write_json
from statemix_research.sweeps.grid import Cell, Expansion, Refusal
from statemix_research.sweeps.models import LeftOut, get_model, sized
from statemix_research.sweeps.store import Job, key_of

SCANS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sequential loop": CONTESTANTS["loop"].scans["bdlru"],
    "parallel (associative scan)": CONTESTANTS["associative_scan"].scans["bdlru"],
    "statemix": lambda gates, values: bdlru_scan(gates, values)[0],
}
"""What figure 5 compares: one step after another, torch's generic parallel scan, and this library's kernels."""

MULTIPLE = 8
"""Numbers of a row in 16 bytes of bfloat16: what products of whole layers like their widths to be a multiple of."""


@dataclass(frozen=True)
class Scans:
    """Scans of BD-LRU by contestant, m and length; N is the state size divided by m, or `blocks`."""

    panel: str
    contestants: tuple[str, ...]
    m: tuple[int, ...]
    lengths: tuple[int, ...]
    batch: int
    state: int = 0
    blocks: int = 0
    repeats: int = 15

    def expand(self, overrides: Iterable[str] = (), *, to_run: bool = True) -> Expansion:
        """Every cell, all of them checked by being sized. ValueError for settings, which a timing has none of."""
        _no_settings(overrides)
        cells, refused = list[Cell](), list[Refusal]()
        for name in self.contestants:
            for m in self.m:
                for length in self.lengths:
                    labels = {"panel": self.panel, "model": name, "m": m, "length": length}
                    blocks = self.blocks or self.state // m
                    if blocks < 1:
                        refused.append(
                            Refusal(labels, f"m: got {m}, expected at most the state of {self.state}")
                        )
                        continue
                    content = {
                        "scan": name, "m": m, "blocks": blocks, "length": length, "batch": self.batch,
                        "repeats": self.repeats, **_machine(),
                    }  # fmt: skip
                    cells.append(_cell({**labels, "blocks": blocks}, content))
        return Expansion(cells, [], refused)


@dataclass(frozen=True)
class Layers:
    """Whole layers at equal parameters, their widths multiples of `MULTIPLE` where that is near."""

    panel: str
    models: tuple[str, ...]
    parameters: int
    dim: int
    batch: int
    length: int
    repeats: int = 15

    def expand(self, overrides: Iterable[str] = (), *, to_run: bool = True) -> Expansion:
        """Every cell, all of them checked by being sized. ValueError for settings, which a timing has none of."""
        _no_settings(overrides)
        cells, left_out, refused = list[Cell](), list[Refusal](), list[Refusal]()
        for name in self.models:
            model = get_model(name)
            labels = {"panel": self.panel, "model": model.label, "m": model.m, "length": self.length}
            try:
                mixer = sized(model, self.dim, "parameters", self.parameters, MULTIPLE)
            except LeftOut as error:
                left_out.append(Refusal(labels, str(error)))
                continue
            except ValueError as error:
                refused.append(Refusal(labels, str(error)))
                continue
            rest = {
                key: value
                for key, value in dataclasses.asdict(self).items()
                if key not in ("panel", "models")
            }
            cells.append(_cell(labels, {"mixer": mixer, **rest, **_machine()}))
        return Expansion(cells, left_out, refused)


def _no_settings(overrides: Iterable[str]) -> None:
    if given := list(overrides):
        raise ValueError(f"setting: got {given[0]!r}, expected none (timings have no training)")


def _machine() -> dict[str, str]:
    """The device that is timed; on another machine a timing is another run."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {"device": device, "hardware": str(describe(device)["device"])}


def _cell(labels: dict[str, Any], content: dict[str, Any]) -> Cell:
    return Cell(labels, Job(key_of("throughput", content), "throughput", content))


def measure(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Time one cell, forward and backward, and write its summary: milliseconds and tokens a second."""
    device = torch.device(content["device"])
    torch.manual_seed(0)
    timed = _time_scan(content, device) if "scan" in content else _time_layer(content, device)
    tokens = content["batch"] * content["length"]
    summary = {
        "status": "finished", "step": 0, **timed, "tokens_per_s": 1000 * tokens / timed["ms"]["median"],
        "device": content["hardware"], "torch": str(torch.__version__),
    }  # fmt: skip
    write_json(folder / "summary.json", summary)
    return summary


def _time_scan(content: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    case = Case("bdlru", content["m"], content["batch"], content["length"], content["blocks"])
    shapes = case.shapes()
    gates = in_fast_format(torch.randn(shapes[0], device=device), "gates").requires_grad_()
    values = in_fast_format(torch.randn(shapes[1], device=device), "values").requires_grad_()
    grad = torch.randn_like(values)
    scan = SCANS[content["scan"]]

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(scan(gates, values), (gates, values), grad)

    return {**time_calls([both], content["repeats"], device, graph=False), "state_size": case.width}


def _time_layer(content: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    shape = (content["dim"], content["batch"], content["length"])
    layer = build_mixer(**content["mixer"], dim=content["dim"])
    row = time_layer(layer, content["dim"], Setting(*shape, dtype, device, content["repeats"]))
    return {"parameters": row["parameters"], **row["both"]}
