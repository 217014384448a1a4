"""metrics.jsonl: one JSON object a line, continued from a known length after an interruption; TensorBoard beside it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from statemix.extras import installed, require
from statemix.training.files import RunError, check_in_place, read_bytes, replace_file, writing

ANEW = "put it back, or remove the folder to train from the beginning"


class MetricsFile:
    """The metrics of a run that is being trained; RunError once the file was removed or replaced.

    length, digest (None in earlier versions): of the lines to go on from, as `sync` returned them; what follows is
    dropped. The file is put in place anew, so nothing that shares it by a link is changed.
    """

    def __init__(self, path: Path, length: int, digest: str | None) -> None:
        self.path = path
        kept = _read(path, length, digest)
        replace_file(path, lambda temporary: temporary.write_bytes(kept))
        with writing(path):
            self._file = path.open("ab", buffering=0)
        self._digest, self._size = hashlib.sha256(kept), length

    def append(self, **entry: Any) -> None:
        """Add a line."""
        line = json.dumps(entry, allow_nan=False).encode() + b"\n"
        check_in_place(self.path, self._file.fileno())
        self._digest.update(line)
        self._size += len(line)
        with writing(self.path):
            while line:
                line = line[self._file.write(line) :]

    def sync(self) -> tuple[int, str]:
        """Everything on the disk; the length in bytes and the digest of what this run has written."""
        check_in_place(self.path, self._file.fileno())
        with writing(self.path):
            os.fsync(self._file.fileno())
        return self._size, self._digest.hexdigest()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _read(path: Path, length: int, digest: str | None) -> bytes:
    """The lines to go on from."""
    try:
        kept = read_bytes(path)[:length] if length else b""
    except FileNotFoundError:
        kept = b""
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None
    if len(kept) < length:
        raise RunError(f"{path} has {len(kept)} bytes, the checkpoint was made after {length}: {ANEW}")
    if digest not in (None, hashlib.sha256(kept).hexdigest()) or (kept and not kept.endswith(b"\n")):
        raise RunError(f"{path} is damaged: its first {length} bytes are not those of its checkpoint: {ANEW}")
    return kept


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
    """TensorBoard scalars of every metrics line, or nothing; wanted: `training.tensorboard`."""

    names: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "macro_accuracy", "lr")
    """The entries of a line that are drawn."""

    def __init__(self, wanted: str, folder: Path, step: int) -> None:
        self._folder, self._writer = folder, None
        if wanted == "on":
            require("tensorboard")
        if wanted != "off" and installed("tensorboard"):
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
            for name in set(self.names) & entry.keys():
                if entry[name] is not None:
                    self._writer.add_scalar(f"{place}/{name}", entry[name], entry["step"])

    def close(self) -> None:
        """Write what is left, if the folder is still there."""
        if self._writer is not None and self._folder.is_dir():
            with contextlib.suppress(OSError):
                self._writer.close()
