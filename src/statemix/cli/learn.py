"""`statemix learn`: a file of an automaton becomes a run that is proved equal to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from statemix.cli.automaton import failure, show
from statemix.cli.console import output, progress
from statemix.cli.errors import Failure

BLOCK: Any = typer.Option(help="m, the size of a block; what the rule for m gives if left out.")


def learn(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A TOML or JSON file of the automaton.")],
    out: Annotated[Path, typer.Option(help="The run's folder; a run that is proved is not trained again.")],
    block_size: Annotated[int | None, BLOCK] = None,
    num_blocks: Annotated[int, typer.Option(help="N, blocks of a layer.")] = 16,
    dim: Annotated[int, typer.Option(help="Width of the model.")] = 128,
    depth: Annotated[int, typer.Option(help="Layers.")] = 1,
    steps: Annotated[int, typer.Option(help="The most optimiser steps.")] = 10_000,
    batch_size: Annotated[int, typer.Option(help="Words of a batch at the last length.")] = 128,
    length: Annotated[int, typer.Option(help="The last length of training words.")] = 16,
    lr: Annotated[float, typer.Option(help="Learning rate at the first step.")] = 2e-3,
    seed: Annotated[int, typer.Option(help="Of the weights and words.")] = 0,
    max_pairs: Annotated[int, typer.Option(help="The most pairs of states that are enumerated.")] = 10_000,
) -> None:
    """Train hard layers on an automaton until they are proved equal to it for words of every length.

    Exit code 1 if the steps are over before. Ctrl-C leaves the folder without a run.
    """
    from statemix.training import build_task, learn_config, learn_run

    config = learn_config(
        file, block_size=block_size, num_blocks=num_blocks, dim=dim, depth=depth, steps=steps, batch_size=batch_size,
        length=length, lr=lr, seed=seed,
    )  # fmt: skip
    progress().say(f"learning {file} in {out}", style="dim")
    summary, proof = learn_run(config, out, max_pairs=max_pairs, progress=True)
    automaton = build_task(config).automaton()
    show(proof, automaton)
    begun = "once" if summary["attempts"] == 1 else f"{summary['attempts']} times"
    output().say(f"trained for {summary['step']} steps, begun {begun}, {summary['parameters']:,} parameters")
    output().say(f"run: {out}")
    if proof.equal is not True:
        raise Failure(f"{out}: not proved in {summary['step']} steps: {failure(proof, automaton, max_pairs)}")
