"""Whole layers, forward and backward: ours beside its own matrix products, and beside others of as many parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.clock import free, time_calls
from benchmarks.layer_rivals import RIVALS, LayerRival
from benchmarks.packages import missing, reason, short_tuning, version
from benchmarks.record_files import header
from statemix.nn import BDLRU

SLACK = 0.05
"""How far apart, in parameters, two layers may be that count as equally large."""

BUDGET = 4.0
"""Seconds that the samples of one pass of a layer may take."""


class Preset(NamedTuple):
    """Which of our layers are measured, by block size; how many parameters each has (None: as its width makes it);
    which one the rivals are compared with, and the rivals."""

    block_sizes: tuple[int, ...]
    parameters: int | None
    compared: int
    rivals: tuple[str, ...]


PRESETS: dict[str, Preset] = {
    "layer": Preset((4,), None, 4, tuple(RIVALS)),
    "paper": Preset(
        (1, 2, 4, 8, 16), 33_000_000, 4, tuple(name for name in RIVALS if name != "RWKV7 default")
    ),
}


class Setting(NamedTuple):
    """What all measured layers share."""

    dim: int
    batch: int
    length: int
    dtype: torch.dtype
    device: torch.device
    repeats: int

    def draw(self, width: int) -> Tensor:
        """Standard normal [B, T, width]."""
        return torch.randn(self.batch, self.length, width, device=self.device, dtype=self.dtype)


def parameters(module: nn.Module) -> int:
    """How many numbers a layer has."""
    return sum(p.numel() for p in module.parameters())


def blocks_for(dim: int, m: int, wanted: int) -> int:
    """The number of blocks of a BD-LRU layer nearest to `wanted` parameters: a multiple of 8 if that is near enough."""
    each = m * ((dim + 1) * (m + 1) + 2 * dim)
    exact = wanted / each
    rounded = 8 * max(1, round(exact / 8))
    return rounded if abs(rounded / exact - 1) < SLACK / 2 else max(1, round(exact))


def draw_weights(module: nn.Module) -> None:
    """Every matrix N(0, 0.02²): some layers start with zeros, which would leave gradients empty."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0.0, 0.02)


def time_layer(layer: nn.Module, width: int, setting: Setting, *, captured: bool = True) -> dict[str, Any]:
    """Forward, and forward with all gradients; the gradients are looked at first. RuntimeError if they are wrong.

    captured: replayed as a CUDA graph on a GPU, else launched.
    """
    draw_weights(layer)
    layer = layer.to(setting.device, setting.dtype)
    x, grad = setting.draw(width).requires_grad_(), setting.draw(width)
    names, leaves = zip(*layer.named_parameters(), strict=True)

    def forward() -> Tensor:
        y = layer(x)
        return y[0] if isinstance(y, tuple) else y

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(forward(), (x, *leaves), grad, allow_unused=True)

    zero = look_at(["x", *names], both())
    row: dict[str, Any] = {"parameters": parameters(layer), "width": width, "zero_gradients": zero}
    calls: dict[str, Callable[[], object]] = {"forward": forward, "both": both}
    for name, call in calls.items():
        row[name] = time_calls([call], setting.repeats, setting.device, graph=captured, budget=BUDGET)
    if setting.device.type == "cuda":
        row["launched"] = time_calls([both], setting.repeats, setting.device, graph=False, budget=BUDGET)
    row["tokens_per_s"] = 1000 * setting.batch * setting.length / row["both"]["ms"]["median"]
    return row


def look_at(names: Sequence[str], grads: Sequence[Tensor | None]) -> list[str]:
    """The names whose gradient is zero or missing. RuntimeError for one that is not finite, or for a zero first."""
    empty = []
    for name, grad in zip(names, grads, strict=True):
        norm = 0.0 if grad is None else float(grad.float().norm())
        if not norm < float("inf"):
            raise RuntimeError(f"gradient of {name}: not finite")
        if norm == 0:
            empty.append(name)
    if names[0] in empty:
        raise RuntimeError(f"gradient of {names[0]}: zero")
    return empty


def time_products(layer: nn.Module, setting: Setting) -> dict[str, Any]:
    """The layer's matrix products alone, on as many tokens: forward, and with the two of each backward."""
    rows = setting.batch * setting.length
    triples = []
    for weight in (p.detach() for p in layer.parameters() if p.dim() == 2):
        x, grad = (torch.randn(rows, n, device=weight.device, dtype=weight.dtype) for n in weight.shape[::-1])
        triples.append((weight, x, grad))

    def forward() -> list[Tensor]:
        return [x @ weight.t() for weight, x, _ in triples]

    def both() -> list[tuple[Tensor, Tensor, Tensor]]:
        return [(x @ weight.t(), grad @ weight, grad.t() @ x) for weight, x, grad in triples]

    flops = 2 * rows * sum(weight.numel() for weight, _, _ in triples)
    calls: dict[str, Callable[[], object]] = {"forward": forward, "both": both}
    timed = {
        name: time_calls([call], setting.repeats, setting.device, budget=BUDGET)
        for name, call in calls.items()
    }
    return {"flops": {"forward": flops, "both": 3 * flops}, **timed}


def measure_ours(m: int, blocks: int | None, setting: Setting) -> dict[str, Any]:
    """One of our layers, and its matrix products."""
    layer = BDLRU(setting.dim, block_size=m, num_blocks=blocks, device=setting.device)
    row = {
        "name": f"BDLRU m={m}",
        "m": m,
        "blocks": layer.num_blocks,
        **time_layer(layer, setting.dim, setting),
    }
    free(setting.device)
    row["products"] = time_products(layer, setting)
    row["times_products"] = row["both"]["ms"]["median"] / row["products"]["both"]["ms"]["median"]
    return row


def run_ours(preset: Preset, setting: Setting) -> Iterator[dict[str, Any]]:
    """Our layers of a preset; one that cannot run is a row with the reason ("failed")."""
    for m in preset.block_sizes:
        blocks = None if preset.parameters is None else blocks_for(setting.dim, m, preset.parameters)
        try:
            yield measure_ours(m, blocks, setting)
        except (RuntimeError, ValueError, NotImplementedError) as error:
            yield {"name": f"BDLRU m={m}", "m": m, "failed": reason(error)}
        free(setting.device)


def run_rivals(
    preset: Preset, names: Sequence[str], ours: list[dict[str, Any]], setting: Setting
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every rival at the parameters of the compared layer, or why it was left out.

    Where a rival cannot be sized, another of our layers is sized to it and measured, and joins `ours`.
    """
    compared = next((row for row in ours if row["m"] == preset.compared and "both" in row), None)
    for name in (name for name in names if name in preset.rivals):
        rival = RIVALS[name]
        entry = {
            "description": rival.description,
            "package": f"{rival.package.distribution} {version(rival.package)}",
        }
        left_out = missing(rival.package)
        if left_out is None and rival.needs_gpu and setting.device.type != "cuda":
            left_out = "needs a CUDA device"
        if left_out is None and compared is None:
            left_out = "none of our layers to compare it with"
        if left_out is not None or compared is None:
            yield name, {**entry, "left_out": left_out}
            continue
        try:
            with short_tuning():
                row = _measure_rival(rival, compared["parameters"], setting)
            row |= _compare(name, row, compared, ours, setting)
        except Exception as error:  # whatever others' code does must not end the bench
            row = {"failed": reason(error)}
        yield name, {**entry, **row}
        free(setting.device)


def _measure_rival(rival: LayerRival, wanted: int, setting: Setting) -> dict[str, Any]:
    units = rival.units(setting.dim, wanted)
    layer = rival.build(setting.dim, units)
    width = rival.width(setting.dim, units)
    return {"units": units, **time_layer(layer, width, setting, captured=rival.captured)}


def _compare(
    name: str, row: dict[str, Any], compared: dict[str, Any], ours: list[dict[str, Any]], setting: Setting
) -> dict[str, Any]:
    """How many times slower than ours, and against which of ours."""
    if abs(row["parameters"] / compared["parameters"] - 1) > SLACK:
        blocks = blocks_for(setting.dim, compared["m"], row["parameters"])
        free(setting.device)
        compared = {**measure_ours(compared["m"], blocks, setting), "sized_to": name}
        ours.append(compared)
    ratios = {one: row[one]["ms"]["median"] / compared[one]["ms"]["median"] for one in ("forward", "both")}
    against = {field: compared[field] for field in ("name", "blocks", "parameters")}
    return {"times_ours": ratios["both"], "forward_times_ours": ratios["forward"], "against": against}


def record(
    ours: list[dict[str, Any]],
    others: dict[str, dict[str, Any]],
    *,
    preset: str,
    setting: Setting,
    command: str,
) -> dict[str, Any]:
    """What is kept of a measurement."""
    what = (
        "forward, and forward + backward with the gradients of the input and of all weights, of one layer; "
        "milliseconds; on a GPU replayed as a CUDA graph, launched: forward + backward launched call by call; "
        "products: the layer's matrix products alone"
    )
    shape = {"dim": setting.dim, "batch": setting.batch, "length": setting.length}
    dtype = str(setting.dtype).removeprefix("torch.")
    top = header("layer", what, command, setting.device)
    return {**top, "preset": preset, **shape, "dtype": dtype, "ours": ours, "rivals": others}
