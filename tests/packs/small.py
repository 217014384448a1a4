"""A small source, and what a folder holds, for tests of packs."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import warnings
from pathlib import Path

from statemix.packs import Documents, prepare_pack

ROOT = Path(__file__).parents[2]

WORDS = ["state", "mixer", "block", "order", "gate", "value", "scan", "chunk", "é", "ö", "漢字", "🙂"]


def texts(count=600, seed=0):
    """Texts of a few words each, with characters of one to four bytes; some are equal."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randrange(1, 60))) for _ in range(count)]


def source(count=600, seed=0):
    """These texts as a source."""
    made = texts(count, seed)
    documents = [(f"text {k}", lambda text=text: text) for k, text in enumerate(made)]
    return Documents("small", documents, {"count": count, "seed": seed})


def prepare(folder, count=600, seed=0, **options):
    """A pack of them in several shards."""
    return prepare_pack(source(count, seed), folder, **{"shard_tokens": 20_000, "validation": 0.1, **options})


def contents(folder):
    """{name: digest} of what a pack's folder holds."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path(folder).iterdir()
        if path.name != ".lock"
    }


def killed_in(work):
    """Whether SIGKILL ended `work()`, done in a copy of this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the copy has one thread, and starts its own
        child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def python(code, *arguments, **environment):
    """Run code in a process of its own that can import the tests."""
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "PYTHONPATH": paths, **environment},
    )  # fmt: skip
