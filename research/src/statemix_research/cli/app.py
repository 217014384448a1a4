"""The commands of `statemix-research`."""

from __future__ import annotations

from statemix.cli.program import Commands, Program
from statemix_research.cli import baselines, experiment

COMMANDS: Commands = {
    "list": (experiment.list_experiments, "statemix-research list"),
    "run": (experiment.run, "statemix-research run fig3 --preset small"),
    "show": (experiment.show, "statemix-research show fig3 --out results.md"),
    "export": (experiment.export, "statemix-research export fig3 --out fig3.jsonl"),
    "import": (experiment.import_runs, "statemix-research import fig3.jsonl --store runs/evidence"),
    "baselines": (baselines.baselines, "statemix-research baselines --device cpu --out baselines.json"),
}

PROGRAM = Program(
    name="statemix-research",
    help="The evidence of arXiv 2602.12021: every table and figure of the paper, one command each.",
    commands=COMMANDS,
    example="statemix-research run fig3 --preset small",
)
