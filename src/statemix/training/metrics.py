"""metrics.jsonl: one JSON object a line, continued from a known length after an interruption."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from statemix.training.files import RunError, open_own, replace_file, writing
from statemix.training.folder import FINAL

BUFFER = 8192
"""Bytes of lines that wait to be written together."""

PIECE = 1 << 20
"""Bytes that are read at a time."""

ANEW = "put it back, or remove the folder to train from the beginning"


class MetricsFile:
    """The metrics of a run that is being trained.

    length, digest: of the lines to go on from, as `sync` returned them; all behind is dropped. Checkpoints of earlier
    versions have no digest (None). guard: called before anything is written, to raise when nothing may be.
    A file with a second name (a hard link) is replaced by a copy: what the other name stands for stays as it is.
    Errors: RunError naming the file.
    """

    def __init__(
        self, path: Path, length: int, digest: str | None, guard: Callable[[], None] = lambda: None
    ) -> None:
        self.path, self._guard, self._size = path, guard, length
        self._waiting = bytearray()
        with contextlib.ExitStack() as opened:
            self._file = opened.enter_context(os.fdopen(open_own(path), "r+b", buffering=0))
            self._digest = self._hash()
            self._check_beginning(digest)
            if os.fstat(self._file.fileno()).st_nlink > 1:
                self._put_copy()
                opened.close()
                self._file = opened.enter_context(os.fdopen(open_own(path), "r+b", buffering=0))
            with writing(path):
                self._file.truncate(length)
            self._changed = self._time()
            opened.pop_all()  # it stays open

    def _hash(self) -> hashlib._Hash:
        """The running digest of the first `_size` bytes of the file; of fewer if it has not as many."""
        digest, left = hashlib.sha256(), self._size
        self._file.seek(0)
        while piece := self._file.read(min(PIECE, left)):
            digest.update(piece)
            left -= len(piece)
        return digest

    def _check_beginning(self, digest: str | None) -> None:
        length, here = self._size, os.fstat(self._file.fileno()).st_size
        if here < length:
            what = f"has {here} bytes, the checkpoint was made after {length}"
        elif digest is None and not self._ends_line():
            what = f"has no end of a line after {length} bytes, where the checkpoint was made"
        elif digest not in (None, self._digest.hexdigest()):
            what = f"is damaged: its first {length} bytes are not those that the checkpoint was made after"
        else:
            return
        raise RunError(f"{self.path} {what}: {ANEW}")

    def _ends_line(self) -> bool:
        if self._size == 0:
            return True
        self._file.seek(self._size - 1)
        return self._file.read(1) == b"\n"

    def _put_copy(self) -> None:
        """Put a new file of the first `_size` bytes in place."""
        self._file.seek(0)
        content = self._file.read(self._size)
        replace_file(self.path, lambda temporary: temporary.write_bytes(content))

    def append(self, **entry: Any) -> None:
        """Add a line."""
        self._waiting += json.dumps(entry, allow_nan=False).encode() + b"\n"
        if len(self._waiting) > BUFFER:
            self._write()

    def _check(self) -> None:
        """RunError when the file is not the one that was opened, or is not as this run has left it."""
        here = os.fstat(self._file.fileno())
        try:
            there = self.path.lstat()
        except FileNotFoundError:
            self._restore(here.st_size)
        except OSError as error:
            raise RunError(f"cannot read {self.path}: {error.strerror}") from None
        if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
            raise RunError(f"{self.path} was replaced while the run was training: {ANEW}")
        if here.st_mtime_ns != self._changed or here.st_size != self._size:
            if here.st_size != self._size or self._hash().digest() != self._digest.digest():
                raise RunError(
                    f"{self.path} was changed while the run was training (it has {here.st_size} bytes, "
                    f"{self._size} were written): {ANEW}"
                )
            self._changed = here.st_mtime_ns  # touched, and still the same lines

    def _restore(self, size: int) -> NoReturn:
        """The file was removed: its lines can still be read, and are put back. Always a RunError."""
        if size == self._size and self._hash().digest() == self._digest.digest():
            self._put_copy()
            how = "its lines have been put back: the same command goes on from the last checkpoint"
        else:
            how = ANEW
        raise RunError(f"{self.path} was removed while the run was training; {how}")

    def _write(self) -> None:
        self._guard()
        self._check()
        with writing(self.path):
            self._file.seek(self._size)
            done = 0
            while done < len(self._waiting):
                done += self._file.write(self._waiting[done:])
        self._digest.update(self._waiting)
        self._size += len(self._waiting)
        self._waiting.clear()
        self._changed = self._time()

    def _time(self) -> int:
        return os.fstat(self._file.fileno()).st_mtime_ns

    def sync(self) -> tuple[int, str]:
        """Everything on the disk; the length in bytes and the digest. RunError when others have changed the file."""
        self._write()
        with writing(self.path):
            os.fsync(self._file.fileno())
        self._changed = self._time()
        return self._size, self._digest.hexdigest()

    def close(self) -> None:
        """Write what waits, if that may be, and close; what a full disk refuses is not an error twice."""
        with contextlib.suppress(OSError, RunError):
            self._write()
        self._file.close()


def check_metrics(path: Path, summary: Mapping[str, Any]) -> None:
    """RunError when the metrics of a run that is over are not those that its summary was written with.

    Summaries of earlier versions, and of what was imported, do not tell.
    """
    told = summary.get("metrics_sha256")
    if told is None or summary.get("status") not in FINAL:
        return
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(PIECE):
            digest.update(piece)
    if digest.hexdigest() != told:
        raise RunError(
            f"{path} is damaged: its content does not fit the digest in {path.parent}/summary.json"
        )
