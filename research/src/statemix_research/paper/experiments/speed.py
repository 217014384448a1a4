"""Figure 5: throughput."""

from __future__ import annotations

from statemix_research.paper.experiment import Claim, Experiment, Figure, Table
from statemix_research.paper.experiments.protocol import LAYERS
from statemix_research.sweeps.models import BASELINES
from statemix_research.sweeps.throughput import SCANS, Layers, Scans

_A, _B, _C = "A: 128 blocks", "B: state 768", "C: equal parameters"
_SEQUENTIAL, _PARALLEL, _STATEMIX = SCANS


def _faster(fast: str, slow: str) -> Claim:
    return Claim(
        f"{fast} faster than {slow}, 128 blocks, m = 4", {"panel": _A, "model": fast, "m": 4}, "above",
        against={"panel": _A, "model": slow, "m": 4}, value="tokens_per_s", over=(),
    )  # fmt: skip


FIG5 = Experiment(
    "fig5",
    "Figure 5: throughput",
    "How many tokens a second do scans and layers process, forward and backward: (A) scans of 128 blocks at T = 2048, "
    "(B) scans of a state of 768 numbers by length, (C) whole layers of 33 million parameters?",
    presets={
        "full": (
            Scans(_A, tuple(SCANS), (1, 2, 4, 8), (2048,), batch=8, blocks=128),
            Scans(_B, (_PARALLEL, _STATEMIX), (1, 2, 4, 8), (256, 512, 1024, 2048, 4096, 8192), batch=8, state=768),
            Layers(_C, (*LAYERS, *BASELINES), 33_000_000, dim=1024, batch=8, length=2048),
        ),
        "small": (
            Scans(_A, tuple(SCANS), (1, 4), (64,), batch=2, blocks=16, repeats=3),
            Scans(_B, (_PARALLEL, _STATEMIX), (4,), (32, 64), batch=2, state=48, repeats=3),
            Layers(_C, ("bdlru-1", "bdlru-4", "hlru-4", "lstm"), 20_000, dim=32, batch=2, length=32, repeats=3),
        ),
    },
    tables=(
        Table("A: tokens a second of scans at one length", columns=("m",), value="tokens_per_s", where={"panel": _A},
              over=()),
        Table("B: tokens a second of scans by length", ("model", "m"), ("length",), value="tokens_per_s",
              where={"panel": _B}, over=()),
        Table("C: tokens a second of whole layers", columns=("length",), value="tokens_per_s", where={"panel": _C},
              over=()),
    ),
    figures={
        "fig5a": Figure("Scans of 128 blocks, T = 2048", x="m", y="tokens_per_s", where={"panel": _A}, panel="panel",
                        over=(), log_y=True),
        "fig5b": Figure("Scans of a state of 768 numbers, by m", x="length", y="tokens_per_s", where={"panel": _B},
                        panel="m", over=(), log_x=True, log_y=True),
        "fig5c": Figure("Whole layers of 33 million parameters", kind="ranking", y="tokens_per_s", where={"panel": _C},
                        panel="panel", over=(), across="panel"),
    },
    claims=(_faster(_PARALLEL, _SEQUENTIAL), _faster(_STATEMIX, _PARALLEL)),
    is_timing=True,
)  # fmt: skip
