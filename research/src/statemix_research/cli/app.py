"""The commands of `statemix-research`."""

from __future__ import annotations

from statemix.cli import Commands, Program
from statemix_research.cli import automata, baselines, language, sweeps

COMMANDS: Commands = {
    "list": (sweeps.list_experiments, "statemix-research list"),
    "run": (sweeps.run, "statemix-research run fig3 --preset small"),
    "show": (sweeps.show, "statemix-research show fig3 --store research/results/fig3.jsonl"),
    "export": (sweeps.export, "statemix-research export fig3 --out fig3.jsonl"),
    "import": (sweeps.import_files, "statemix-research import fig3.jsonl --store runs/evidence"),
    "paper": (sweeps.paper, "statemix-research paper --store research/results --out docs/reproduce"),
    "baselines": (baselines.baselines, "statemix-research baselines --device cpu --out baselines.json"),
    "automata": (automata.automata, "statemix-research automata screen_s4 --device cpu"),
    "diagnosis": (automata.diagnosis, "statemix-research diagnosis screen_s4 --out diagnosis.svg"),
    "corpus": (language.corpus, "statemix-research corpus ../corpus"),
    "carry": (language.carry, "statemix-research carry packs/corpus carried"),
    "losses": (language.losses, "statemix-research losses runs/soft runs/hard --out losses.jsonl"),
    "quality": (language.quality, "statemix-research quality --out runs.jsonl"),
}

PROGRAM = Program(
    name="statemix-research",
    help="The tables and figures of arXiv 2602.12021: sweeps, results and pages.",
    commands=COMMANDS,
    example="statemix-research run fig3 --preset small",
)
