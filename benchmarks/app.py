"""The commands of `python -m benchmarks`."""

from __future__ import annotations

from benchmarks import cli, cli_train
from statemix.cli.program import Commands, Program

NAME = "python -m benchmarks"

COMMANDS: Commands = {
    "scan": (cli.scan, f"{NAME} scan --shapes hlru:2 --sizes 2x64x8 --out scan.json"),
    "layer": (cli.layer, f"{NAME} layer --dim 32 --batch 2 --length 9 --out layer.json"),
    "decode": (cli.decode, f"{NAME} decode --layers hlru:4 --positions 1,99 --out d.json"),
    "train": (cli_train.train, f"{NAME} train task.length=4 --steps 1 --packed 2"),
    "picture": (cli.picture, f"{NAME} picture scan.json --out speed.png"),
    "report": (cli.report, f"{NAME} report scan.json layer.json d.json --out speed.md"),
}

PROGRAM = Program(
    name=NAME,
    help="Measure speed.",
    commands=COMMANDS,
    example=f"{NAME} scan --shapes hlru:4 --repeats 3 --length 64",
)
