"""`statemix lm`: presets are listed, a model is trained, errors are one line."""

from __future__ import annotations

import pytest

pytest.importorskip("typer", reason="needs the extra `train`")

from statemix.cli.app import run
from statemix.lm import LM_PRESETS
from tests.lm.small import SETTINGS, lines


def test_every_preset_is_listed(capsys):
    assert run(["lm", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in LM_PRESETS) and "9.88 B" in shown


def test_help_names_every_setting(capsys):
    assert run(["lm", "train", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "training.sharding" in shown and "data.pack" in shown and "Example: statemix lm train" in shown


def test_the_configuration_is_shown_and_read_back(capsys, tmp_path):
    assert run(["lm", "train", "--preset", "212m-bdlru-m4", "training.lr=1e-3", "--show-config"]) == 0
    shown = capsys.readouterr().out
    assert "mixer.num_blocks = 302" in shown and "training.lr = 0.001" in shown
    (tmp_path / "config.toml").write_text(shown)
    assert run(["lm", "train", "--config", str(tmp_path / "config.toml"), "--show-config"]) == 0
    assert capsys.readouterr().out == shown


def test_a_model_is_trained(pack, tmp_path, capsys):
    pytest.importorskip("transformers", reason="needs the extra `lm`")
    pytest.importorskip("accelerate", reason="needs the extra `lm`")
    words = [f"data.pack={pack}", *SETTINGS, "training.steps=4", "--out", str(tmp_path / "run")]
    assert run(["lm", "train", *words]) == 0
    shown = capsys.readouterr()
    assert "bits per byte" in shown.out and f"run: {tmp_path / 'run'}" in shown.out
    assert len(lines(tmp_path / "run", "train")) == 4
    assert run(["lm", "train", *words, "model.dim=24"]) == 1
    assert "holds another run: model.dim: 16 in the folder, 24 given" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--preset", "huge"], "error: preset: got 'huge', expected one of tiny,"),
        (["training.lr=fast"], "error: training.lr: got 'fast', expected float"),
        ([], "error: data.pack: missing"),
        (["data.pack=nowhere"], "error: nowhere is not a pack"),
        (["data.pack=PACK", "mixer.name=nothing"], "error: mixer: got 'nothing', expected one of"),
        (["data.pack=PACK", "mixer.blocks=3"], "error: mixer.blocks: unknown for 'bdlru'"),
        (["data.pack=PACK", "block.mlp_size=3"], "error: block.mlp_size: unknown"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(pack, tmp_path, capsys, words, said):
    pytest.importorskip("transformers", reason="needs the extra `lm`")
    given = [word.replace("PACK", str(pack)) for word in words]
    assert run(["lm", "train", *given, "--out", str(tmp_path / "run")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert said in errors[-1]
    assert not (tmp_path / "run").exists()
