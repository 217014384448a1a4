"""Every command writes to whatever standard output is: any encoding, closed, full, or with nobody at the other end."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import statemix.cli
from statemix.cli import streams
from tests.cli.conftest import TINY
from tests.training.small import python

ODD = "a[b]c[/b] :smile: [red]x\x1b[31m\nü→"
"""A path: brackets, markup, an emoji code, a terminal escape, a line feed, letters beyond ASCII."""

SHOWN = "a[b]c[/b] :smile: [red]x\\x1b[31m\\nü→"


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A function that runs a command with both streams in an encoding; its exit code and the bytes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(encoding, *arguments):
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2))
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            patch.setattr(sys, "argv", ["statemix", *arguments])
            code = statemix.cli.main()
        return code, *(stream.buffer.getvalue().decode(encoding) for stream in (out, err))

    return call


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-16", "cp437", "utf-8"])
def test_what_an_encoding_lacks_is_replaced(written, encoding):
    code, out, err = written(encoding, "tasks", "show", "permutation", "--count", "1")
    assert (code, err) == (0, "")
    assert ("→" in out) == encoding.startswith("utf")
    assert ("->" in out) != encoding.startswith("utf")
    code, out, _ = written(encoding, "tasks")
    assert code == 0
    assert out.splitlines()[0][0] == ("┏" if encoding.startswith("utf") else "+")
    assert len({len(line) for line in out.splitlines()}) == 1  # the columns are still under one another


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_names_are_printed_as_they_are(written, encoding):
    tiny = [word for word in TINY if not word.startswith("training.eval_lengths")]
    shown = SHOWN.encode(encoding, "statemix").decode(encoding)
    code, out, err = written(encoding, "train", "demo-hlru", *tiny, "--out", ODD)
    assert code == 0, err
    assert f"run: {shown}\n" in out
    name = shown.rpartition("/")[2]
    assert f" {name} {'│' if encoding == 'utf-8' else '|'}" in out
    assert err.splitlines()[0] == f"training {name} in {shown}"
    code, out, err = written(encoding, "eval", ODD)
    assert (code, err) == (0, "")
    assert f"test split, {shown}" in out
    assert "\x1b" not in out


ERRORS = {
    "folder": (["eval", ODD], "{}: No such file or directory"),
    "preset": (["train", ODD], "[b]c[/b] :smile: [red]x\\x1b[31m\\n"),
    "setting": (["train", f"task.name='''{ODD}'''"], "[b]c[/b] :smile: [red]x\\x1b[31m\\n"),
    "option": (["tasks", "show", "parity", f"{ODD}=1"], "[b]c[/b] :smile: [red]x\\x1b[31m\\n"),
    "command": ([ODD], "[b]c[/b] :smile: [red]x\\x1b[31m"),
    "moved": (["bench", ODD], "[b]c[/b] :smile: [red]x\\x1b[31m "),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_printed_as_they_are(written, case):
    arguments, words = ERRORS[case]
    code, out, err = written("cp1252", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words.format(SHOWN.replace("→", "->")) in err
    assert "\x1b" not in err


def test_debug_prints_no_escapes(written):
    _, _, err = written("ascii", "--debug", "tasks", "show", "parity", f"{ODD}=1")
    assert "Traceback" in err
    assert "\x1b" not in err


@pytest.fixture
def into(monkeypatch, tmp_path):
    """A function that runs a command with standard output on a descriptor; the exit code and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(descriptor, *arguments):
        err = io.StringIO()
        with monkeypatch.context() as patch, os.fdopen(descriptor, "w", encoding="utf-8") as out:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            patch.setattr(sys, "argv", ["statemix", *arguments])
            code = statemix.cli.main()
            sys.stdout.close()
        return code, err.getvalue()

    return call


COMMANDS = (["tasks"], ["tasks", "show", "parity", "--count", "2000"], ["--help"], ["train", "--help"],
            ["--version"], ["train", "demo-bdlru", "--show-config"])  # fmt: skip


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_reader_that_leaves(into, arguments):
    reading, writing = os.pipe()
    os.close(reading)
    assert into(writing, *arguments) == (streams.READER_LEFT, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_full_disk(into, arguments):
    told = "error: standard output: No space left on device\n"
    assert into(os.open("/dev/full", os.O_WRONLY), *arguments) == (1, told)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_log_that_cannot_be_written_stops_no_training(written, tmp_path, monkeypatch):
    with Path("/dev/full").open("w", buffering=1) as full, monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["statemix", "train", "demo-hlru", *TINY, "--out", "r"])
        patch.setattr(sys, "stderr", full)
        patch.chdir(tmp_path)
        assert statemix.cli.main() == 0
    assert (tmp_path / "r" / "summary.json").exists()


CLOSED = """
from statemix.cli import main
for descriptor in range(3):
    os.close(descriptor)
sys.stdin = sys.stdout = sys.stderr = None  # as Python begins without them
sys.exit(main())
"""


@pytest.mark.skipif(os.name != "posix", reason="closes descriptors")
def test_closed_streams(tmp_path):
    """No stream is open, and the run's files do not take their places."""
    done = python(CLOSED, "train", "demo-hlru", *TINY, "--out", tmp_path / "r")
    assert done.returncode == 0
    lines = (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()
    assert lines and all(line.startswith('{"kind"') for line in lines)


@pytest.mark.skipif(os.name != "posix", reason="names of files are bytes")
def test_a_locale_without_letters(tmp_path):
    """A name that the locale cannot decode, in a process begun there."""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "statemix", "eval", b"\xff" + "ü→".encode()],
        cwd=tmp_path, env={**os.environ, **plain}, capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"error: \\xff\\xfc->: No such file or directory\n"
