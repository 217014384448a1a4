"""What docs/howto/cluster.md says of several processes, beyond what the page itself runs."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.docs.page import blocks
from tests.packs.small import ROOT, prepare

FILES = {block.title: block.text for block in blocks(ROOT / "docs" / "howto" / "cluster.md") if block.title}
TINY = [
    "model.dim=16",
    "data.length=32",
    "training.batch_size=4",
    "training.log_every=2",
    "training.eval_every=10000",
]


def start(folder, *command):
    """A command under torchrun on two processes, in `folder`."""
    paths = os.pathsep.join([str(folder), str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command],
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_the_batch_script_is_a_script(tmp_path):
    script = tmp_path / "train.sbatch"
    script.write_text(FILES["train.sbatch"])
    subprocess.run(["bash", "-n", script], check=True)
    checker = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if checker is None:
        pytest.skip("needs shellcheck")
    done = subprocess.run([checker, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_a_signal_to_torchrun_saves_and_one_process_goes_on(tmp_path):
    pytest.importorskip("transformers", reason="needs the extra lm")
    pytest.importorskip("accelerate", reason="needs the extra lm")
    from statemix.lm import resolve_lm_config, train_language_model

    prepare(tmp_path / "pack")
    settings = [f"data.pack={tmp_path / 'pack'}", "training.steps=100000", *TINY]
    command = ["-m", "statemix", "lm", "train", "--out", "run", *settings]
    process = start(tmp_path, *command)
    metrics, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 240
    while not (metrics.exists() and '"kind": "train"' in metrics.read_text()):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[0]
    assert "interrupted: saved at step" in said, said
    (saved,) = (tmp_path / "run" / "checkpoints").glob("step-*")
    step = int(saved.name[5:])
    assert step == int(re.search(r"saved at step (\d+)", said)[1])
    overrides = [*settings, f"training.checkpoint_every={step + 2}"]

    class Enough(Exception):
        """The resumed run has saved a checkpoint."""

    def stop(*arguments, **options):
        raise Enough

    from statemix.lm.checkpoint import Checkpoints

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", stop)
        with pytest.raises(Enough):
            train_language_model(resolve_lm_config("tiny", overrides=overrides), tmp_path / "run")
    steps = [int(number) for number in re.findall(r'"kind": "train", "step": (\d+)', metrics.read_text())]
    assert steps == sorted(set(steps)) and steps[-1] == step + 2


@pytest.mark.slow
def test_torchtitan_trains_the_model_of_the_page(tmp_path):
    for package in ("torchtitan", "triton", "tyro"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")
    prepare(tmp_path / "packs" / "stdlib")
    (tmp_path / "statemix_titan.py").write_text(FILES["statemix_titan.py"])
    process = start(
        tmp_path, str(Path(__file__).with_name("titan_on_cpu.py")), "--module", "statemix_titan", "--config", "tiny",
        "--training.disable_cuda_graphs", "--training.mixed_precision_param", "float32",
    )  # fmt: skip
    said = re.sub(r"\x1b\[[\d;]*m", "", process.communicate(timeout=400)[0])
    assert process.returncode == 0, said[-3000:]
    losses = {int(step): float(loss) for step, loss in re.findall(r"step:\s+(\d+)\s+loss:\s+([\d.]+)", said)}
    assert max(losses) == 20 and losses[20] < losses[1] - 1
    assert (tmp_path / "outputs" / "checkpoint" / "step-20").is_dir()
