"""Sweeps: grids of runs as data, each run once, found again by its hash."""

from statemix_research.sweeps.executors import default_packed, executor_of
from statemix_research.sweeps.plan import Plan, jobs_of, make_plan, only, reasons
from statemix_research.sweeps.rows import export, import_runs, read_export, rows_of
from statemix_research.sweeps.store import Store
from statemix_research.sweeps.sweep import Progress, run_all, run_sweep

__all__ = [
    "Plan",
    "Progress",
    "Store",
    "default_packed",
    "executor_of",
    "export",
    "import_runs",
    "jobs_of",
    "make_plan",
    "only",
    "read_export",
    "reasons",
    "rows_of",
    "run_all",
    "run_sweep",
]
