"""metrics.jsonl: one JSON object a line, continued from a known length after an interruption; TensorBoard beside it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from statemix.extras import missing
from statemix.training.files import RunError, read_bytes, replace_file, writing

BUFFER = 8192
"""Bytes of lines that wait to be written together."""

ANEW = "put it back, or remove the folder to train from the beginning"


class MetricsFile:
    """The metrics of a run that is being trained.

    length, digest: of the lines to go on from, as `sync` returned them; what follows is dropped. Checkpoints of earlier
    versions have no digest (None). guard: called before anything is written, to raise when nothing may be.
    The file is put in place anew, so nothing that shares it by a link is changed. Errors: RunError naming the file.
    """

    def __init__(
        self, path: Path, length: int, digest: str | None, guard: Callable[[], None] = lambda: None
    ) -> None:
        self.path, self._guard = path, guard
        kept = self._read(length, digest)
        replace_file(path, lambda temporary: temporary.write_bytes(kept))
        with writing(path):
            self._file = path.open("ab", buffering=0)
        self._waiting = bytearray()
        self._digest, self._size = hashlib.sha256(kept), length
        self._version = self._now()

    def _read(self, length: int, digest: str | None) -> bytes:
        """The lines to go on from."""
        try:
            content = read_bytes(self.path) if length else b""
        except FileNotFoundError:
            content = b""
        except OSError as error:
            raise RunError(f"cannot read {self.path}: {error.strerror}") from None
        kept = content[:length]
        if len(kept) < length:
            raise RunError(
                f"{self.path} has {len(kept)} bytes, the checkpoint was made after {length}: {ANEW}"
            )
        if digest not in (None, hashlib.sha256(kept).hexdigest()) or (kept and not kept.endswith(b"\n")):
            raise RunError(
                f"{self.path} is damaged: its first {length} bytes are not those of its checkpoint: {ANEW}"
            )
        return kept

    def _now(self) -> tuple[int, ...]:
        """Differs when the file of that name was replaced or written to."""
        status = self.path.lstat()
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def append(self, **entry: Any) -> None:
        """Add a line."""
        self._waiting += json.dumps(entry, allow_nan=False).encode() + b"\n"
        if len(self._waiting) > BUFFER:
            self._write()

    def _check(self) -> None:
        """RunError when the file is not as this run has left it; one that was only touched is."""
        try:
            here = self._now()
        except OSError:
            raise RunError(f"{self.path} was removed while the run was training: {ANEW}") from None
        if here[:2] != self._version[:2]:
            raise RunError(f"{self.path} was replaced while the run was training: {ANEW}")
        if here != self._version:
            if hashlib.sha256(read_bytes(self.path)).digest() != self._digest.digest():
                raise RunError(f"{self.path} was changed while the run was training: {ANEW}")
            self._version = here

    def _write(self) -> None:
        self._guard()
        self._check()
        with writing(self.path):
            done = 0
            while done < len(self._waiting):
                done += self._file.write(self._waiting[done:])
            self._digest.update(self._waiting)
            self._size += len(self._waiting)
            self._waiting.clear()
            self._version = self._now()

    def sync(self) -> tuple[int, str]:
        """Everything on the disk; the length in bytes and the digest. RunError when others have changed the file."""
        self._write()
        with writing(self.path):
            os.fsync(self._file.fileno())
        return self._size, self._digest.hexdigest()

    def close(self) -> None:
        """Write what waits, if that may be, and close; what a full disk refuses is not an error twice."""
        with contextlib.suppress(OSError, RunError):
            self._write()
        self._file.close()


def check_metrics(path: Path, summary: Mapping[str, Any]) -> None:
    """RunError when the metrics of a run that is over are not those that its summary was written with.

    Summaries of earlier versions, and of imported runs, have no digest of them.
    """
    digest = summary.get("metrics_sha256")
    if digest is None or summary.get("status") == "interrupted":
        return
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise RunError(
            f"{path} is damaged: its content does not fit the digest in {path.parent}/summary.json"
        )


class Events:
    """TensorBoard scalars of every metrics line, or nothing.

    wanted: "on", "off", or "auto": when TensorBoard is installed. ImportError when "on" and it is not.
    """

    def __init__(self, wanted: str, folder: Path, step: int) -> None:
        installed = wanted != "off" and importlib.util.find_spec("tensorboard") is not None
        if wanted == "on" and not installed:
            raise ImportError(f'training.tensorboard is "on", and {missing("tensorboard")}')
        self._folder, self._writer = folder, None
        if installed:
            from torch.utils.tensorboard import SummaryWriter  # type: ignore[attr-defined]

            with writing(folder):
                self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def add(self, entry: Mapping[str, Any]) -> None:
        """The numbers of one line, under "train/…" or "test/length 16/…"."""
        if self._writer is None:
            return
        if not self._folder.is_dir():
            raise RunError(
                f"{self._folder} was removed while the run was training: run the same command to resume"
            )
        place = f"{entry['split']}/length {entry['length']}" if "split" in entry else entry["kind"]
        with writing(self._folder):
            for name in {"loss", "accuracy", "macro_accuracy", "lr"} & entry.keys():
                if entry[name] is not None:
                    self._writer.add_scalar(f"{place}/{name}", entry[name], entry["step"])

    def close(self) -> None:
        """Write what is left, if the folder is still there."""
        if self._writer is not None and self._folder.is_dir():
            with contextlib.suppress(OSError):
                self._writer.close()
