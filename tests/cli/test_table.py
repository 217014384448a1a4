"""Tables cut nothing, at any width, and obey nothing in what they show."""

from __future__ import annotations

import re
import sys

import pytest

from statemix.cli import runs, tune
from statemix.cli.console import Column, Console, Styled, Table
from tests.cli.conftest import TINY
from tests.training.small import python


def drawn(shown, width):
    console = Console(width=width)
    with console.capture() as captured:
        console.print(shown)
    return captured.get()


def words(text):
    return set(re.findall(r"[^\s│┃]+", text))


ROW = [
    ["gated_deltaproduct", Styled("gated delta rule of two factors", "dim")], "torch, chunks of 64, bfloat16",
    [Styled("1.0e-02 outputs", "dim"), "1.2e-03 initial_state"], Styled("ok", "green"),
]  # fmt: skip


def checks():
    columns = [
        Column("baseline", prose=True),
        Column("runs here as", prose=True),
        Column("errors"),
        Column(""),
    ]
    table = Table("relative errors against a float64 loop", columns)
    table.add_row(*ROW)
    table.add_row(*ROW)
    return table


def accuracies():
    summary = {"step": 20_000, "parameters": 1_234_567, "accuracy": {"16": 1.0, "4096": 0.5}}
    return runs.accuracies({"a-run-with-a-name": summary}, 16)


SHOWN = {
    "checks": (checks, [str(line) for cell in ROW for line in (cell if isinstance(cell, list) else [cell])]),
    "accuracies": (
        accuracies,
        ["a-run-with-a-name", "20000", "1,234,567", "100.0 %", "50.0 %", "4096", "(256×)"],
    ),
}


@pytest.mark.parametrize("name", SHOWN)
@pytest.mark.parametrize("width", [120, 80, 40])
def test_nothing_is_cut(name, width):
    make, cells = SHOWN[name]
    text = drawn(make(), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert words(" ".join(cells)) <= words(text.replace(":", ""))
    assert ("━" in text) == (width >= 80)  # in columns


def test_the_launches_in_use_fit(statemix, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = statemix("tune --list").out
    assert tune.LAUNCH.split()[0] in text
    assert max(len(line) for line in text.splitlines() if "│" in line) <= 80


@pytest.mark.parametrize("width", [200, 12])
def test_cells_are_data(width):
    table = Table("[b]t[/b]", [Column("[i]h"), Column("n", number=True), Column("p", prose=True)])
    table.add_row("[red]x[/]", Styled("[/]:smile:", "bold"), ["a\x1b[1m", "b\nc"])
    text = drawn(table, width)
    flat = re.sub(r"\s", "", text)
    for part in ("[b]t[/b]", "[i]h", "[red]x[/]", "[/]:smile:", "a\\x1b[1m", "b\\nc"):
        assert part in (text if width > 100 else flat)


TERMINAL = """
import fcntl, pty, struct, termios
from statemix.cli import main
process, end = pty.fork()
if not process:
    code = main()
    sys.stdout.flush()
    os._exit(code)
fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 40, 0, 0))
try:
    while data := os.read(end, 4096):
        os.write(1, data)
except OSError:
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a pseudo-terminal as Linux has it")
def test_a_narrow_terminal(tmp_path):
    """Of 40 columns."""
    line = ["train", "demo-hlru", *TINY, "name=[b]run :smile:", "--out", "a[b]c"]
    environment = "os.chdir(sys.argv.pop()); os.environ.pop('COLUMNS', 0); "
    environment += "os.environ.update(TERM='xterm', NO_COLOR='1')"
    done = python(environment + TERMINAL, *line, tmp_path)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", done.stdout)
    assert done.returncode == 0, text
    assert "[b]run :smile:," in text and "step 4/4 (100 %)" in " ".join(text.split())
    assert re.search(r"loss \d\.\d{3},\s+accuracy 0\.\d{3}", text)
    assert re.search(r"run: a\[b\]c\r*\n", text)
    assert max(len(one) for one in re.split(r"[\r\n]+", text)) <= 40
