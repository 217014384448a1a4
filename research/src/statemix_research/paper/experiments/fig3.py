"""Figure 3: eigenvalues learned on S5."""

from __future__ import annotations

from statemix_research.paper.experiment import Claim, Experiment, Figure, Table
from statemix_research.paper.experiments.protocol import ANY_SIZE, FULL, LAYERS, RATES, TRACKING_SEEDS, small
from statemix_research.sweeps.grid import Sweep


def _spectrum(m: int, value: str, relation: str, text: str) -> Claim:
    return Claim(text, {"model": f"BD-LRU m = {m}"}, relation, 0.005, value=value, over=ANY_SIZE)


_SHOWN = [*(f"BD-LRU m = {m}" for m in (1, 2, 3, 4, 5, 8)), *(f"H-LRU m = {m}" for m in (3, 8))]

EXPERIMENT = Experiment(
    "fig3",
    "Figure 3: eigenvalues learned on S5",
    "Which eigenvalues do the learned transitions have on the permutations of five elements, for each m?",
    presets={
        "full": (
            Sweep(
                ("s5",), LAYERS, (("state", 320),), RATES, TRACKING_SEEDS, settings=FULL, probes=("spectrum",)
            ),
        ),
        "small": (
            small(("s5",), ("bdlru-1", "bdlru-2", "bdlru-3", "hlru-3"), rates=(1e-2,), probes=("spectrum",)),
        ),
    },
    tables=(
        Table("Accuracy on S5"),
        Table("Share of real negative eigenvalues", value="negative"),
        Table("Share of complex eigenvalues", value="complex"),
    ),
    figures={
        "fig3": Figure(
            "Eigenvalues of the learned transitions", kind="spectra", panel="model", where={"model": _SHOWN}
        ),
    },
    claims=(
        _spectrum(1, "negative", "below", "No negative eigenvalues at m = 1 (share below 0.005)"),
        *(_spectrum(m, "negative", "above", f"Negative eigenvalues at m = {m}") for m in (2, 3, 4, 5)),
        *(_spectrum(m, "complex", "below", f"No complex eigenvalues at m = {m}") for m in (1, 2)),
        *(_spectrum(m, "complex", "above", f"Complex eigenvalues at m = {m}") for m in (3, 4, 5)),
    ),
)
