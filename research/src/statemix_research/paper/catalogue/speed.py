"""Throughput: figure 5."""

from __future__ import annotations

from statemix_research.sweeps.experiment import Claim, Experiment, FigureView, TableView
from statemix_research.sweeps.models import BDLRU, HLRU, RIVALS
from statemix_research.sweeps.throughput import SCANS, Layers, Scans

_A, _B, _C = "A: 128 blocks", "B: state 768", "C: equal parameters"
_SEQUENTIAL, _PARALLEL, _STATEMIX = SCANS


def _faster(fast: str, slow: str) -> Claim:
    return Claim(
        f"{fast} above {slow} at 128 blocks", {"panel": _A, "model": fast, "m": 4}, "above",
        against={"panel": _A, "model": slow, "m": 4}, value="tokens_per_s", over=(),
    )  # fmt: skip


FIG5 = Experiment(
    "fig5",
    "Figure 5: throughput",
    "Tokens a second, forward and backward: (A) scans of 128 blocks at T = 2048, (B) scans of a state of 768 "
    "by length, (C) whole layers of 33 million parameters by m, beside rivals. Each timing runs alone. A rival runs as "
    "in the other experiments: one without a usable kernel in chunks of plain torch, its projections and norms one by "
    "one; flash-linear-attention's own layers, which fuse them, are in docs/speed.md.",
    presets={
        "full": (
            Scans(_A, tuple(SCANS), (1, 2, 4, 8), (2048,), batch=8, blocks=128),
            Scans(_B, (_PARALLEL, _STATEMIX), (1, 2, 4, 8), (256, 512, 1024, 2048, 4096, 8192), batch=8, state=768),
            Layers(_C, (*BDLRU, *HLRU, *RIVALS), 33_000_000, dim=1024, batch=8, length=2048),
        ),
        "small": (
            Scans(_A, tuple(SCANS), (1, 4), (64,), batch=2, blocks=16, repeats=3),
            Scans(_B, (_PARALLEL, _STATEMIX), (4,), (32, 64), batch=2, state=48, repeats=3),
            Layers(_C, ("bdlru-1", "bdlru-4", "hlru-4", "lstm"), 20_000, dim=32, batch=2, length=32, repeats=3),
        ),
    },
    tables=(
        TableView("A: scans at one length", column="m", value="tokens_per_s", where={"panel": _A}, over=()),
        TableView("B: scans by length", rows=("model", "m"), column="length", value="tokens_per_s", where={"panel": _B},
                  over=()),
        TableView("C: whole layers", column="length", value="tokens_per_s", where={"panel": _C}, over=(),
                  comparison="at equal parameters"),
    ),
    figures=(
        FigureView("fig5a", "Scans at one length", x="m", y="tokens_per_s", where={"panel": _A}, panel="panel", over=(),
                   log_y=True),
        FigureView("fig5b", "Scans by length", x="length", y="tokens_per_s", series=("model", "m"),
                   where={"panel": _B}, panel="panel", over=(), log_x=True, log_y=True),
        FigureView("fig5c", "Whole layers of equal parameters, rivals as they train here", y="tokens_per_s",
                   where={"panel": _C}, panel="panel", over=(), kind="ranking", across="panel"),
    ),
    claims=(_faster(_PARALLEL, _SEQUENTIAL), _faster(_STATEMIX, _PARALLEL)),
    alone=True,
)  # fmt: skip
