"""Tables cut nothing, at any width, and obey nothing in what they show."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from rich.console import Console as RichConsole
from statemix_research.baselines.verify import Check
from statemix_research.sweeps import EXPERIMENTS, Progress, jobs_of, make_plan
from statemix_research.sweeps.grid import describe

from benchmarks.contestants import CONTESTANTS
from statemix.cli import bench_tables, rivals, sweep_view, tables, tune
from statemix.cli.console import Console, Styled
from statemix.cli.table import Column, Table
from tests.cli.conftest import TINY

MS = {"median": 1234.5, "lower_quartile": 1200.25, "upper_quartile": 1301.75}


def drawn(shown, width, kind=Console):
    console = kind(width=width)
    with console.capture() as captured:
        console.print(shown)
    return captured.get()


def words(text):
    return set(re.findall(r"[^\s│┃]+", text))


def comparison():
    results = {name: {"ms": {**MS, "median": 1234.5 * (k + 1)}} for k, name in enumerate(CONTESTANTS)}
    case = {"recurrence": "bdlru", "m": 16, "batch": 32, "length": 2048, "blocks": 1024, "results": results}
    return bench_tables.comparison(
        {"device": "a CPU", "threads": 2, "versions": {"torch": "2.13.0+cpu"}, "cases": [case] * 2}
    )


def checks():
    one = Check("gated_deltaproduct", "gated delta rule of two factors", "torch, chunks of 64", "bfloat16", 1e-2, 1e-3,
                {"initial_state": 1.2e-3})  # fmt: skip
    return rivals._table([one, one])


SHOWN = {
    "bench scan": comparison,
    "rivals": checks,
    "accuracies": lambda: tables.accuracies(
        {
            "a-run-with-a-name": {
                "step": 20_000,
                "parameters": 1_234_567,
                "accuracy": {"16": 1.0, "4096": 0.5},
            }
        },
        16,
    ),
}


@pytest.mark.parametrize("name", SHOWN)
@pytest.mark.parametrize("width", [120, 80, 40])
def test_nothing_is_cut(name, width):
    shown = SHOWN[name]()
    text = drawn(shown, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    cells = [cell for row in shown.rows for cell in row]
    for cell in cells:
        for line in cell if isinstance(cell, list) else [cell]:
            assert words(str(line)) <= words(text)
    assert ("━" in text) == (width >= 80)  # in columns


def test_the_launches_in_use_fit(statemix, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = statemix("tune --list").out
    assert tune.LAUNCH.split()[0] in text
    assert max(len(line) for line in text.splitlines() if "│" in line) <= 80


@pytest.mark.parametrize("kind", [Console, RichConsole])
@pytest.mark.parametrize("width", [200, 12])
def test_cells_are_data(kind, width):
    table = Table("[b]t[/b]", [Column("[i]h"), Column("n", number=True), Column("p", prose=True)])
    table.add_row("[red]x[/]", Styled("[/]:smile:", "bold"), ["a\x1b[1m", "b\nc"])
    text = drawn(table, width, kind)
    flat = re.sub(r"\s", "", text)
    for part in ("[b]t[/b]", "[i]h", "[red]x[/]", "[/]:smile:", "a\\x1b[1m", "b\\nc"):
        assert part in (text if width > 100 else flat)
    assert str(table).splitlines()[2].split() == ["[red]x[/]", "[/]:smile:", "a\\x1b[1m", "b\\nc"]


def sweep():
    plan = make_plan(EXPERIMENTS["fig3"], "small")
    jobs = jobs_of(plan.cells)
    progress = Progress(1, 0, 0, len(jobs))
    progress.running = {job.key: float(k) for k, job in enumerate(jobs[:3])}
    progress.ended, progress.compiling = 1, 2
    progress.counts["failed"] = 1
    return progress, {cell.job.key: describe(cell.labels) for cell in plan.cells}


@pytest.mark.parametrize("width", [120, 80, 40])
def test_running_experiments_are_named_by_model_task_and_seed(width):
    progress, names = sweep()
    text = " ".join(drawn(sweep_view.picture("fig3", progress, names), width).split())
    for key in progress.running:
        assert names[key] in text
        assert key[:6] not in text
    assert "S5, BD-LRU m = 1" in text and "seed 0" in text and "2 models to compile" in text


def test_a_sweep_in_a_log(monkeypatch, capsys):
    progress, names = sweep()
    monkeypatch.setattr(sweep_view, "IN_A_LINE", 2)
    line = sweep_view.line("fig3", progress, names)
    assert line.startswith("fig3: 2 of 8 runs done, 1 failed, ")
    assert [names[key] in line for key in progress.running] == [True, True, False]
    assert line.endswith("; and 1 more; 2 models to compile")
    with sweep_view.watching("fig3", 8, names) as watch:
        watch(progress)
        watch(progress)
    assert capsys.readouterr().err.count("fig3: 2 of 8 runs done") == 1


TERMINAL = """
import fcntl, os, pty, struct, sys, termios
process, end = pty.fork()
if not process:
    os.execv(sys.executable, [sys.executable, "-m", "statemix", *sys.argv[2:]])
fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 30, int(sys.argv[1]), 0, 0))
try:
    while data := os.read(end, 4096):
        os.write(1, data)
except OSError:
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a pseudo-terminal as Linux has it")
def test_a_narrow_terminal(tmp_path):
    line = ["train", "demo-hlru", *TINY, "name=[b]run :smile:", "--out", "a[b]c"]
    environment = {**os.environ, "TERM": "xterm", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    environment.pop("COLUMNS", None)
    done = subprocess.run(
        [sys.executable, "-c", TERMINAL, "40", *line], cwd=tmp_path, env=environment, capture_output=True, check=False,
    )  # fmt: skip
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", done.stdout.decode())
    assert done.returncode == 0, text
    assert "[b]run :smile:  step 4/4 (100 %)\r\n" in text
    assert re.search(r"loss \d\.\d{3}  accuracy 0\.\d{3}", text)
    assert "run: a[b]c\r\n" in text
    assert max(len(one) for one in re.split(r"[\r\n]+", text)) <= 40
