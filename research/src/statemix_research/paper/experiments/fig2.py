"""Figure 2: compression against m for each normalisation."""

from __future__ import annotations

from statemix_research.paper.experiment import Claim, Experiment, Figure, Table
from statemix_research.paper.experiments.protocol import ANY_SIZE, FULL, RATES, SEEDS, small
from statemix_research.sweeps.grid import Sweep
from statemix_research.sweeps.models import BDLRU, HLRU

from statemix.ops import NORMALIZATIONS

_PARAMETERS = {"matched_on": "parameters"}
_SOFTMAX = {**_PARAMETERS, "normalization": "softmax"}

EXPERIMENT = Experiment(
    "fig2",
    "Figure 2: compression against m for each normalisation",
    "Which normalisation of the gates compresses best, for H-LRU (A) and BD-LRU (B), m from 1 to 16?",
    presets={
        "full": (
            Sweep(("compression",), (*HLRU, *BDLRU), (("parameters", 100_000), ("state", 128)), RATES, SEEDS,
                  normalizations=tuple(NORMALIZATIONS), settings=FULL),
        ),
        "small": (
            small(("compression",), ("hlru-1", "hlru-3", "bdlru-1", "bdlru-3"), rates=(1e-2,),
                  normalizations=tuple(NORMALIZATIONS)),
        ),
    },
    tables=(
        Table("Compression at equal parameters", ("layer", "normalization"), ("m",), where=_PARAMETERS),
        Table("Compression at equal state", ("layer", "normalization"), ("m",), where={"matched_on": "state"}),
    ),
    figures={
        "fig2": Figure("Compression against m", x="m", series=("normalization",), panel="layer", over=ANY_SIZE),
    },
    claims=(
        Claim("H-LRU is the most parameter-efficient on compression: m = 4 above BD-LRU m = 4 at equal parameters",
              {"model": "H-LRU m = 4", **_SOFTMAX}, "above", against={"model": "BD-LRU m = 4", **_SOFTMAX}),
    ),
)  # fmt: skip
