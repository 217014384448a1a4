"""Carries out runs of the comparison one after another in one process, as long as its time lasts."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from statemix.lm import LMConfig, resolve_lm_config, train_language_model
from statemix.packs import Pack
from statemix.training.files import replace_file
from statemix_research.language.plan import Outcome, QualityRun, lm_settings
from statemix_research.language.quality import SETTING

OUTCOMES = "outcomes.jsonl"
"""In the folder of the runs: a line for each that is finished."""

COMPILING = 30.0
"""Seconds that the first run of a model takes beside its steps."""

RUNTIME: dict[str, Any] = {"compile": True, "log_every": 50, "tensorboard": "off", "keep_checkpoints": 1}
"""Settings of how a run is carried out. Models of one shape share their compiled code."""


def execute(
    runs: Iterable[QualityRun],
    pack: Path,
    folder: Path,
    seconds: float,
    tell: Callable[[str], None],
    known: Sequence[Outcome] = (),
) -> list[Outcome]:
    """Train the runs, those of one model together, and return their outcomes.

    A run that does not fit into what is left of the time is not begun. Each outcome is added to `OUTCOMES` at once.

    Args:
        runs: What to train.
        pack: The pack's folder.
        folder: A folder for each run, with its metrics and without weights, and `OUTCOMES`.
        seconds: How long the whole may take.
        tell: Told a line about every run.
        known: Outcomes from before, by which the time of a run is estimated.
    """
    begun, outcomes, ready = time.monotonic(), list[Outcome](), set[str]()
    tokens = Pack(pack).tokens
    for run in sorted(runs, key=lambda run: run.model):
        needed = _expected(run, [*known, *outcomes]) + (0.0 if run.model in ready else COMPILING)
        if time.monotonic() - begun + needed > seconds:
            tell(f"left for later: {run.model}, {run.learning_rate:g}, seed {run.seed}")
            continue
        found = _train(run, pack, folder, tokens)
        ready.add(run.model)
        outcomes.append(found)
        add_outcome(folder / OUTCOMES, found)
        tell(
            f"{run.model}, {run.learning_rate:g}, seed {run.seed}: {found.loss:.4f} nats, "
            f"{found.epoch_seconds:.1f} s an epoch, {time.monotonic() - begun:.0f} s so far"
        )
    return outcomes


def _expected(run: QualityRun, outcomes: Sequence[Outcome]) -> float:
    """Seconds of a run: measured for this model, else as planned."""
    measured = [one.epoch_seconds for one in outcomes if one.run.model == run.model]
    return 1.1 * run.epochs * min(measured) if measured else run.seconds()


def make_config(run: QualityRun, pack: Path, tokens: int) -> LMConfig:
    """The whole configuration of a run."""
    content, settings = resolve_lm_config().to_dict(), lm_settings(run, tokens)
    steps = settings["training"]["steps"]
    changes = {"data": {"pack": str(pack)}, "training": {"checkpoint_every": steps, **RUNTIME}}
    for section in ("model", "data", "training"):
        content[section] |= settings[section] | changes.get(section, {})
    return LMConfig.from_dict(content | {name: settings[name] for name in ("name", "mixer", "block")})


def _train(run: QualityRun, pack: Path, folder: Path, tokens: int) -> Outcome:
    config = make_config(run, pack, tokens)
    place = folder / config.name
    summary = train_language_model(config, place, progress=False)
    shutil.rmtree(place / "checkpoints", ignore_errors=True)
    (place / "model.safetensors").unlink(missing_ok=True)
    loss = summary["loss"] if summary["status"] == "finished" else None
    epoch = SETTING.steps(tokens) * SETTING.batch_size * SETTING.length
    return Outcome(run, math.inf if loss is None else loss, epoch / summary["tokens_per_second"])


def add_outcome(path: Path, outcome: Outcome) -> None:
    """Add a line to the file of outcomes, whole or not at all."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    entry = asdict(outcome.run) | {"loss": outcome.loss, "epoch_seconds": outcome.epoch_seconds}
    line = json.dumps(entry) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda temporary: temporary.write_text(before + line, encoding="utf-8"))
