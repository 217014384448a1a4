"""`statemix automaton`: the machine that a run of hard layers has learned, and whether it is the right one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from statemix.cli.console import Column, Table, output, progress
from statemix.cli.errors import Failure

if TYPE_CHECKING:
    from statemix.analysis import BlockReading, Proof
    from statemix.tasks import Automaton

SHOWN = 6
"""Symbols whose maps stand in the table; all of them are in the JSON file."""


def automaton(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run with hard layers.")],
    file: Annotated[
        Path | None,
        typer.Option(help="A TOML or JSON file of the automaton to compare with; the task's if left out."),
    ] = None,
    max_pairs: Annotated[int, typer.Option(help="The most pairs of states that are enumerated.")] = 10_000,
    device: Annotated[str, typer.Option(help="cpu, or a GPU such as cuda.")] = "cpu",
    json: Annotated[Path | None, typer.Option(help="Write the machine and every block's maps here.")] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Write the weights of the model that was enumerated here (safetensors)."),
    ] = None,
) -> None:
    """Read the machine back that a run of hard layers has learned, and prove or refute that it is the task's automaton.

    Enumerates every pair of the automaton's state and the model's state that any word leads to. Exit code 1 unless each
    answer is right.
    """
    from statemix.analysis import prove
    from statemix.tasks import Automaton
    from statemix.training import build_task, load_run
    from statemix.training.files import write_json

    config, model = load_run(run)
    given = build_task(config).automaton() if file is None else Automaton.from_file(file)
    progress().say(f"enumerating {run}", style="dim")
    proof = prove(model.to(device), given, max_pairs=max_pairs)
    show(proof, given)
    if weights is not None:
        from safetensors.torch import save_file

        save_file(proof.model.state_dict(), weights)
    if json is not None:
        write_json(json, _content(proof, given))
    if not proof.proved or proof.equal is False:
        raise Failure(f"{run}: {failure(proof, given, max_pairs)}")


def show(proof: Proof, given: Automaton) -> None:
    """Print what the blocks do, and the outcome."""
    output().print(_blocks(proof, given))
    for line in _sentences(proof):
        output().say(line)


def _telling(proof: Proof) -> list[BlockReading]:
    """The blocks whose contents say something of the state; where there are none, all that move."""
    moving = [one for one in proof.blocks if one.moving.any()]
    return [one for one in moving if one.determines or one.classes is not None] or moving


def _blocks(proof: Proof, given: Automaton) -> Table:
    """What the blocks hold, with their maps."""
    symbols = given.symbols[:SHOWN]
    columns = [
        Column("layer.block"),
        Column("contents", number=True),
        Column("holds"),
        Column("gap", number=True),
    ]
    table = Table("what blocks do: the channel that each channel copies", [*columns, *map(Column, symbols)])
    for one in _telling(proof):
        maps = [one.rows(symbol) for symbol in range(len(symbols))]
        count = "-" if one.contents is None else str(one.contents)
        table.add_row("{}.{}".format(*one.place), count, _holds(one), f"{one.gap:.2g}", *maps)
    return table


def _holds(one: BlockReading) -> str:
    """What a block's contents say of the automaton's state."""
    if one.contents == 1:
        return "nothing: constant"
    if one.determines:
        return "the state" if one.classes is not None else "the state and more"
    if one.classes is None:
        return "no function of the state"
    return f"which of {len(set(one.classes) - {-1})} classes of states"


def _sentences(proof: Proof) -> list[str]:
    """The outcome in words."""
    lines = []
    if rest := sum(bool(one.moving.any()) for one in proof.blocks) - len(_telling(proof)):
        lines.append(f"{rest} of {len(proof.blocks)} blocks hold no function of the state")
    if proof.at_rest:
        channels = sum(len(one.moving) for one in proof.blocks)
        lines.append(f"{proof.at_rest} of {channels} channels have too many contents and are at rest")
    if proof.pairs is not None:
        steps = int((proof.table >= 0).sum())
        lines.append(
            f"pairs of states: {proof.pairs}, steps: {steps}, the right answer leads by {proof.lead:.2f} at least"
        )
    if not proof.sure:
        lines.append(
            "some rows are decided by less than 1e-4: rounding on another device may choose otherwise"
        )
    if proof.equal:
        lines.append("equal to the automaton for words of every length")
    elif proof.proved and proof.equal is None:
        lines.append("with these at rest, equal to the automaton for words of every length")
        lines.append(f"as trained: {proof.tested:,} of {proof.tested:,} answers to random words are right")
    return lines


def failure(proof: Proof, given: Automaton, most: int) -> str:
    """Why nothing is proved; most: pairs of states."""
    if proof.counterexample is None:
        return f"more than max_pairs = {most} pairs of states, nothing is proved"
    word = " ".join(given.symbols[symbol] for symbol in proof.counterexample)
    errs = f"errs after {len(proof.counterexample)} symbols"
    if proof.at_rest and not proof.sampled:
        return (
            f"nothing is proved with at most max_pairs = {most}: with so many channels at rest the model {errs} "
            f"({word}); a larger --max-pairs leaves more of them as they are"
        )
    return f"the model {errs} ({'a random word' if proof.sampled else 'the shortest such word'}): {word}"


def _content(proof: Proof, given: Automaton) -> dict[str, Any]:
    """Everything, for a file."""
    blocks = [
        {
            "layer": one.place[0], "block": one.place[1], "moving": one.moving.tolist(), "contents": one.contents,
            "determines": one.determines,
            "classes": None if one.classes is None else list(one.classes), "gap": one.gap,
            "maps": {name: one.rows(symbol) for symbol, name in enumerate(given.symbols)},
        }
        for one in proof.blocks
    ]  # fmt: skip
    word = proof.counterexample
    return {
        "proved": proof.proved, "equal": proof.equal, "pairs": proof.pairs, "tested": proof.tested,
        "lead": proof.lead if proof.pairs is not None else None, "counterexample": None if word is None else list(word),
        "sampled": proof.sampled, "sure": proof.sure, "symbols": list(given.symbols), "states": list(given.states),
        "table": proof.table.tolist(), "answers": proof.answers.tolist(), "blocks": blocks,
    }  # fmt: skip
