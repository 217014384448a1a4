"""Files of a run: written whole or not at all, read once, and errors that say which file and what to do."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from statemix.training.digest import DIGEST, seal, unseal

TEMPORARY = ".*.tmp"
"""The names of files that are not whole yet, as a pattern for `glob`; `_TEMPORARY_NAME` is stricter."""

_TEMPORARY_NAME = re.compile(r"\..+\.(?P<pid>\d+)(?<!\.\d{8})(\.[0-9a-f]{8})?\.tmp")
"""".NAME.HOST.PROCESS.RANDOM.tmp"; earlier versions wrote no random part."""

OLD = 86_400
"""Seconds after which nobody is still writing."""


class RunError(RuntimeError):
    """A run folder, a checkpoint or the disk is not as it must be. The message names the file."""


class BusyError(RunError):
    """Another process is training this run now."""


class MissingFileError(RunError, ValueError):
    """A file that was asked for does not exist."""


class DamagedError(RunError):
    """A JSON file does not fit its digest: it was damaged, or edited by hand."""

    def __init__(self, message: str, content: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.content = content or {}  # what the file says all the same


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError into a RunError that names the file and says that nothing older was lost."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"cannot write {path}: {reason} (what was saved before is untouched)") from error


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place: whole or not at all.

    The temporary file is new and its name cannot be guessed. A link under the name `path` is replaced, not followed.
    """
    owner = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name}.{owner}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        try:
            write(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def is_temporary(path: Path) -> bool:
    """Whether a file has the name of one that `replace_file` has not put in place yet."""
    return _TEMPORARY_NAME.fullmatch(path.name) is not None


def abandoned(temporary: Path) -> bool:
    """Whether nobody writes a temporary file any more: its process is gone, or it is `OLD`."""
    name = _TEMPORARY_NAME.fullmatch(temporary.name)
    if name is None:
        return False  # a stranger's
    if f".{socket.gethostname()}." in temporary.name:
        try:
            os.kill(int(name["pid"]), 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False  # it is another user's
    try:
        return time.time() - temporary.lstat().st_mtime > OLD
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


def open_own(path: Path) -> int:
    """A descriptor to read and write a regular file of this name, made if need be. Nothing in it is changed.

    RunError for a link, which is not followed, and for whatever is no file.
    """
    flags = os.O_RDWR | os.O_CREAT | _flag("O_NOFOLLOW") | _flag("O_NONBLOCK") | _flag("O_BINARY")
    if path.is_symlink():
        raise RunError(f"{path} is a symbolic link, expected a file of the run's own: remove the link")
    with writing(path):
        descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RunError(f"{path} is not a regular file, expected a file of the run's own: remove it")
    return descriptor


def _flag(name: str) -> int:
    """A flag of `os.open`; 0 where the system has none of that name."""
    return getattr(os, name, 0)


def read_bytes(path: Path) -> bytes:
    """The whole of a regular file, opened once. OSError for whatever is no file."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | _flag("O_NONBLOCK"))  # a pipe would be waited for

    with open(path, "rb", opener=opener) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return file.read()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object and its digest, whole or not at all. ValueError for NaN and infinities."""
    text = json.dumps(seal(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, less its digest. RunError when the file is missing, unreadable, damaged or something else.

    Files of earlier versions and of people have no digest.
    """
    try:
        content = json.loads(read_bytes(path), parse_constant=_no_number, parse_float=_finite)
    except FileNotFoundError:
        raise MissingFileError(f"{path} does not exist: {path.parent} is not a run folder") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RunError(f"cannot read {path}: {reason}") from None
    if not isinstance(content, dict):
        raise RunError(f"{path} holds {type(content).__name__}, expected a JSON object")
    try:
        return unseal(content)
    except ValueError as error:
        message = f"{path} is damaged: {error}; if it was edited by hand, remove its entry {DIGEST!r}"
        raise DamagedError(message, {key: content[key] for key in content if key != DIGEST}) from None


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a number that JSON knows")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)
