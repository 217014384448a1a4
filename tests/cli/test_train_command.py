"""`statemix train`: help, the resolved configuration, completion."""

from __future__ import annotations

import re

import pytest

from statemix.cli import app
from statemix.nn import MIXERS
from statemix.tasks import TASKS
from statemix.training import PRESETS, groups, resolve_config


def test_help_names_every_setting_preset_task_and_mixer(statemix, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = statemix("train --help")
    assert done.code == 0
    assert max(map(len, done.out.splitlines())) <= 80
    words = set(re.split(r"[\s,:]+", done.out))
    for title, settings in groups().items():
        assert f"Settings: {title}:" in done.out
        assert {one.name for one in settings} <= words
    assert {*PRESETS, *TASKS, *MIXERS} <= words
    flat = " ".join(done.out.split())
    assert all(" ".join(str(one).split()) in flat for settings in groups().values() for one in settings)


def test_show_config_prints_what_config_takes_and_trains_nothing(statemix, tmp_path):
    line = ["train", "demo-hlru", "training.steps=20", "task.name=parity", "name=ü", "--show-config"]
    done = statemix(line)
    assert (done.code, done.err) == (0, "")
    (tmp_path / "run.toml").write_text(done.out)
    assert resolve_config(None, tmp_path / "run.toml") == resolve_config("demo-hlru", None, line[2:5])
    assert statemix("train --config run.toml --show-config").out == done.out
    assert [path.name for path in tmp_path.iterdir()] == ["run.toml"]


def test_the_list_of_commands_cuts_no_sentence(statemix, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for line in ("--help", "tasks --help"):
        assert "..." not in statemix(line).out.replace("[ARGS]...", "")


COMPLETIONS = {
    "statemix tr": {"train"},
    "statemix train demo-": {name for name in PRESETS if name.startswith("demo-")},
    "statemix train demo-bdlru training.eval_e": {"training.eval_examples=", "training.eval_every="},
    "statemix train task.name=c": {"task.name=compression", "task.name=cyclic", "task.name=cycle_navigation"},
    "statemix train mixer.name=h": {"mixer.name=hlru"},
    "statemix tasks show pa": {"parity"},
}  # fmt: skip


@pytest.mark.parametrize("line", COMPLETIONS)
def test_completion(line, monkeypatch, capsys):
    monkeypatch.setenv("_STATEMIX_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    assert app.run([]) == 0
    assert set(capsys.readouterr().out.split()) == COMPLETIONS[line]


def test_completion_is_shown_and_installed(statemix, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("shellingham.detect_shell", lambda *_: ("bash", "/bin/bash"))
    assert "complete -o default -F _statemix_completion statemix" in statemix("--show-completion").out
    assert "bash completion installed" in statemix("--install-completion").out
    installed = (tmp_path / ".bash_completions" / "statemix.sh").read_text()
    assert "_STATEMIX_COMPLETE=complete_bash" in installed
