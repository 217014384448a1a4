"""Files of a run: written whole or not at all, and errors that say which file and what to do."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TEMPORARY = ".*.tmp"
"""The names of files that are not whole yet; host and process of who writes stand before the end."""

OLD = 86_400
"""Seconds after which nobody is still writing."""


class RunError(RuntimeError):
    """A run folder, a checkpoint or the disk is not as it must be. The message names the file."""


class BusyError(RunError):
    """Another process is training this run now."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError into a RunError that names the file and says that nothing older was lost."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"cannot write {path}: {reason} (what was saved before is untouched)") from error


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place: whole or not at all."""
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def abandoned(temporary: Path) -> bool:
    """Whether nobody writes a temporary file any more: its process is gone, or it is `OLD`."""
    *_, pid, _ = temporary.name.split(".")
    if f".{socket.gethostname()}." in temporary.name and pid.isdigit():
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False  # it is another user's
    try:
        return time.time() - temporary.stat().st_mtime > OLD
    except FileNotFoundError:
        return False  # it has just been put in place


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # other systems do not open folders
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all. ValueError for NaN and infinities."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. RunError when the file is missing, unreadable or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} does not exist: {path.parent} is not a run folder") from None
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}") from None
    if not isinstance(content, dict):
        raise RunError(f"{path} holds {type(content).__name__}, expected a JSON object")
    return content


class MetricsFile:
    """metrics.jsonl: one JSON object a line, continued from a known length after an interruption."""

    def __init__(self, path: Path, length: int) -> None:
        self.path = path
        with writing(path):
            here = path.stat().st_size if path.exists() else 0
            if here < length:
                raise RunError(f"{path} has {here} bytes, the checkpoint was made after {length}")
            self._file = path.open("ab")
            self._file.truncate(length)

    def append(self, **entry: Any) -> None:
        """Add a line."""
        with writing(self.path):
            self._file.write(json.dumps(entry, allow_nan=False).encode() + b"\n")

    def sync(self) -> int:
        """Everything on the disk; the length in bytes."""
        with writing(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
            return self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file; what a full disk refuses is not an error twice."""
        with contextlib.suppress(OSError):
            self._file.close()
