"""The command `statemix-research`: baselines, sweeps, and the paper's tables and figures."""

from __future__ import annotations

from statemix.cli import main as run_main


def main() -> int:
    """Run the command line and return its exit code, as `statemix` does."""
    return run_main("statemix_research.cli.app")
