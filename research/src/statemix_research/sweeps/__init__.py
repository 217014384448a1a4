"""The paper's evidence as data: every table and figure a grid of runs, each run once, found again by its hash."""

from statemix_research.paper.catalogue import EXPERIMENTS, get_experiment
from statemix_research.sweeps.executors import default_compilers, default_packed, executor_of
from statemix_research.sweeps.experiment import Experiment, Plan, make_plan, only, reasons
from statemix_research.sweeps.exported import export, read_export
from statemix_research.sweeps.imported import import_runs
from statemix_research.sweeps.rows import rows_of
from statemix_research.sweeps.store import Store
from statemix_research.sweeps.sweep import Progress, jobs_of, run_all, run_sweep

__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "Plan",
    "Progress",
    "Store",
    "default_compilers",
    "default_packed",
    "executor_of",
    "export",
    "get_experiment",
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
