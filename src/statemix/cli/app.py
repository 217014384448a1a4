"""The commands of `statemix`."""

from __future__ import annotations

from statemix.cli import automaton, doctor, learn, lm, lm_inference, runs, tasks, text, tune
from statemix.cli.program import Commands, Program

COMMANDS: Commands = {
    "demo": (runs.demo, "statemix demo --out demo --seeds 0"),
    "train": (runs.train, "statemix train demo-bdlru training.steps=200 --out runs/first"),
    "eval": (runs.evaluate, "statemix eval runs/first --lengths 16,32,64"),
    "learn": (learn.learn, "statemix learn three.toml --out runs/three"),
    "automaton": (automaton.automaton, "statemix automaton demo/runs/demo-hard-0"),
    "report": (runs.report, "statemix report runs/first --out report"),
    "doctor": (doctor.doctor, "statemix doctor"),
    "tune": (tune.tune, "statemix tune --list"),
}

TASKS: Commands = {
    "list": (tasks.list_tasks, "statemix tasks list"),
    "show": (tasks.show, "statemix tasks show parity length=12 --count 2"),
}

TASK_PROGRAM = Program(
    name="statemix tasks",
    help="List and show the synthetic tasks.",
    commands=TASKS,
    example="statemix tasks",
    default=tasks.list_tasks,
)

TEXT: Commands = {
    "list": (text.list_sources, "statemix text list"),
    "prepare": (text.prepare, "statemix text prepare --source stdlib --out packs/stdlib"),
    "tokenizer": (text.tokenizer, "statemix text tokenizer --source stdlib --size 1024"),
    "show": (text.show, "statemix text show packs/stdlib"),
}

TEXT_PROGRAM = Program(
    name="statemix text",
    help="Prepare text for language models.",
    commands=TEXT,
    example="statemix text",
    default=text.list_sources,
)

LM: Commands = {
    "list": (lm.list_presets, "statemix lm list"),
    "train": (lm.train, "statemix lm train --preset tiny data.pack=packs/stdlib"),
    "eval": (lm_inference.evaluate, "statemix lm eval runs/tiny --length 512"),
    "generate": (lm_inference.generate, 'statemix lm generate runs/tiny --prompt "The state"'),
}

LM_PROGRAM = Program(
    name="statemix lm",
    help="Train, evaluate and use language models.",
    commands=LM,
    example="statemix lm",
    default=lm.list_presets,
    classes={lm.train: lm.TrainCommand},
)

MOVED = {
    "bench": ("python -m benchmarks", "in a clone of the repository"),
    "experiment": ("statemix-research", "pip install -e research, in a clone of the repository"),
    "rivals": ("statemix-research baselines", "pip install -e research, in a clone of the repository"),
}
"""Commands of earlier versions: their name now, and where it is found."""

PROGRAM = Program(
    name="statemix",
    help="Block-diagonal and higher-order linear recurrences for PyTorch.",
    commands=COMMANDS,
    example="statemix demo",
    groups={"tasks": TASK_PROGRAM, "text": TEXT_PROGRAM, "lm": LM_PROGRAM},
    classes={runs.train: runs.TrainCommand},
    moved=MOVED,
)

run = PROGRAM.run
